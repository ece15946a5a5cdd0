"""Progress for people: live bars on a terminal, plain lines elsewhere. Stages report; this decides how it looks."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, Protocol

PLAIN_INTERVAL_S = 5.0


class Bar(Protocol):
    """One thing that is under way."""

    def advance(self, amount: int) -> None:
        """`amount` more bytes (or items) are done."""

    def total(self, total: int) -> None:
        """How many there are in all, once known."""


class Progress:
    """What a stage tells about its work. This base class keeps silent, as tests and libraries want."""

    def say(self, line: str) -> None:
        """One line that stays."""

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
        """A context in which something is under way; `unit` is "B" for bytes, else a word such as "files"."""
        yield _SilentBar()

    def close(self) -> None:
        """Leave the terminal tidy."""


class _SilentBar:
    def advance(self, amount: int) -> None: ...

    def total(self, total: int) -> None: ...


class PlainProgress(Progress):
    """Lines for logs and CI: one at the start, one now and then, one at the end of what took longer than a blink."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stderr
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        with self._lock:
            self._out.write(line + "\n")
            self._out.flush()

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
        bar = _PlainBar(self, title, total, unit)
        self.say(f"  {title} …")
        yield bar
        bar.finish()


class _PlainBar:
    def __init__(self, owner: PlainProgress, title: str, total: int | None, unit: str) -> None:
        self._owner, self._title, self._total, self._unit = owner, title, total, unit
        self._done = 0
        self._start = self._said = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if now - self._said < PLAIN_INTERVAL_S:
                return
            self._said = now
        self._owner.say(f"  {self._title}: {amount_text(self._done, self._unit, self._total)}")

    def total(self, total: int) -> None:
        self._total = total

    def finish(self) -> None:
        seconds = time.monotonic() - self._start
        if seconds >= 2:
            done = f"{amount_text(self._done, self._unit)} in " if self._done else ""
            self._owner.say(f"  {self._title}: {done}{seconds:.0f} s")


class RichProgress(Progress):
    """Live bars by rich; finished ones disappear, `say` lines stay above."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Live

        self._console = Console(stderr=True, highlight=False)
        self._live: Any = Live(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._live.start()

    def say(self, line: str) -> None:
        self._live.console.print(line, markup=False)

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
        task = self._live.add_task(title, total=total, amount="")
        try:
            yield _RichBar(self._live, task, unit)
        finally:
            self._live.remove_task(task)

    def close(self) -> None:
        self._live.stop()


class _RichBar:
    def __init__(self, live: Any, task: Any, unit: str) -> None:
        self._live, self._task, self._unit = live, task, unit
        self._done, self._total = 0, 0
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            done = self._done
        text = amount_text(done, self._unit)
        if self._unit == "B":
            text += f"  {amount_text(int(done / max(time.monotonic() - self._start, 0.1)), 'B')}/s"
        self._live.update(self._task, completed=done, amount=text)

    def total(self, total: int) -> None:
        self._live.update(self._task, total=total)


def amount_text(amount: int, unit: str, total: int | None = None) -> str:
    """A count for people, out of a total where that is known: `1.5 MiB of 3.0 MiB`, `3 of 162 steps`."""
    if unit != "B":
        return f"{amount} of {total} {unit}" if total else f"{amount} {unit}"
    text = f"{amount / (1 << 20):.1f} MiB" if amount >= 1 << 20 else f"{amount / 1024:.0f} KiB"
    return f"{text} of {amount_text(total, unit)}" if total else text


def for_terminal() -> Progress:
    """Bars where stderr is a terminal, plain lines where it is not."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()
