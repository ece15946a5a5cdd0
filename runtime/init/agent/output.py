"""What a container prints, kept until the host has stored it: bytes with offsets, at most 1 MiB a descriptor.

With a host, a full buffer is read into no further, and the workload waits as it would for a slow terminal. Without one
the oldest bytes go, so that a zone nobody looks at does not stand still.
"""

from runtime.init.agent.pipes import Source

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

LIMIT_BYTES = 1 << 20
_READ_BYTES = 65536
_READS_AT_ONCE = 4  # then others have their turn


class Ring:
    """The bytes from offset `start` to offset `end` of a stream that began with offset 0."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._data = bytearray()
        self._limit = limit_bytes
        self.start = 0

    @property
    def end(self) -> int:
        """The offset of the byte that comes next."""
        return self.start + len(self._data)

    @property
    def room(self) -> int:
        """How many bytes it takes without losing any."""
        return self._limit - len(self._data)

    def add(self, data: bytes) -> None:
        """Append; the oldest bytes go where there is no room."""
        self._data += data
        if len(self._data) > self._limit:
            self.release(self.end - self._limit)

    def release(self, offset: int) -> None:
        """Forget what lies before an offset."""
        count = min(offset, self.end) - self.start
        if count > 0:
            del self._data[:count]
            self.start += count

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from an offset on that is not before the start."""
        at = offset - self.start
        return bytes(self._data[at : at + limit])


class Output:
    """One descriptor of a container, from its pipe into a ring.

    lossless:  asked whenever the ring is full: shall the workload wait (True), or the oldest bytes go?
    on_full:   told when the workload begins to wait.
    on_change: told when there is more, or the end.
    mirror:    is given every byte too.
    """

    def __init__(self, lossless: "Callable[[], bool]", on_full: "Callable[[], object]") -> None:
        self.ring = Ring()
        self.ended = False
        self.mirror: Callable[[bytes], object] | None = None
        self.readers: list[Callable[[], object]] = []
        self._lossless, self._on_full = lossless, on_full
        # More than one: a container may be started again before there was room for all that it had written.
        self._sources: list[Source] = []

    def attach(self, source: Source) -> None:
        """Read from a new pipe, behind what is left in an earlier one: the container has been started."""
        self._sources.append(source)
        self.ended = False
        source.wake = self.pump
        self.pump()

    def drain(self) -> None:
        """The process has ended; what it wrote is still taken."""
        for source in list(self._sources):
            source.drain()

    def release(self, offset: int) -> None:
        """The host has stored what lies before an offset."""
        was_full = self.ring.room == 0
        self.ring.release(offset)
        if was_full:
            self.pump()

    def pump(self) -> None:
        """Take what there is, as far as it may be taken."""
        changed = False
        for _ in range(_READS_AT_ONCE):
            if not self._sources:
                break
            room = self.ring.room
            if room == 0:
                if self._lossless():
                    self._on_full()
                    break
                room = _READ_BYTES
            data = self._sources[0].take(min(room, _READ_BYTES))
            if data is None:
                break
            changed = True
            if not data:
                del self._sources[0]
                self.ended = not self._sources
                continue
            self.ring.add(data)
            if self.mirror is not None:
                self.mirror(data)
        else:
            if self._sources:
                self._sources[0].later()
        if changed:
            for reader in list(self.readers):
                reader()
