"""Frames of the agent channel: encoders, and a parser that is bounded and finds its way back.

Frame: header `<BBHI` (kind, fd, payload length, stream), payload, one trailer byte. A NUL between frames is skipped.
A JSON message that does not fit one frame goes in several, one behind the other; all but the last have MORE in their
kind.
"""

from _struct import Struct

PAD = 0
HELLO = 1
OPEN = 2
DATA = 3
EOF = 4
EVENT = 5
RESULT = 6
CREDIT = 7
CANCEL = 8
NOTE = 9
NAMES = ("PAD", "HELLO", "OPEN", "DATA", "EOF", "EVENT", "RESULT", "CREDIT", "CANCEL", "NOTE")
LOST = -1  # not on the wire: the parser's word that it is between frames no more

MORE = 0x80
JSON_KINDS = (HELLO, OPEN, EVENT, RESULT, NOTE)
FDS = (0, 1, 2)
HEADER = Struct("<BBHI")
CREDIT_PAYLOAD = Struct("<I")
TRAILER = 0xA5

MAX_PAYLOAD_BYTES = 4096
MAX_FRAME_BYTES = HEADER.size + MAX_PAYLOAD_BYTES + 1
MAX_MESSAGE_BYTES = 1 << 20
MAX_STREAM = 0xFFFFFFFF

HUNT_NULS = 16  # so many must stand before a HELLO that ends a hunt
RESET_NULS = MAX_FRAME_BYTES  # whatever frame was begun, so many end it, with a wrong trailer
LINK_WINDOW_BYTES = 2048  # what the guest may have on its way: xen/include/public/io/console.h, out[2048]
MAX_GREETING_BYTES = LINK_WINDOW_BYTES  # of the guest: nobody has given credit yet

_HUNTED = bytes(HUNT_NULS)


def frame(kind: int, stream: int, payload: bytes = b"", fd: int = 0) -> bytes:
    """One frame."""
    return b"%b%b\xa5" % (HEADER.pack(kind, fd, len(payload), stream), payload)


def message(kind: int, stream: int, text: bytes) -> bytes:
    """The frames of one JSON message. Raises ValueError for one the other end would drop."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message: expected at most {MAX_MESSAGE_BYTES} bytes, got {len(text)}")
    if len(text) <= MAX_PAYLOAD_BYTES:
        return frame(kind, stream, text)
    last = (len(text) - 1) // MAX_PAYLOAD_BYTES * MAX_PAYLOAD_BYTES
    parts = [frame(kind | MORE, stream, text[at : at + MAX_PAYLOAD_BYTES]) for at in range(0, last, MAX_PAYLOAD_BYTES)]
    return b"".join(parts) + frame(kind, stream, text[last:])


def data(stream: int, fd: int, payload: bytes) -> bytes:
    """The frames that carry bytes of a stream's descriptor; no bytes, no frame."""
    return b"".join(
        [
            frame(DATA, stream, payload[at : at + MAX_PAYLOAD_BYTES], fd)
            for at in range(0, len(payload), MAX_PAYLOAD_BYTES)
        ]
    )


def credit(stream: int, fd: int, count: int) -> bytes:
    """A frame that lets the other end send `count` more bytes."""
    return frame(CREDIT, stream, CREDIT_PAYLOAD.pack(count), fd)


def credit_of(payload: bytes) -> int:
    """The count of a CREDIT frame."""
    return int(CREDIT_PAYLOAD.unpack(payload)[0])


def host_greeting(text: bytes) -> bytes:
    """What the host begins a session with; ends whatever frame a predecessor had begun."""
    return bytes(RESET_NULS) + message(HELLO, 0, text)


def guest_greeting(text: bytes) -> bytes:
    """The guest's answer. Raises ValueError where the ring may not hold it: a host may die before it has read it."""
    greeting = _HUNTED + frame(HELLO, 0, text)
    if len(greeting) > MAX_GREETING_BYTES:
        limit = MAX_GREETING_BYTES - len(_HUNTED) - HEADER.size - 1
        raise ValueError(f"HELLO: expected at most {limit} bytes, got {len(text)}")
    return greeting


class Parser:
    """Cuts a byte stream into frames; holds one frame and one message, whatever comes.

    Whatever is no frame loses the framing: LOST is given once, and everything dropped until a HELLO behind 16 NULs.
    A parser that hunts from its start (`hunting`) drops what stands before the first such HELLO and says no LOST.
    taken_bytes: of the session, all that came behind its HELLO: what the link's credit counts.
    lost:        the bytes that were no frame, of the last LOST; another parser finds the same wrong with them.
    """

    def __init__(self, *, hunting: bool = False) -> None:
        self.hunting = hunting
        self.taken_bytes = 0
        self.lost = b""
        self._rest = b""
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._message: tuple[int, int, int] | None = None

    def feed(self, piece: bytes) -> list[tuple[int, int, int, bytes]]:
        """The frames that are complete now, as (kind, fd, stream, payload), in order.

        kind is without MORE: a message comes whole. One beyond MAX_MESSAGE_BYTES comes empty, which no JSON is.
        LOST comes as (LOST, 0, 0, what was wrong).
        """
        buffer = self._rest + piece
        self.taken_bytes += len(piece)
        found: list[tuple[int, int, int, bytes]] = []
        at, end = 0, len(buffer)
        while at < end:
            if self.hunting:
                at = self._hunt(buffer, at)
                if self.hunting:
                    break
            elif not buffer[at]:
                at = _behind_nuls(buffer, at)
                continue
            if end - at < HEADER.size:
                break
            kind, fd, length, stream = HEADER.unpack_from(buffer, at)
            wrong = _wrong(kind, fd, length, stream)
            if not wrong:
                behind = at + HEADER.size + length + 1
                if behind > end:
                    break
                if buffer[behind - 1] != TRAILER:
                    wrong = f"a frame that ends in {buffer[behind - 1]:#04x}"
                elif self._message not in (None, (kind & ~MORE, fd, stream)):
                    wrong = "a frame within a message"
            if wrong:
                begun = frame(self._message[0] | MORE, self._message[2]) if self._message else b""
                self.lost = begun + buffer[at : at + HEADER.size + min(length, MAX_PAYLOAD_BYTES) + 1]
                # Looked at again from the frame's start: the NULs of a new session may have completed it.
                self._lose()
                found.append((LOST, 0, 0, wrong.encode("ascii")))
                continue
            payload = buffer[at + HEADER.size : behind - 1]
            at = behind
            if kind & ~MORE == HELLO:
                self.taken_bytes = end - at
            if kind & MORE or self._message:
                self._add(kind, fd, stream, payload, found)
            else:
                found.append((kind, fd, stream, payload))
        self._rest = buffer[at:]
        return found

    def hunt(self) -> None:
        """Drop what comes until a HELLO behind 16 NULs."""
        self._lose()

    def _lose(self) -> None:
        self.hunting = True
        self._message, self._parts, self._parts_bytes = None, [], 0

    def _hunt(self, buffer: bytes, at: int) -> int:
        """Where a HELLO begins, and the hunt is over; or from where on the buffer must be kept."""
        end = len(buffer)
        while (nuls := buffer.find(_HUNTED, at)) >= 0:
            start = _behind_nuls(buffer, nuls)
            if end - start < HEADER.size:
                return start - HUNT_NULS
            kind, fd, length, stream = HEADER.unpack_from(buffer, start)
            if kind & ~MORE == HELLO and not _wrong(kind, fd, length, stream):
                last = start + HEADER.size + length
                if last >= end:
                    return start - HUNT_NULS
                if buffer[last] == TRAILER:
                    self.hunting = False
                    return start
            at = start + 1
        return max(at, end - HUNT_NULS + 1)

    def _add(self, kind: int, fd: int, stream: int, payload: bytes, found: list[tuple[int, int, int, bytes]]) -> None:
        self._parts_bytes += len(payload)
        if self._parts_bytes > MAX_MESSAGE_BYTES:
            self._parts = []
        else:
            self._parts.append(payload)
        if kind & MORE:
            self._message = (kind & ~MORE, fd, stream)
        else:
            found.append((kind, fd, stream, b"".join(self._parts)))
            self._message, self._parts, self._parts_bytes = None, [], 0


def _wrong(kind: int, fd: int, length: int, stream: int) -> str:
    """Why a header is none, or ""."""
    plain = kind & ~MORE
    if not HELLO <= plain <= NOTE or (kind & MORE and plain not in JSON_KINDS):
        return f"a frame of kind {kind:#04x}"
    if length > MAX_PAYLOAD_BYTES:
        return f"a frame of {length} bytes"
    if fd not in FDS or (fd and plain in JSON_KINDS):
        return f"a {NAMES[plain]} of descriptor {fd}"
    if length != CREDIT_PAYLOAD.size and plain == CREDIT:
        return f"a CREDIT of {length} bytes"
    if length and plain in (EOF, CANCEL):
        return f"a {NAMES[plain]} of {length} bytes"
    if stream and plain in (HELLO, NOTE):
        return f"a {NAMES[plain]} of stream {stream}"
    if not stream and plain not in (HELLO, NOTE, CREDIT):
        return f"a {NAMES[plain]} of no stream"
    return ""


def _behind_nuls(buffer: bytes, at: int) -> int:
    """The first byte from `at` on that is no NUL, or the end."""
    while True:
        piece = buffer[at : at + MAX_FRAME_BYTES]
        left = len(piece.lstrip(b"\0"))
        if left or not piece:
            return at + len(piece) - left
        at += len(piece)
