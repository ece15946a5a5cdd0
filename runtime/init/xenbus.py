"""The guest's side of xenstore, over /dev/xen/xenbus.

Requests are sent at once and their answers read later: a write costs a hop to dom0, and init need not wait for it.
Paths are relative, which xenstored takes as below /local/domain/<own domid>.
Source:  xen/include/public/io/xs_wire.h; docs/misc/xenstore.txt.
"""

import _struct
import posix
import select
import time

DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus")
READ, WATCH, WRITE, WATCH_EVENT, ERROR = 2, 4, 11, 15, 16
MAX_VALUE_BYTES = 1024
_HEADER = "=IIII"  # type, request id, transaction id, length
_HEADER_BYTES = 16
_MAX_PAYLOAD_BYTES = 4096


def request(kind: int, number: int, payload: bytes) -> bytes:
    """One message."""
    return _struct.pack(_HEADER, kind, number, 0, len(payload)) + payload


def printable(text: str) -> bytes:
    """What may stand in a value: printable ASCII, not longer than a node holds."""
    return bytes(ord(letter) if " " <= letter <= "~" else 63 for letter in text)[:MAX_VALUE_BYTES]


def messages(buffer: bytearray) -> list[tuple[int, int, bytes]]:
    """Take the complete messages (type, request id, payload) out of a buffer. Raises ValueError on nonsense."""
    found = []
    while len(buffer) >= _HEADER_BYTES:
        kind, number, _, length = _struct.unpack_from(_HEADER, buffer)
        if length > _MAX_PAYLOAD_BYTES:
            raise ValueError(f"a xenstore message of {length} bytes")
        if len(buffer) < _HEADER_BYTES + length:
            break
        found.append((kind, number, bytes(buffer[_HEADER_BYTES : _HEADER_BYTES + length])))
        del buffer[: _HEADER_BYTES + length]
    return found


class Xenbus:
    """An open connection; `error` is the last error a write or watch was answered with, such as EACCES."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray()
        self._number = 0
        self._waiting: set[int] = set()
        self._answers: dict[int, tuple[int, bytes]] = {}
        self._events = 0
        self.error = ""

    def write(self, path: str, value: str) -> None:
        """Send a write; `settle` waits until it is done."""
        self._send(WRITE, path.encode() + b"\0" + printable(value))

    def watch(self, path: str) -> None:
        """Ask for an event whenever the node changes; one comes at once."""
        self._send(WATCH, path.encode() + b"\0" + b"zone\0")

    def changed(self) -> bool:
        """Has a watch fired since the last call? Reads what is there, does not wait."""
        self._receive(0)
        fired, self._events = self._events > 0, 0
        return fired

    def read(self, path: str, timeout_s: float) -> str | None:
        """The value of a node, None when it is not there or no answer comes in time."""
        number = self._send(READ, path.encode() + b"\0", keep=True)
        self._settle({number}, timeout_s)
        kind, payload = self._answers.pop(number, (ERROR, b""))
        self._waiting.discard(number)
        return payload.decode("ascii", "replace") if kind == READ else None

    def settle(self, timeout_s: float) -> bool:
        """Wait until every request has been answered."""
        return self._settle(self._waiting, timeout_s)

    def _send(self, kind: int, payload: bytes, *, keep: bool = False) -> int:
        self._number += 1
        if keep:
            self._answers[self._number] = (ERROR, b"")
        self._waiting.add(self._number)
        data = request(kind, self._number, payload)
        while data:
            data = data[posix.write(self.fd, data) :]
        return self._number

    def _settle(self, numbers: set[int], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while numbers & self._waiting:
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._receive(int(left * 1000) + 1)
        return True

    def _receive(self, timeout_ms: int) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while poll.poll(timeout_ms):
            data = posix.read(self.fd, _HEADER_BYTES + _MAX_PAYLOAD_BYTES)
            if not data:
                break
            self._buffer += data
            for kind, number, payload in messages(self._buffer):
                if kind == WATCH_EVENT:
                    self._events += 1
                    continue
                self._waiting.discard(number)
                if number in self._answers:
                    self._answers[number] = (kind, payload)
                elif kind == ERROR:
                    self.error = payload.decode("ascii", "replace").strip("\0")
            timeout_ms = 0


def connect() -> Xenbus | None:
    """The connection, or None where there is no Xen."""
    for path in DEVICES:
        try:
            return Xenbus(posix.open(path, posix.O_RDWR | posix.O_CLOEXEC))
        except OSError:
            continue
    return None
