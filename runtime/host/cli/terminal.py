"""What every command of `zone` shares: how it writes, and how it shows that it works."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pipeline.errors import SentenceError

GAP = "  "


class NotShown(SentenceError):
    """What was to be printed could not be: stdout, or stderr, is a file on a full disk."""


def write(text: str) -> None:
    """Write to stdout, at once; what its encoding does not have is escaped.

    Raises:  BrokenPipeError where nobody reads it any more, NotShown.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):  # or the interpreter tries once more when it ends, and fails again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise not_shown("stdout", error) from error


def not_shown(where: str, error: OSError) -> NotShown:
    """The error for what could not be written to one of our own files."""
    return NotShown(where, expected="a place for what is printed", got=str(error.strerror))


def show(document: Any, format: str) -> bool:
    """Write a document as json or yaml; False, and nothing written, where a table is wanted. ASCII: nothing acts."""
    if format == "json":
        write(json.dumps(document, indent=2) + "\n")
    elif format == "yaml":
        from runtime.host.cli import yaml

        write(yaml.dumps(document))
    else:
        return False
    return True


def one_of_many(document: Any, format: str) -> str:
    """One of a series of documents as text: a line of JSON, or a document of YAML behind its mark."""
    if format == "json":
        return json.dumps(document) + "\n"
    from runtime.host.cli import yaml

    return "---\n" + yaml.dumps(document)


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


def duration_text(seconds: float) -> str:
    """A time for people: `3 h`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one under the other; what is empty is left out."""
    shown = [[f"{name}:", escaped(value)] for name, value in rows if value not in ("", None, ())]
    write(plain_table(shown) if shown else "")


def window_size() -> tuple[int, int]:
    """Rows and columns of the terminal, whichever of the standard files is one; 24 and 80 where none says."""
    import os

    for fd in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return 24, 80


def with_progress(work: Callable[[Any], Any], *, quiet: bool = False, patient: bool = False) -> Any:
    """`work(progress)`, with progress on stderr that is taken off it again.

    quiet:   with none. patient: only of what takes longer than two seconds.
    """
    from pipeline.progress import Progress, for_terminal

    progress: Progress
    if patient:
        from runtime.host.cli.patience import PatientProgress

        progress = PatientProgress(for_terminal)
    else:
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
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = (GAP.join(map(_padded, row, widths)).rstrip() for row in rows)
    return "".join(line + "\n" for line in lines)


def _padded(cell: str, columns: int) -> str:
    return cell + " " * (columns - width(cell))


def width(text: str) -> int:
    """How many columns of a terminal it takes; rather one too many than one too few where terminals differ."""
    return len(text) if text.isascii() else sum(_columns(text))


def cut(text: str, columns: int) -> str:
    """As much of its beginning as so many columns have room for."""
    if text.isascii():
        return text[:columns]
    end = 0
    for char_columns in _columns(text):
        columns -= char_columns
        if columns < 0:
            break
        end += 1
    return text[:end]


def _columns(text: str) -> Iterator[int]:
    """Of each character. Source: Unicode's UAX #11; UTS #51 for what a variation selector, or a flag, makes of it."""
    import unicodedata

    before = 0
    for char in text:
        if char == "\ufe0f":  # what is before it is drawn as an emoji
            columns = 2 - before if before else 0
        elif unicodedata.category(char) in ("Mn", "Me"):
            columns = 0
        else:
            is_wide = unicodedata.east_asian_width(char) in "WF" or "\U0001f1e6" <= char <= "\U0001f1ff"
            before = columns = 1 + is_wide
        yield columns
