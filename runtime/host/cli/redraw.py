"""Lines drawn again in the same place of a terminal; elsewhere one block of lines after the other."""

from __future__ import annotations

import sys
from types import TracebackType

from runtime.host.cli.terminal import cut, window_size, write

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Redraw:
    """A context that owns the lines below the cursor; what was drawn last stays on the screen."""

    def __init__(self) -> None:
        self.in_place = sys.stdout.isatty()
        self._height = 0
        self._blocks = 0

    def __enter__(self) -> Redraw:
        if self.in_place:
            write(HIDE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.in_place:
            write(SHOW)

    def draw(self, lines: list[str]) -> None:
        """Show these lines instead of the last ones, cut to the terminal's size: a wrapped line would be two."""
        if not self.in_place:
            write("\n" * (self._blocks > 0) + "".join(f"{line}\n" for line in lines))
            self._blocks += 1
            return
        rows, columns = window_size()
        shown = [cut(line, max(columns - 1, 1)) for line in lines[: max(rows - 1, 1)]]
        up = f"\x1b[{self._height}A\r" if self._height else "\r"
        write(up + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
        self._height = len(shown)
