"""The `logs` stream: a container's output from given offsets on. Credit acknowledges; what it covers is forgotten."""

from runtime.init.agent.container import Container
from runtime.init.agent.errors import Refused
from runtime.init.agent.output import Output
from runtime.init.agent.stream import Handler, Outlet, Stream

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable


class Reader:
    """One descriptor's output on its way to the host; knows which offsets have been sent and which acknowledged."""

    def __init__(self, fd: int, output: Output, offset: int) -> None:
        if offset > output.ring.end:
            raise Refused("params", f"from {fd}: expected at most {output.ring.end}, got {offset}")
        output.release(offset)
        self._fd, self.output, self._next = fd, output, offset
        self._sent: list[list[int]] = []  # [from, to) of what has been sent and is not acknowledged
        self.gap = 0

    def take(self, limit: int) -> bytes | None:
        """The next bytes; b"" when the container has ended and all has been given."""
        ring = self.output.ring
        if self._next < ring.start:
            self.gap += ring.start - self._next
            self._next = ring.start
        data = ring.read(self._next, limit)
        if not data:
            return b"" if self.output.ended else None
        if self._sent and self._sent[-1][1] == self._next:
            self._sent[-1][1] += len(data)
        else:
            self._sent.append([self._next, self._next + len(data)])
        self._next += len(data)
        return data

    def acknowledged(self, count: int) -> None:
        """The host has stored so many more of the bytes it was sent."""
        while count > 0 and self._sent:
            first = self._sent[0]
            step = min(count, first[1] - first[0])
            first[0] += step
            count -= step
            if first[0] == first[1]:
                del self._sent[0]
            self.output.release(first[0])

    @property
    def stored(self) -> bool:
        """Has all been acknowledged that was given?"""
        return not self._sent


class Logs(Handler):
    """Sends each descriptor's output and ends when the container has ended and everything is acknowledged."""

    def __init__(self, stream: Stream, container: Container, start: dict[str, object]) -> None:
        self._stream, self._container = stream, container
        self._readers: dict[int, Reader] = {}
        self._outlets: dict[int, Outlet] = {}
        for fd, output in container.outputs.items():
            offset = start.get(str(fd), output.ring.start)
            if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
                raise Refused("params", f"from {fd}: expected an offset, got {offset!r:.60}")
            self._readers[fd] = Reader(fd, output, offset)
        for fd, reader in self._readers.items():
            outlet = self._outlets[fd] = stream.outlet(fd, self._taker(fd))
            outlet.done = self._finish
            reader.output.readers.append(outlet.wake)
        container.ended.append(self._wake_all)

    def credit(self, fd: int, count: int) -> None:
        """The host has stored bytes."""
        if fd in self._readers:
            self._readers[fd].acknowledged(count)
            self._finish()

    def closed(self) -> None:
        """Nobody reads any more."""
        for fd, reader in self._readers.items():
            if self._outlets[fd].wake in reader.output.readers:
                reader.output.readers.remove(self._outlets[fd].wake)
        if self._wake_all in self._container.ended:
            self._container.ended.remove(self._wake_all)

    def _taker(self, fd: int) -> "Callable[[int], bytes | None]":
        reader = self._readers[fd]

        def take(limit: int) -> bytes | None:
            data = reader.take(limit)
            if reader.gap:
                self._stream.event({"gap": reader.gap, "fd": fd})
                reader.gap = 0
            return data

        return take

    def _wake_all(self) -> None:
        for outlet in self._outlets.values():
            outlet.wake()

    def _finish(self) -> None:
        # Behind the end that was sent, another run's output may have begun: that is another stream's.
        sent = all(outlet.ended for outlet in self._outlets.values())
        if sent and all(reader.stored for reader in self._readers.values()):
            self._stream.succeed({})
