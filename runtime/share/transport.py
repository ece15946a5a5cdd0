"""Carries the requests of a guest's rings to the server, and its replies back.

One request at a time, each ring in its turn. What a guest makes of its rings ends this transport at worst.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from runtime.share.rings import Ring

_AT_ONCE = 64  # requests of one ring before the others have their turn
_FULL_AGAIN_MS = 5  # a guest does not ring when it has made room


class Bell(Protocol):
    """Our end of a ring's event channel."""

    def fileno(self) -> int:
        """Readable when the guest rang."""

    def acknowledge(self) -> None:
        """Take what waits."""

    def notify(self) -> None:
        """Ring the guest."""


class Line(NamedTuple):
    """A ring and its event channel."""

    ring: Ring
    bell: Bell


class Transport:
    """handle: makes a whole reply of a whole request."""

    def __init__(self, lines: Sequence[Line], handle: Callable[[bytes], bytes]) -> None:
        self._lines = {line.bell.fileno(): line for line in lines}
        self._handle = handle
        self._held: dict[int, bytes] = {}  # replies that have no room yet
        self._more: set[int] = set(self._lines)  # what came before we were there is taken without a ring
        self._poll = select.poll()
        for descriptor in self._lines:
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Serve until a ring breaks. Raises BrokenRing, OSError."""
        while True:
            self.turn(0 if self._more else _FULL_AGAIN_MS if self._held else None)

    def turn(self, timeout_ms: int | None) -> None:
        """Wait for a ring at most so long, and serve each once. Raises BrokenRing, OSError."""
        for descriptor, _ in self._poll.poll(timeout_ms):
            self._lines[descriptor].bell.acknowledge()
            self._more.add(descriptor)
        due = self._more | self._held.keys()
        self._more = set()
        for descriptor in due:
            self._serve(descriptor, self._lines[descriptor])

    def _serve(self, descriptor: int, line: Line) -> None:
        given = False
        for _ in range(_AT_ONCE):
            reply = self._held.pop(descriptor, None)
            if reply is None:
                request = line.ring.take()
                if request is None:
                    break
                reply = self._handle(request)
            if not line.ring.put(reply):
                self._held[descriptor] = reply
                break
            given = True
        else:
            self._more.add(descriptor)
        if given:
            line.bell.notify()
