"""What every command of `zone` shares: how its help looks, how it writes, how it shows that it works."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any


def command(parent: Any, name: str, text: str, *, run: Any = None, epilog: str = "") -> argparse.ArgumentParser:
    """A command's parser below `parent`; None makes the topmost one."""
    shape: dict[str, Any] = {
        "description": text,
        "epilog": epilog,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    made = (
        argparse.ArgumentParser(prog=name, **shape) if parent is None else parent.add_parser(name, help=text, **shape)
    )
    if run is not None:
        made.set_defaults(run=run)
    return made


def write(text: str) -> None:
    """Write to stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def with_progress(work: Callable[[Any], Any]) -> Any:
    """`work(progress)`, with progress on stderr that is taken off it again."""
    from pipeline.progress import for_terminal

    progress = for_terminal()
    try:
        return work(progress)
    finally:
        progress.close()


def table(head: list[str], rows: list[list[Any]]) -> None:
    """A table on stdout; rich draws it, without colour, boxes or trailing blanks where stdout is no terminal."""
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    drawn = Table(*head, box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, highlight=False)
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    if terminal:
        Console(markup=False, highlight=False).print(drawn)
        return
    plain = io.StringIO()
    Console(file=plain, width=200, markup=False, highlight=False).print(drawn)
    write("".join(line.rstrip() + "\n" for line in plain.getvalue().splitlines()))
