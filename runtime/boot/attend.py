"""Who waits for events of many zones: one thread, or an asyncio loop; never a thread for each."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.2


class Attendant(Protocol):
    """Calls back when descriptors are readable, always from one and the same thread. Any thread may use it."""

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the descriptor is readable."""

    def unwatch(self, descriptor: int) -> None:
        """No more: at return the callback is not running, unless it is the caller. One not watched is fine."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call once, in the attendant's thread."""

    def work(self, callback: Callable[[], None]) -> None:
        """Call once, in another thread: for what may block for milliseconds."""


class ThreadAttendant:
    """A thread of its own."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._asked: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        threading.Thread(target=self._run, name="consoles", daemon=True).start()

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks[descriptor] = callback
            self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        with self._lock:
            if self._callbacks.pop(descriptor, None) is not None:
                self._epoll.unregister(descriptor)

    def soon(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._asked.append(callback)
        try:
            os.write(self._wake_write, b"s")
        except BlockingIOError:
            pass  # a full pipe wakes as well

    def work(self, callback: Callable[[], None]) -> None:
        _worker().submit(_guarded, callback)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                with self._lock:
                    if descriptor == self._wake_read:
                        os.read(self._wake_read, 4096)
                        asked, self._asked = self._asked, []
                    else:
                        found = self._callbacks.get(descriptor)
                        asked = [found] if found else []
                    for callback in asked:
                        _guarded(callback)


class LoopAttendant:
    """An asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._in_loop(self._loop.add_reader, descriptor, callback)

    def unwatch(self, descriptor: int) -> None:
        self._in_loop(self._loop.remove_reader, descriptor)

    def soon(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # the loop is closed, and with it nobody is left who would want to know

    def work(self, callback: Callable[[], None]) -> None:
        _worker().submit(_guarded, callback)

    def _in_loop(self, function: Callable[..., Any], *arguments: Any) -> None:
        import asyncio

        try:
            here: object = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            function(*arguments)
            return
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def call() -> None:
            try:
                function(*arguments)
            finally:
                done.set_result(None)

        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            return  # closed: it watches nothing any more
        # It may also stop, and be closed, before it comes to the call.
        while not concurrent.futures.wait([done], _LOOK_AGAIN_S).done and not self._loop.is_closed():
            pass


@functools.cache
def shared() -> ThreadAttendant:
    """The thread of everybody who has no loop."""
    return ThreadAttendant()


@functools.cache
def _worker() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="console work")


def _guarded(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("while attending a console")
