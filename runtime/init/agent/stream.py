"""One stream of the agent channel at the zone's end: credits, and what its method makes of the frames."""

import errno

from runtime.init.agent.errors import Refused
from runtime.init.agent.pipes import Source
from runtime.init.channel import frames
from runtime.init.channel.credit import CreditError, Credits
from runtime.init.channel.jsonwrite import dumps
from runtime.init.failure import Failure, why
from runtime.init.report import say

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.agent.link import Link


class Handler:
    """What a method makes of a stream that lives on; by itself it takes nothing and wants nothing.

    closed() comes once, at whatever end: the result has been given, the host has cancelled, the session is over.
    """

    def data(self, fd: int, payload: bytes) -> None:
        """Bytes from the host. Whoever takes them gives credit: Stream.consumed."""
        raise Refused("protocol", f"this stream takes no bytes of descriptor {fd}")

    def eof(self, fd: int) -> None:
        """The host has no more bytes for a descriptor."""

    def event(self, value: dict[str, object]) -> None:
        """A JSON event."""

    def credit(self, fd: int, count: int) -> None:
        """The host has consumed bytes."""

    def closed(self) -> None:
        """The stream is over; let go of what it held."""


class Outlet:
    """Sends what a source gives, as far as credit goes. done() is called when its end has been sent."""

    def __init__(self, stream: "Stream", fd: int, take: "Callable[[int], bytes | None]") -> None:
        self.stream, self._fd, self._take = stream, fd, take
        self.ended = False
        self.done: Callable[[], object] | None = None

    def wake(self) -> None:
        """There may be something to send."""
        if not self.ended and not self.stream.over:
            self.stream.link.ready(self)

    def send(self) -> bool:
        """Put one frame into the outbox; False when there is nothing to send or no credit."""
        stream = self.stream
        if self.ended or stream.over:
            return False
        room = min(stream.credits.may_send(self._fd), frames.MAX_PAYLOAD_BYTES)
        if not room:
            return False
        data = self._take(room)
        if data is None:
            return False
        if not data:
            self.ended = True
            stream.link.put(frames.frame(frames.EOF, stream.number, b"", self._fd))
            if self.done is not None:
                self.done()
            return False
        stream.credits.sent(self._fd, len(data))
        stream.link.put(frames.frame(frames.DATA, stream.number, data, self._fd))
        return True


class Stream:
    """A stream the host has opened; `over` once it has its result or nobody waits for it any more."""

    def __init__(self, link: "Link", number: int, method: str) -> None:
        self.link, self.number, self.method = link, number, method
        self.credits = Credits()
        self.handler = Handler()
        self.over = False
        self._outlets: dict[int, Outlet] = {}

    def outlet(self, fd: int, take: "Callable[[int], bytes | None]") -> Outlet:
        """Send the bytes `take` gives; b"" is their end, None means that wake() will be called."""
        outlet = self._outlets[fd] = Outlet(self, fd, take)
        outlet.wake()
        return outlet

    def pour(self, fd: int, source: Source) -> Outlet:
        """Send what a source gives."""
        outlet = self.outlet(fd, source.take)
        source.wake = outlet.wake
        return outlet

    def consumed(self, fd: int, count: int) -> None:
        """Bytes of the host are gone: it may send so many more."""
        if not self.over and (give := self.credits.consumed(fd, count)):
            self.link.put(frames.credit(self.number, fd, give))

    def event(self, value: dict[str, object]) -> None:
        """Tell the host something about this stream."""
        if not self.over:
            self.link.put(frames.message(frames.EVENT, self.number, dumps(value)))

    def succeed(self, ok: dict[str, object]) -> None:
        """End the stream with its result."""
        self._end({"ok": ok})

    def fail(self, reason: str, sentence: str) -> None:
        """End the stream with an error."""
        self._end({"error": {"reason": reason, "sentence": sentence}})

    def refuse(self, error: Exception) -> None:
        """End the stream with what went wrong."""
        if isinstance(error, (Refused, Failure)):
            self.fail(error.reason, error.sentence)
        elif isinstance(error, OSError):
            self.fail(errno.errorcode.get(error.errno or 0, "internal"), f"{self.method}: {why(error)}")
        elif isinstance(error, ValueError):
            self.fail("protocol", f"{self.method}: {error}")
        else:
            say(f"agent: {self.method}: {type(error).__name__}: {error}")
            self.fail("internal", f"{self.method}: {type(error).__name__}: {error}")

    def after(self, seconds: float, action: "Callable[[], object]") -> None:
        """Do something later, if somebody waits for it still; what it raises is the result."""

        def later() -> None:
            if self.over:
                return
            try:
                action()
            except Exception as error:
                self.refuse(error)

        self.link.after(seconds, later)

    def abandon(self) -> None:
        """Nobody waits for this stream any more."""
        if not self.over:
            self.over = True
            self.link.streams.pop(self.number, None)
            try:
                self.handler.closed()
            except Exception as error:  # its end, too: the session's other streams, and the next session, go on
                say(f"agent: {self.method}: {type(error).__name__}: {error}")

    def frame(self, kind: int, fd: int, payload: bytes) -> None:
        """What came from the host. Raises Refused, CreditError, ValueError: they end the stream."""
        if kind == frames.DATA:
            self.credits.received(fd, len(payload))
            self.handler.data(fd, payload)
        elif kind == frames.CREDIT:
            count = frames.credit_of(payload)
            self.credits.given(fd, count)
            self.handler.credit(fd, count)
            if fd in self._outlets:
                self._outlets[fd].wake()
        elif kind == frames.EOF:
            self.handler.eof(fd)
        elif kind == frames.EVENT:
            self.handler.event(self.link.read_object(payload))
        elif kind == frames.CANCEL:
            self.abandon()
        else:
            raise CreditError(f"expected a frame of a stream, got {frames.NAMES[kind]}")

    def _end(self, result: dict[str, object]) -> None:
        if self.over:
            return
        try:
            text = dumps(result)
            answer = frames.message(frames.RESULT, self.number, text)
        except (TypeError, ValueError) as error:
            refusal = {"error": {"reason": "internal", "sentence": f"the result of {self.method}: {error}"}}
            answer = frames.message(frames.RESULT, self.number, dumps(refusal))
        self.link.put(answer)
        self.abandon()
