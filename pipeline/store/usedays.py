"""When something was last used, in days on which the store was used at all.

    used/clock      the number of today, then the last dates that were taken for a new day
    used/<name>     the number of the day on which <name> was last used

A day is counted when the date is one that was not seen lately. So a clock that jumps by a year, or two hosts whose
clocks differ by one, make nothing old, and neither does a store that nobody touched for a month. These files decide
how soon something unused is collected, never whether something is right: one that is lost or garbage counts as today.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from pipeline.durable import write_atomic

CLOCK = "clock"
DATES_KEPT = 8


class UseDays:
    """The days of one store."""

    def __init__(self, directory: Path, staging: Path, *, read_only: bool = False) -> None:
        self._directory, self._staging, self._read_only = directory, staging, read_only
        self._today: int | None = None

    def today(self) -> int:
        """The number of this day."""
        if self._today is None:
            self._today = self._count()
        return self._today

    def note(self, name: str) -> None:
        """Something is used now. A failure to say so is not worth failing for."""
        today = self.today()
        path = self._directory / name
        if not self._read_only and _number(path) != today:
            with contextlib.suppress(OSError):
                path.write_text(f"{today}\n", "ascii")

    def age(self, name: str) -> int:
        """How many days ago something was used: 0 for today, and for what has no stamp yet, which gets one."""
        day = _number(self._directory / name)
        if day is None or day > self.today():
            self.note(name)
            return 0
        return self.today() - day

    def forget(self, name: str) -> None:
        """Drop a stamp."""
        (self._directory / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Whatever has a stamp."""
        return [path.name for path in self._directory.iterdir() if path.name != CLOCK]

    def _count(self) -> int:
        date = time.strftime("%Y-%m-%d", time.gmtime())
        clock = self._directory / CLOCK
        try:
            number, *dates = clock.read_text("ascii").split()
            day = int(number)
        except (OSError, ValueError):
            day, dates = max((_number(self._directory / name) or 0 for name in self.names()), default=0), []
        if date in dates:
            return day
        day += 1
        if not self._read_only:
            with contextlib.suppress(OSError):
                line = f"{day} {' '.join([*dates, date][-DATES_KEPT:])}\n"
                write_atomic(clock, line.encode("ascii"), staging=self._staging)
        return day


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
