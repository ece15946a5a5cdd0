"""The agent channel at the zone's end: sessions, streams, and whose turn it is to send.

Whatever comes from the host ends at most the stream or the session it came in; the containers live on.
"""

import posix
import time

from runtime.init import jsonread
from runtime.init.agent import device
from runtime.init.agent.errors import Refused
from runtime.init.agent.loop import READ, WRITE, Loop
from runtime.init.agent.stream import Outlet, Stream
from runtime.init.channel import frames
from runtime.init.channel.jsonwrite import dumps
from runtime.init.channel.outbox import Outbox
from runtime.init.failure import why
from runtime.init.report import say

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

VERSION = 1
SILENCE_S = 15.0  # a host that is waited for and says nothing for so long counts as gone until it speaks again
MAX_STREAMS = 4096
_NOTES_BYTES = 1 << 20  # with so much unsent, events are dropped: the host asks for the state when it comes back
# With so much that the host has asked for and not taken, it is refused more; one that asks on has lost its session.
_BUSY_BYTES, _MOST_BYTES = 4 << 20, 16 << 20
_READ_BYTES, _READS = 4096, 16
_FIRST_LOOK_S, _LAST_LOOK_S = 0.02, 1.0


class Link:
    """The device, the session of the host on it, and that session's streams.

    opened:   called with a new stream and its parameters; what it raises is the stream's result.
    hello:    what the answer to a HELLO says besides version and session; it may leave out what does not fit.
    began:    called when a session begins, ended when it ends.
    waited:   is anything standing still for the host?
    silent:   called when the host counts as gone.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        opened: "Callable[[Stream, dict[str, object]], object]",
        hello: "Callable[[], list[dict[str, object]]]",
        began: "Callable[[], object]",
        ended: "Callable[[], object]",
        waited: "Callable[[], bool]",
        silent: "Callable[[], object]",
    ) -> None:
        self._loop, self._opened, self._hello = loop, opened, hello
        self._began, self._ended, self._waited, self._silent = began, ended, waited, silent
        self._fd = -1
        self._path = ""
        self._look_s = _FIRST_LOOK_S
        self._parser = frames.Parser(hunting=True)
        self._outbox = Outbox(link_credit=True)
        self._ready: dict[Outlet, None] = {}
        self._notes = 0
        self._heard_at = 0.0
        self._check: int | None = None
        self._is_silent = False
        self._expected = False
        self.session = ""
        self.streams: dict[int, Stream] = {}

    @property
    def attended(self) -> bool:
        """Is there a host, as far as is known? Also before it first speaks, where it gave the zone a channel."""
        return self._expected and not self._is_silent

    @property
    def unsent_bytes(self) -> int:
        """What the host has not been sent yet."""
        return self._outbox.waiting_bytes

    def start(self, path: str, fd: int | None) -> None:
        """Use the device that is open already, or look for it until it is there."""
        self._path = path
        self._heard_at = time.monotonic()
        self._expected = fd is not None or device.announced()
        if fd is None:
            self._look()
        else:
            self._attach(fd)

    def put(self, data: bytes) -> None:
        """Queue whole frames."""
        self._outbox.put(data)

    def ready(self, outlet: Outlet) -> None:
        """Let an outlet send when it is its turn."""
        self._ready[outlet] = None

    def note(self, event: str, fields: dict[str, object]) -> None:
        """Tell the host something it did not ask for; without a session nobody hears it."""
        self._notes += 1
        if self.session and self._outbox.waiting_bytes < _NOTES_BYTES:
            self.put(frames.message(frames.NOTE, 0, dumps({"seq": self._notes, "event": event} | fields)))

    def expect(self) -> None:
        """Something stands still until the host acts: see whether it is there."""
        if self._check is None:
            self._check = self._loop.after(SILENCE_S, self._look_for_silence)

    def pump(self) -> None:
        """Fill the outbox in turns, write what may be written."""
        while True:
            while self._ready and not self._outbox.full:
                outlet = next(iter(self._ready))
                del self._ready[outlet]
                if self._sends(outlet):
                    self._ready[outlet] = None
            if self._fd < 0 or not (piece := self._outbox.take()):
                return
            try:
                count = posix.write(self._fd, piece)
            except BlockingIOError:
                self._loop.watch(self._fd, READ | WRITE, self._event)
                return
            except OSError as error:
                self._detach(error)
                return
            self._outbox.wrote(count)

    def read_object(self, payload: bytes) -> dict[str, object]:
        """A JSON object. Raises Refused."""
        try:
            value = jsonread.parse(payload)
        except (ValueError, RecursionError) as error:
            raise Refused("protocol", f"message: {error}") from None
        if not isinstance(value, dict):
            raise Refused("protocol", f"message: expected an object, got {value!r:.40}")
        return value

    def after(self, seconds: float, action: "Callable[[], object]") -> int:
        """The loop's timer."""
        return self._loop.after(seconds, action)

    def _sends(self, outlet: Outlet) -> bool:
        try:
            return outlet.send()
        except Exception as error:
            outlet.ended = True
            outlet.stream.refuse(error)
            return False

    # The device.

    def _look(self) -> None:
        try:
            fd = device.open_link(self._path)
        except OSError as error:
            say(f"the agent channel {self._path}: {why(error)}")
            fd = None
        if fd is not None:
            self._attach(fd)
            return
        self._loop.after(self._look_s, self._look)
        self._look_s = min(self._look_s * 2, _LAST_LOOK_S)

    def _attach(self, fd: int) -> None:
        self._fd, self._look_s = fd, _FIRST_LOOK_S
        self._parser = frames.Parser(hunting=True)
        self._loop.watch(fd, READ, self._event, vital=True)
        # A host that greeted before the device was raw was not heard, or not as it spoke.
        self._ask_for_a_session()
        self.pump()

    def _ask_for_a_session(self) -> None:
        self._outbox.greet(frames.guest_greeting(dumps({"version": VERSION, "session": ""})))

    def _detach(self, error: OSError | None) -> None:
        say(f"the agent channel has gone: {why(error) if error else 'hung up'}")
        self._loop.forget(self._fd)
        posix.close(self._fd)
        self._fd = -1
        self._loop.after(self._look_s, self._look)
        self._end_session()

    def _event(self) -> None:
        self._loop.watch(self._fd, READ, self._event)
        for _ in range(_READS):
            try:
                data = posix.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._detach(error)
                return
            if not data:
                self._detach(None)
                return
            for kind, fd, number, payload in self._parser.feed(data):
                self._frame(kind, fd, number, payload)

    # What comes.

    def _frame(self, kind: int, fd: int, number: int, payload: bytes) -> None:
        self._heard_at = time.monotonic()
        self._is_silent = False
        if kind == frames.LOST:
            self.note("lost", {"sentence": f"frame: got {payload.decode('ascii', 'replace')}"})
            self._end_session()
        elif kind == frames.HELLO:
            self._greet(payload)
        elif kind == frames.CREDIT and not number:
            self._outbox.credit(frames.credit_of(payload))
        elif not self.session:
            return
        elif kind == frames.OPEN:
            self._open(number, payload)
        elif number in self.streams:
            stream = self.streams[number]
            try:
                stream.frame(kind, fd, payload)
            except Exception as error:
                stream.refuse(error)

    def _greet(self, payload: bytes) -> None:
        self._end_session()
        try:
            hello = self.read_object(payload)
        except Refused as refused:
            say(f"HELLO of the host: {refused.sentence}")
            return
        session, version = hello.get("session"), hello.get("version")
        if not isinstance(session, str) or not isinstance(version, int) or version < VERSION:
            say(f"HELLO of the host: expected a session and version {VERSION}, got {payload[:80]!r}")
            return
        for fields in self._hello():
            text = dumps({"version": VERSION, "session": session} | fields)
            try:
                greeting = frames.guest_greeting(text)
            except ValueError:
                continue
            self._outbox.greet(greeting)
            self.session, self._expected = session, True
            self._began()
            return

    def _end_session(self) -> None:
        if self.session:
            self.session = ""
            self._ready.clear()
            for stream in list(self.streams.values()):
                stream.abandon()
            self._ended()

    def _open(self, number: int, payload: bytes) -> None:
        if number in self.streams:
            self.streams[number].refuse(Refused("protocol", f"stream {number} was opened twice"))
            return
        if self._outbox.waiting_bytes > _MOST_BYTES:
            say("the host asks without taking what it has asked for: its session is over")
            self._end_session()
            self._ask_for_a_session()
            return
        stream = Stream(self, number, "")
        self.streams[number] = stream
        try:
            if len(self.streams) > MAX_STREAMS:
                raise Refused("streams", f"streams: expected at most {MAX_STREAMS}, got one more")
            if self._outbox.waiting_bytes > _BUSY_BYTES:
                raise Refused("busy", f"expected what was asked for to be taken first, {_BUSY_BYTES} bytes wait")
            request = self.read_object(payload)
            method, params = request.get("method"), request.get("params", {})
            if not isinstance(method, str) or not isinstance(params, dict):
                raise Refused("protocol", f"OPEN: expected a method and its params, got {payload[:80]!r}")
            stream.method = method
            self._opened(stream, params)
        except Exception as error:
            stream.refuse(error)

    def _look_for_silence(self) -> None:
        self._check = None
        if not self._waited():
            return
        quiet_s = time.monotonic() - self._heard_at
        if quiet_s >= SILENCE_S:
            self._is_silent = True
            self._silent()
        else:
            self._check = self._loop.after(SILENCE_S - quiet_s, self._look_for_silence)
