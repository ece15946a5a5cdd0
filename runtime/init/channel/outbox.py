"""Bytes on their way out: in order, and in the zone never more of them than the link's credit allows."""

from runtime.init.channel.frames import LINK_WINDOW_BYTES

FULL_BYTES = 8192  # with so much waiting, streams hold back: what is asked meanwhile must not stand behind megabytes


class Outbox:
    """A queue of encoded frames.

    Use:  greet() with the HELLO of a session, put() frames, write take()'s bytes, wrote() what of them was written;
          in the zone credit() for each CREDIT of stream 0. Data of streams is put only while not `full`.
    """

    def __init__(self, *, link_credit: bool) -> None:
        self._counts = link_credit
        self._may_write = 0
        self._greeting = 0
        self._waiting = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """How much is to be written."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """True where more data should wait."""
        return len(self._waiting) >= FULL_BYTES

    @property
    def unanswered(self) -> bool:
        """True while the other end has to give credit before anything can be written: is it there?"""
        return self._counts and bool(self._waiting) and not self._greeting and not self._may_write

    def greet(self, greeting: bytes) -> None:
        """Begin a session: all that waited belonged to another. The greeting needs no credit."""
        self._waiting[:] = greeting
        self._greeting = len(greeting)
        self._may_write = 0

    def put(self, frames: bytes) -> None:
        """Queue whole frames."""
        self._waiting += frames

    def credit(self, count: int) -> None:
        """Count a CREDIT of the link. More than the ring holds cannot be meant."""
        self._may_write = min(self._may_write + count, LINK_WINDOW_BYTES)

    def take(self, limit: int = LINK_WINDOW_BYTES) -> bytes:
        """What may be written now, at most `limit` bytes; stays queued until wrote()."""
        if self._counts:
            limit = min(limit, self._greeting + self._may_write)
        return bytes(self._waiting[:limit])

    def wrote(self, count: int) -> None:
        """So much of what take() gave has been written."""
        del self._waiting[:count]
        of_greeting = min(count, self._greeting)
        self._greeting -= of_greeting
        if self._counts:
            self._may_write -= count - of_greeting
