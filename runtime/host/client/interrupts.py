"""Signals that end a command, held while its event loop runs.

A handler that raises there strikes whatever is running just then, the loop's own code too, and leaves it half done.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

PATIENCE_S = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def held(loop: asyncio.AbstractEventLoop, work: asyncio.Task[Any]) -> Iterator[None]:
    """Ctrl-C, and SIGTERM and SIGHUP where they are handled, cancel `work`; what handlers raise is raised at the end.

    A second signal is not held: who sends it does not want to wait for what the first ended. Nor is the first for
    longer than PATIENCE_S: the work may be blocked, in writing to a pipe that nobody reads.
    """
    here = threading.current_thread()
    if here is not threading.main_thread():  # signals are not for this one
        yield
        return
    handlers = {number: handler for number in _ENDING if callable(handler := signal.getsignal(number))}
    struck: list[int] = []
    again: list[threading.Timer] = []

    def strike(number: int, frame: FrameType | None) -> None:
        struck.append(number)
        if len(struck) > 1:
            handlers[signal.Signals(number)](number, frame)
        again.append(threading.Timer(PATIENCE_S, signal.pthread_kill, (here.ident, number)))
        again[0].daemon = True
        again[0].start()
        loop.call_soon_threadsafe(work.cancel)

    for number in handlers:
        signal.signal(number, strike)
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
            timer.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if struck:
            handlers[signal.Signals(struck[0])](struck[0], None)
