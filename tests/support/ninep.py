"""A small client of 9P2000.L: encodes requests by a table of its own, decodes replies. Knows nothing of the server."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

NOFID = 0xFFFFFFFF
NOTAG = 0xFFFF
RLERROR = 7

# b, w, d, q: 1, 2, 4, 8 bytes; s: a string; D: data with count[4]; N: names with count[2].
# Source: diod, protocol.md; 9P2000 in Plan 9, section 5.
REQUESTS = {
    "version": (100, "ds"),
    "auth": (102, "dssd"),
    "attach": (104, "ddssd"),
    "flush": (108, "w"),
    "walk": (110, "ddN"),
    "read": (116, "dqd"),
    "write": (118, "dqD"),
    "clunk": (120, "d"),
    "remove": (122, "d"),
    "statfs": (8, "d"),
    "lopen": (12, "dd"),
    "lcreate": (14, "dsddd"),
    "symlink": (16, "dssd"),
    "mknod": (18, "dsdddd"),
    "rename": (20, "dds"),
    "readlink": (22, "d"),
    "getattr": (24, "dq"),
    "setattr": (26, "ddddd" + "q" * 5),
    "xattrwalk": (30, "dds"),
    "xattrcreate": (32, "dsqd"),
    "readdir": (40, "dqd"),
    "fsync": (50, "dd"),
    "lock": (52, "dbdqqds"),
    "getlock": (54, "dbqqds"),
    "link": (70, "dds"),
    "mkdir": (72, "dsdd"),
    "renameat": (74, "dsds"),
    "unlinkat": (76, "dsd"),
}
_SIZES = {"b": "<B", "w": "<H", "d": "<I", "q": "<Q"}


class Refused(Exception):
    """Rlerror."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno = number


class Qid(NamedTuple):
    kind: int
    version: int
    path: int


class Attributes(NamedTuple):
    valid: int
    qid: Qid
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    blksize: int
    blocks: int
    atime: tuple[int, int]
    mtime: tuple[int, int]
    ctime: tuple[int, int]
    rest: tuple[int, ...]


class Entry(NamedTuple):
    qid: Qid
    offset: int
    kind: int
    name: bytes


def encode(name: str, *values: Any, tag: int = 1) -> bytes:
    """A whole request."""
    kind, fields = REQUESTS[name]
    assert len(fields) == len(values), name
    body = b""
    for field, value in zip(fields, values, strict=True):
        if field == "s":
            body += struct.pack("<H", len(value)) + value
        elif field == "D":
            body += struct.pack("<I", len(value)) + value
        elif field == "N":
            body += struct.pack("<H", len(value)) + b"".join(struct.pack("<H", len(each)) + each for each in value)
        else:
            body += struct.pack(_SIZES[field], value)
    return whole(kind, tag, body)


def whole(kind: int, tag: int, body: bytes) -> bytes:
    """A message of any type."""
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


def error_of(reply: bytes) -> int | None:
    """The errno of an Rlerror; None for another reply."""
    size, kind, _ = struct.unpack_from("<IBH", reply)
    assert size == len(reply)
    if kind != RLERROR:
        return None
    assert size == 11
    number: int = struct.unpack_from("<I", reply, 7)[0]
    return number


def qid(data: bytes, at: int = 0) -> Qid:
    return Qid(*struct.unpack_from("<BIQ", data, at))


class Client:
    """Speaks to a server through `handle`. Methods return what replies hold, and raise Refused."""

    def __init__(self, handle: Callable[[bytes], bytes]) -> None:
        self.handle = handle
        self.tag = 1
        self._numbers = iter(range(1000, 10**9))

    def ask(self, name: str, *values: Any) -> bytes:
        """The body of the reply to a request."""
        self.tag = self.tag % 60000 + 1
        reply = self.handle(encode(name, *values, tag=self.tag))
        _, kind, tag = struct.unpack_from("<IBH", reply)
        assert tag == self.tag
        if (number := error_of(reply)) is not None:
            raise Refused(number)
        assert kind == REQUESTS[name][0] + 1
        return reply[7:]

    def start(self, *, uid: int, msize: int = 65536, fid: int = 0) -> Qid:
        """Agree on a version and attach."""
        assert self.version(msize)[1] == b"9P2000.L"
        return self.attach(fid, uid=uid)

    def version(self, msize: int, name: bytes = b"9P2000.L") -> tuple[int, bytes]:
        body = self.ask("version", msize, name)
        size, length = struct.unpack_from("<IH", body)
        assert len(body) == 6 + length
        return size, body[6:]

    def attach(self, fid: int, *, uid: int, name: bytes = b"") -> Qid:
        return qid(self.ask("attach", fid, NOFID, b"user", name, uid))

    def walk(self, fid: int, *names: bytes, to: int | None = None) -> tuple[int, list[Qid]]:
        """The new fid, and the qids of what was walked: fewer than names where it went no further."""
        number = next(self._numbers) if to is None else to
        body = self.ask("walk", fid, number, names)
        (count,) = struct.unpack_from("<H", body)
        assert len(body) == 2 + 13 * count
        return number, [qid(body, 2 + 13 * index) for index in range(count)]

    def at(self, *names: bytes, fid: int = 0) -> int:
        """A new fid of a file that is there."""
        number, qids = self.walk(fid, *names)
        assert len(qids) == len(names)
        return number

    def open(self, *names: bytes, flags: int = 0, fid: int = 0) -> int:
        """A new open fid of a file that is there."""
        number = self.at(*names, fid=fid)
        self.ask("lopen", number, flags)
        return number

    def create(self, name: bytes, *, flags: int = 2, mode: int = 0o644, gid: int = 0xFFFFFFFF, fid: int = 0) -> int:
        """A new open fid of a new file in the directory."""
        number = self.at(fid=fid)
        assert len(self.ask("lcreate", number, name, flags, mode, gid)) == 17
        return number

    def read(self, fid: int, offset: int = 0, count: int = 65536) -> bytes:
        body = self.ask("read", fid, offset, count)
        assert struct.unpack_from("<I", body)[0] == len(body) - 4
        return body[4:]

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        written: int = struct.unpack("<I", self.ask("write", fid, offset, data))[0]
        return written

    def getattr(self, fid: int) -> Attributes:
        fields = struct.unpack("<Q13sIIIQQQQQ8QQQ", self.ask("getattr", fid, 0x3FFF))
        times = [(fields[at], fields[at + 1]) for at in (10, 12, 14)]
        return Attributes(fields[0], qid(fields[1]), *fields[2:10], *times, fields[16:])

    def setattr(self, fid: int, valid: int, **fields: int) -> None:
        names = ("mode", "uid", "gid", "size", "atime_s", "atime_ns", "mtime_s", "mtime_ns")
        assert set(fields) <= set(names)
        assert self.ask("setattr", fid, valid, *(fields.get(name, 0) for name in names)) == b""

    def readdir(self, fid: int, offset: int = 0, count: int = 65536) -> list[Entry]:
        """One piece of a directory."""
        body = self.ask("readdir", fid, offset, count)
        assert struct.unpack_from("<I", body)[0] == len(body) - 4 <= count
        entries, at = [], 4
        while at < len(body):
            next_offset, kind, length = struct.unpack_from("<QBH", body, at + 13)
            entries.append(Entry(qid(body, at), next_offset, kind, body[at + 24 : at + 24 + length]))
            at += 24 + length
        assert at == len(body)
        return entries

    def names(self, fid: int, count: int = 65536) -> list[bytes]:
        """All names of an open directory."""
        found: list[Entry] = []
        while piece := self.readdir(fid, found[-1].offset if found else 0, count):
            found += piece
        return [entry.name for entry in found]

    def lock(self, fid: int, kind: int, start: int = 0, length: int = 0) -> int:
        return self.ask("lock", fid, kind, 0, start, length, 77, b"zone")[0]

    def getlock(self, fid: int, kind: int, start: int = 0, length: int = 0) -> tuple[int, int, int, int, bytes]:
        body = self.ask("getlock", fid, kind, start, length, 77, b"zone")
        kind, start, length, process, size = struct.unpack_from("<BQQIH", body)
        assert len(body) == 23 + size
        return kind, start, length, process, body[23:]
