"""Waiting for changes: a counter that can be waited on, and a clock that tests can turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol


class Clock(Protocol):
    """Time, as the core takes it."""

    def now(self) -> float:
        """Seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds since some moment, never set back."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many of them."""


class SystemClock:
    """The machine's."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Pace:
    """Lets so many pass at once, and those that follow at so many a second."""

    def __init__(self, clock: Clock, *, at_once: int, per_second: float) -> None:
        self._clock, self._at_once, self._per_second = clock, at_once, per_second
        self._left, self._since = float(at_once), clock.monotonic()

    async def turn(self) -> None:
        """Return when the next may pass. For one caller at a time."""
        self._gain()
        while self._left < 1:
            await self._clock.sleep((1 - self._left) / self._per_second)
            self._gain()
        self._left -= 1

    def _gain(self) -> None:
        now = self._clock.monotonic()
        self._left = min(float(self._at_once), self._left + (now - self._since) * self._per_second)
        self._since = now


class Changes:
    """Counts changes of something; whoever remembers the count of its last look misses none."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        """Something has changed. On the loop only."""
        self.count += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def after(self, count: int) -> None:
        """Return once the count is another one."""
        while self.count == count:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)


async def until(changes: Changes, predicate: Callable[[], Any], clock: Clock, timeout_s: float | None = None) -> bool:
    """Wait for changes that make the predicate true; False when timeout_s went by first."""
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s
    while not predicate():
        count = changes.count
        if deadline is None:
            await changes.after(count)
            continue
        left = deadline - clock.monotonic()
        if left <= 0:
            return False
        await first(changes.after(count), clock.sleep(left))
    return True


async def first(*awaitables: Any) -> None:
    """Return when one of them is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
