"""Progress for people: live bars on a terminal, plain lines elsewhere. Stages report; this decides how it looks."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, Protocol

PLAIN_INTERVAL_S = 5.0
BAR_CHARS = 16
FACTS_CHARS = 48  # "1000.0 MiB of 1000.0 MiB, 1000.0 MiB/s, 100 s left"


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
        self.say(f"  {title} ({amount_text(total, unit)}) …" if total and unit == "B" else f"  {title} …")
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
        elapsed = now - self._start
        self._owner.say(
            f"  {self._title}: {facts_text(self._done, self._unit, self._total, self._done / elapsed, elapsed)}"
        )

    def total(self, total: int) -> None:
        self._total = total

    def finish(self) -> None:
        seconds = time.monotonic() - self._start
        if seconds >= 2:
            done = f"{amount_text(self._done, self._unit)} in " if self._done else ""
            rate = f", {amount_text(int(self._done / seconds), 'B')}/s" if self._done and self._unit == "B" else ""
            self._owner.say(f"  {self._title}: {done}{seconds:.0f} s{rate}")


class RichProgress(Progress):
    """Live bars by rich; finished ones disappear, `say` lines stay above. Rich is imported for the first of either."""

    def __init__(self) -> None:
        self._live: Any = None
        self._guard = threading.Lock()

    def _started(self) -> Any:
        with self._guard:
            if self._live is None:
                self._live = _live_bars()
                self._live.start()
            return self._live

    def say(self, line: str) -> None:
        self._started().console.print(line, markup=False, emoji=False)

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
        live = self._started()
        task = live.add_task(title, total=total, unit=unit)
        try:
            yield _RichBar(live, task)
        finally:
            live.remove_task(task)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _live_bars() -> Any:
    """What rich draws: title, bar, amount, rate, and the time that is left, or has passed where no total is known."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Live
    from rich.table import Column
    from rich.text import Text

    class Facts(ProgressColumn):
        """Drawn anew as time passes, from rich's own estimate of the speed."""

        def render(self, task: Any) -> Text:
            return Text(facts_text(task.completed, task.fields["unit"], task.total, task.speed, task.elapsed or 0.0))

    console = Console(stderr=True, highlight=False)
    room = max(16, console.width - BAR_CHARS - FACTS_CHARS - 2)  # a title is cut before a number is
    return Live(
        TextColumn(
            "  {task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", max_width=room)
        ),
        BarColumn(bar_width=BAR_CHARS),
        Facts(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
    )


class _RichBar:
    def __init__(self, live: Any, task: Any) -> None:
        self._live, self._task = live, task

    def advance(self, amount: int) -> None:
        self._live.advance(self._task, amount)

    def total(self, total: int) -> None:
        self._live.update(self._task, total=total)


def facts_text(done: float, unit: str, total: float | None, speed: float | None, elapsed_s: float) -> str:
    """How far something is: `5.0 MiB of 14.2 MiB, 3.1 MiB/s, 3 s left`.

    speed:   units per second; None where it is not known yet. Only bytes are worth a rate.
    """
    parts = [amount_text(int(done), unit, None if total is None else int(total))]
    if speed and unit == "B":
        parts.append(f"{amount_text(int(speed), unit)}/s")
    if speed and total and done < total:
        parts.append(f"{_seconds((total - done) / speed)} left")
    elif not total:
        parts.append(_seconds(elapsed_s))
    return ", ".join(parts)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def amount_text(amount: int, unit: str, total: int | None = None) -> str:
    """A count for people, out of a total where that is known: `1.5 MiB of 3.0 MiB`, `3 of 162 steps`."""
    if unit != "B":
        return f"{amount} of {total} {unit}" if total else f"{amount} {unit}"
    text = f"{amount / (1 << 20):.1f} MiB" if amount >= 1 << 20 else f"{amount / 1024:.0f} KiB"
    text = text if abs(amount) >= 1024 else f"{amount} B"
    return f"{text} of {amount_text(total, unit)}" if total else text


def for_terminal() -> Progress:
    """Bars where stderr is a terminal, plain lines where it is not."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()
