"""A handler of the engine's loop that fails as told."""

from __future__ import annotations

import socket

from runtime.net.engine.loop import Loop


class FailingHandler:
    """Ends the loop's run with its first event, and by an exception; with its first tick, without one."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.aborted = loop, 0

    def ready(self, source: socket.socket, mask: int) -> None:
        self.loop.stop()
        raise RuntimeError("broken")

    def tick(self, now: float) -> None:
        self.loop.stop()

    def abort(self) -> None:
        self.aborted += 1
