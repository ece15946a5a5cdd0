"""Progress that waits: what is over within two seconds is not worth a line, nor the import of what would draw it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from pipeline.progress import Bar, Progress

PATIENCE_S = 2.0


class PatientProgress(Progress):
    """Shows what `make()` gives, each bar once it has lasted; lines at once. Bars may be used by several threads."""

    def __init__(self, make: Callable[[], Progress], patience_s: float = PATIENCE_S) -> None:
        self._make, self._patience_s = make, patience_s
        self._made: Progress | None = None
        self._lock = threading.Lock()

    def inner(self) -> Progress:
        """The progress that is shown."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def say(self, line: str) -> None:
        self.inner().say(line)

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
        waiting = _Waiting(lambda known: self.inner().bar(title, total=known if known else total, unit=unit))
        timer = threading.Timer(self._patience_s, waiting.show)
        timer.daemon = True
        timer.start()
        try:
            yield waiting
        finally:
            timer.cancel()
            waiting.finish()

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


class _Waiting:
    """A bar that is not shown yet, and remembers how far it is."""

    def __init__(self, begin: Callable[[int | None], contextlib.AbstractContextManager[Bar]]) -> None:
        self._begin = begin
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._shown: Bar | None = None
        self._over = False
        self._done = 0
        self._total: int | None = None

    def show(self) -> None:
        """It has lasted."""
        with self._lock:
            if not self._over:
                self._shown = self._stack.enter_context(self._begin(self._total))
                self._shown.advance(self._done)

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            if self._shown is not None:
                self._shown.advance(amount)

    def total(self, total: int) -> None:
        with self._lock:
            self._total = total
            if self._shown is not None:
                self._shown.total(total)

    def finish(self) -> None:
        """It is over, shown or not."""
        with self._lock:
            self._over = True
            self._stack.close()
