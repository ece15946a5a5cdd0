"""What every command of `zone` shares: how its help looks, how it writes, how it shows that it works."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

GAP = "  "


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, with what may have been meant; exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {self.prog}: {message} ({self.prog} --help shows how)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            import difflib

            known = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), known, n=2, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
            raise argparse.ArgumentError(action, f"no such choice as {value!r}, {meant}")


def command(parent: Any, name: str, text: str, *, run: Any = None, epilog: str = "") -> argparse.ArgumentParser:
    """A command's parser below `parent`; None makes the topmost one."""
    shape: dict[str, Any] = {
        "description": text,
        "epilog": epilog,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    made: argparse.ArgumentParser = (
        Parser(prog=name, **shape) if parent is None else parent.add_parser(name, help=text, **shape)
    )
    if run is not None:
        made.set_defaults(run=run)
    return made


def write(text: str) -> None:
    """Write to stdout, at once; what its encoding does not have is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def escaped(text: object) -> str:
    """Text of unknown origin for a terminal: what could move a cursor or turn a line round is escaped.

    Shape:   bytes are read as UTF-8, others of them escaped; a backslash is doubled, so that no two texts look alike.
    """
    plain = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else str(text)
    return "".join(char if char.isprintable() and char != "\\" else _escape(char) for char in plain)


def _escape(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # one byte that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def size_text(size_bytes: int) -> str:
    """A size for people: `5.9 MiB`."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} B"


def with_progress(work: Callable[[Any], Any], *, quiet: bool = False) -> Any:
    """`work(progress)`, with progress on stderr that is taken off it again; `quiet`: with none."""
    from pipeline.progress import Progress, for_terminal

    progress = Progress() if quiet else for_terminal()
    try:
        return work(progress)
    finally:
        progress.close()


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; rich draws it on a terminal, elsewhere it is plain columns that never wrap."""
    cells = [["" if cell is None else escaped(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        write(plain_table([list(head), *cells]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, highlight=False)
    for title in head:
        drawn.add_column(title, overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console(markup=False, highlight=False, emoji=False).print(drawn)


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of text, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(line + "\n" for line in lines)
