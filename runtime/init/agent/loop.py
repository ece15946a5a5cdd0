"""One loop over descriptors and timers. What a handler raises ends that handler only."""

import select
import time

from runtime.init.report import say

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

READ, WRITE, CHANGED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI
_BATCH = 64
_LONGEST_S = 86400.0  # epoll_wait(2) has an int of milliseconds, which is 24 days; a health check may be rarer


class Loop:
    """Calls handlers when their descriptor is ready or their time has come, until stopped.

    A descriptor has one handler. One that wants nothing at the moment is forgotten rather than watched for nothing:
    the end of a pipe is reported whether it is asked for or not. One whose handler raises is forgotten, too: it may
    still be ready, and would raise for ever.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._events: dict[int, int] = {}
        self._vital: set[int] = set()
        self._timers: dict[int, tuple[float, Callable[[], object]]] = {}
        self._last_timer = 0
        self._after_each: Callable[[], object] | None = None
        self.stopped = False

    def watch(self, fd: int, events: int, handler: "Callable[[], object]", *, vital: bool = False) -> None:
        """Call the handler whenever the descriptor is ready.

        vital: also after it has raised, as without it the zone would hang; it reads before anything of it can fail.
        """
        self._handlers[fd] = handler
        if vital:
            self._vital.add(fd)
        known = self._events.get(fd)
        if known == events:
            return
        self._events[fd] = events
        if known is None:
            self._epoll.register(fd, events)
        else:
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no longer; must come before it is closed."""
        if self._events.pop(fd, None) is not None:
            del self._handlers[fd]
            self._vital.discard(fd)
            self._epoll.unregister(fd)

    def after(self, seconds: float, action: "Callable[[], object]") -> int:
        """Call once, later; the number is for cancel."""
        self._last_timer += 1
        self._timers[self._last_timer] = (time.monotonic() + seconds, action)
        return self._last_timer

    def cancel(self, timer: int | None) -> None:
        """Forget a timer; one that has fired, or None, is no error."""
        if timer is not None:
            self._timers.pop(timer, None)

    def each_time(self, action: "Callable[[], object]") -> None:
        """Call after every batch of handlers."""
        self._after_each = action

    def run(self) -> None:
        """Until stopped."""
        while not self.stopped:
            for fd, _ in self._epoll.poll(self._timeout_s(), _BATCH):
                handler = self._handlers.get(fd)
                if handler is not None and not self._call(handler) and fd not in self._vital:
                    self.forget(fd)
            self._fire()
            if self._after_each is not None:
                self._call(self._after_each)

    def _timeout_s(self) -> float:
        if not self._timers:
            return -1.0
        left_s = min([when for when, _ in self._timers.values()]) - time.monotonic()
        return min(max(0.0, left_s), _LONGEST_S)

    def _fire(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        due = sorted([(when, number) for number, (when, _) in self._timers.items() if when <= now])
        for _, number in due:
            timer = self._timers.pop(number, None)
            if timer is not None:
                self._call(timer[1])

    def _call(self, action: "Callable[[], object]") -> bool:
        try:
            action()
        except Exception as error:
            say(f"agent: {type(error).__name__}: {error}")
            return False
        return True
