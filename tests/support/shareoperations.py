"""All that a client may ask of a share's server, and a zone's end of its rings; for the share's process itself.

It comes without anything but the standard library and the client: it is imported there before the root is empty.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from runtime.boot import mapping
from runtime.boot.abi import ioctl
from runtime.net import netns
from runtime.net.engine import confine
from runtime.share import main, transport
from runtime.share.model import MOST_BYTES
from runtime.share.rings import IN_CONS, IN_PROD, OUT_PROD, Ring
from runtime.share.transport import Line
from support.ninep import NOFID, REQUESTS, Client, Refused, whole

READ, WRITE, BOTH = 0, 1, 2
O_EXCL, O_TRUNC, O_APPEND, O_DSYNC, O_SYNC = 0o200, 0o1000, 0o2000, 0o10000, 0o4000000
O_DIRECTORY = 0o200000
MODE, UID, GID, SIZE, ATIME, MTIME, CTIME, ATIME_SET, MTIME_SET = (1 << bit for bit in range(9))
FIFO, SOCKET, REGULAR, DEVICE, BLOCK = 0o010644, 0o140644, 0o100644, 0o020644, 0o060644
AT_REMOVEDIR = 0x200
SHARED, EXCLUSIVE, UNLOCK = 0, 1, 2
ANY = NOFID  # a gid that is left to the host
BIG = 1500  # names: more than the C library reads at once
ME, MY_GROUP = os.geteuid(), os.getegid()  # none may ask once it is confined
_HALF_BYTES = 256 << 10


def prepare(directory: Path) -> None:
    """What the operations expect to find."""
    (directory / "dir" / "below").mkdir(parents=True)
    (directory / "file").write_bytes(b"content")
    (directory / "armed").touch()
    (directory / "armed").chmod(0o6755)
    (directory / "away").symlink_to("/etc")
    (directory / "big").mkdir()
    for number in range(BIG):
        (directory / "big" / f"{number:040}").touch()


def _refused(number: int, ask: Callable[..., Any], *values: Any, **named: Any) -> None:
    try:
        ask(*values, **named)
    except Refused as problem:
        assert problem.errno == number, (problem.errno, number)
    else:
        raise AssertionError(f"expected {errno.errorcode[number]}")


def session(client: Client) -> None:
    client.ask("flush", 1)
    _refused(errno.EOPNOTSUPP, client.ask, "auth", 6, b"", b"", 0)
    _refused(errno.EOPNOTSUPP, client.ask, "xattrwalk", 0, 6, b"user.x")
    _refused(errno.EOPNOTSUPP, client.ask, "xattrcreate", 0, b"user.x", 1, 0)
    assert client.version(8192, b"9P2000.u")[1] == b"unknown"
    _refused(errno.EPROTO, client.getattr, 0)
    client.start(uid=ME)


def nonsense(client: Client) -> None:
    client.handle(whole(255, 1, b""))
    for name, (kind, _) in REQUESTS.items():
        if name != "version":
            client.handle(whole(kind, 1, b"\xff" * 5))
            client.handle(whole(kind, 1, b"\xff" * 200))


def steps(client: Client) -> None:
    below = client.at(b"dir", b"below")
    client.ask("clunk", client.at(b"..", b"..", b"..", b"file", fid=below))
    assert len(client.walk(0, b"dir", b"missing")[1]) == 1
    for name, number in ((b"missing", errno.ENOENT), (b"a/b", errno.EINVAL), (b"x" * 300, errno.EPROTO)):
        _refused(number, client.walk, 0, name)
    _refused(errno.ENOTDIR, client.walk, client.at(b"away"), b"passwd")
    _refused(errno.EBADF, client.walk, 77, b"dir")


def files(client: Client) -> None:
    for flags in (BOTH, WRITE, BOTH | O_APPEND | O_SYNC, WRITE | O_DSYNC):
        fid = client.create(b"new", flags=flags | O_EXCL)
        assert client.write(fid, b"x" * 60000) == 60000
        for only_data in (0, 1):
            client.ask("fsync", fid, only_data)
        again = client.open(b"new")
        assert client.read(again, 59990, 100) == b"x" * 10
        _refused(errno.EBADF, client.write, again, b"x")
        client.ask("clunk", again)
        client.open(b"new", flags=WRITE | O_TRUNC)
        client.ask("unlinkat", 0, b"new", 0)
        client.ask("clunk", fid)
    client.create(b"file", flags=BOTH)
    _refused(errno.EEXIST, client.create, b"file", flags=BOTH | O_EXCL)
    _refused(errno.EISDIR, client.open, b"dir", flags=WRITE)
    _refused(errno.ENOTDIR, client.open, b"file", flags=O_DIRECTORY)
    _refused(errno.ELOOP, client.open, b"away")
    client.open(b"armed", flags=BOTH)
    assert client.getattr(client.at(b"armed")).mode & 0o7777 == 0o755


def directories(client: Client) -> None:
    client.ask("mkdir", 0, b"made", 0o2750, ANY)
    client.ask("mkdir", 0, b"owned", 0o750, MY_GROUP)
    _refused(errno.EEXIST, client.ask, "mkdir", 0, b"made", 0o755, ANY)
    big = client.open(b"big")
    assert len(client.names(big)) == BIG + 2
    assert client.readdir(big, 700, 4096)[0].offset == 701  # not where it stopped: read again
    client.ask("clunk", big)
    assert client.names(client.open(b"dir", b"below")) == [b".", b".."]
    _refused(errno.ENOTDIR, client.readdir, client.open(b"file"))
    _refused(errno.ENOTEMPTY, client.ask, "unlinkat", 0, b"dir", AT_REMOVEDIR)
    for name in (b"made", b"owned"):
        client.ask("unlinkat", 0, name, AT_REMOVEDIR)


def nodes(client: Client) -> None:
    for kind in (FIFO, SOCKET, REGULAR, 0o644):
        client.ask("mknod", 0, b"node", kind, 0, 0, ANY)
        if kind in (FIFO, SOCKET):
            _refused(errno.ENXIO, client.open, b"node", flags=BOTH)
        client.setattr(client.at(b"node"), MODE, mode=0o600)
        client.ask("unlinkat", 0, b"node", 0)
    for kind in (DEVICE, BLOCK):
        _refused(errno.EPERM, client.ask, "mknod", 0, b"node", kind, 1, 3, ANY)


def links(client: Client) -> None:
    client.ask("symlink", 0, b"symlink", b"/etc/passwd", ANY)
    client.ask("link", 0, client.at(b"file"), b"other")
    client.ask("link", 0, client.at(b"symlink"), b"another")
    assert client.ask("readlink", client.at(b"another"))[2:] == b"/etc/passwd"
    _refused(errno.EINVAL, client.ask, "readlink", client.at(b"file"))
    _refused(errno.EEXIST, client.ask, "link", 0, client.at(b"file"), b"other")
    _refused(errno.EPERM, client.ask, "link", 0, client.at(b"dir"), b"yet")
    for name in (b"symlink", b"another", b"other"):
        client.ask("unlinkat", 0, name, 0)


def renames(client: Client) -> None:
    for name in (b"one", b"two"):
        client.ask("clunk", client.create(name))
    client.ask("renameat", 0, b"one", 0, b"two")
    client.ask("renameat", 0, b"two", client.at(b"dir"), b"three")
    client.ask("rename", client.at(b"dir", b"three"), 0, b"four")
    _refused(errno.ENOENT, client.ask, "renameat", 0, b"one", 0, b"two")
    _refused(errno.EBUSY, client.ask, "rename", client.at(), 0, b"root")
    gone = client.at(b"four")
    client.ask("remove", client.at(b"four"))
    _refused(errno.ESTALE, client.ask, "remove", gone)
    client.ask("mkdir", 0, b"made", 0o755, ANY)
    client.ask("remove", client.at(b"made"))


def attributes(client: Client) -> None:
    client.ask("symlink", 0, b"symlink", b"x", ANY)
    client.ask("clunk", client.create(b"new"))
    both = ATIME | MTIME
    for name in (b"new", b"symlink", b"dir"):
        fid = client.at(name)
        client.setattr(fid, UID | GID, uid=ME, gid=MY_GROUP)
        client.setattr(fid, both)
        client.setattr(fid, both | ATIME_SET | MTIME_SET, atime_s=5, atime_ns=6, mtime_s=2**64 - 7, mtime_ns=8)
        client.setattr(fid, ATIME)
        client.setattr(fid, MTIME | MTIME_SET, mtime_s=9)
        client.setattr(fid, CTIME)
        assert client.getattr(fid).mtime == (9, 0)
        client.ask("statfs", fid)
    for fid in (client.at(b"new"), client.open(b"new"), client.open(b"new", flags=BOTH)):
        client.setattr(fid, MODE | SIZE, mode=0o6600, size=100000)
        client.setattr(fid, SIZE, size=3)
        assert (client.getattr(fid).size, client.getattr(fid).mode) == (3, REGULAR & ~0o7777 | 0o600)
    _refused(errno.EOPNOTSUPP, client.setattr, client.at(b"symlink"), MODE, mode=0o644)
    _refused(errno.EISDIR, client.setattr, client.at(b"dir"), SIZE, size=1)
    _refused(errno.EINVAL, client.setattr, client.at(b"new"), UID, uid=2**32 - 1)
    for name in (b"new", b"symlink"):
        client.ask("unlinkat", 0, name, 0)


def owners(client: Client) -> None:
    """What is given to somebody else: an ordinary user's server may not, and removes it again."""
    client.attach(5, uid=ME + 1)
    asked: tuple[tuple[Any, ...], ...] = (
        ("mkdir", 5, b"given", 0o755, ANY),
        ("symlink", 5, b"given", b"x", ANY),
        ("mknod", 5, b"given", FIFO, 0, 0, ANY),
        ("lcreate", client.at(fid=5), b"given", BOTH, 0o644, ANY),
    )
    for operation, *values in asked:
        try:
            client.ask(operation, *values)
            client.ask("unlinkat", 0, b"given", AT_REMOVEDIR if operation == "mkdir" else 0)
        except Refused as problem:
            assert problem.errno == errno.EPERM and ME != 0


def locks(client: Client) -> None:
    mine, theirs = client.open(b"file", flags=BOTH), client.open(b"file", flags=BOTH)
    assert client.lock(mine, EXCLUSIVE, 10, 10) == 0
    assert client.lock(theirs, SHARED) == 1
    assert client.getlock(theirs, EXCLUSIVE)[:3] == (EXCLUSIVE, 10, 10)
    assert client.lock(mine, UNLOCK) == 0
    assert client.lock(theirs, SHARED) == 0
    assert client.getlock(theirs, EXCLUSIVE)[0] == UNLOCK
    _refused(errno.EBADF, client.lock, client.open(b"file"), EXCLUSIVE)
    client.ask("clunk", theirs)


def exhaustion(client: Client) -> None:
    """More files than it may have open, and more names than it holds."""
    found: set[int] = set()
    while not found:
        try:
            client.open(b"file")
        except Refused as problem:
            found.add(problem.errno)
    assert found <= {errno.ENFILE, errno.EMFILE}
    client.start(uid=ME)


OPERATIONS = (
    *(session, nonsense, steps, files, directories, nodes, links, renames, attributes, owners, locks),
    exhaustion,
)


class _Bell:
    """What stands for an event channel. What is asked of the device is asked of this file, which has no idea."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._descriptor

    def ring(self) -> None:
        os.write(self._descriptor, struct.pack("<Q", 1))

    def acknowledge(self) -> None:
        os.read(self._descriptor, 64)

    def notify(self) -> None:
        _ask_device(self._descriptor, ioctl.IOCTL_EVTCHN_NOTIFY, struct.pack("<I", 1))

    def close(self) -> None:
        os.close(self._descriptor)


def _ask_device(descriptor: int, number: int, request: bytes) -> None:
    try:
        fcntl.ioctl(descriptor, number, request)
    except OSError as problem:
        assert problem.errno in (errno.ENOTTY, errno.EINVAL)


@contextmanager
def _mapped(descriptor: int, offset: int, length: int) -> Iterator[memoryview]:
    """As GrantDevice.map, without its device."""
    try:
        with mapping.mapped("pages", descriptor, length, offset) as address, mapping.viewed(address, length) as view:
            yield view
    finally:
        _ask_device(descriptor, ioctl.IOCTL_GNTDEV_UNMAP_GRANT_REF, ioctl.GNTDEV_UNMAP_GRANT_REF.pack(0, 1))


class Guest:
    """A zone's end of one ring, which waits for each reply."""

    def __init__(self) -> None:
        self._pages = os.memfd_create("pages", os.MFD_CLOEXEC)
        os.ftruncate(self._pages, 4096 + 2 * _HALF_BYTES)
        self._bell = _Bell()
        self._page: memoryview = memoryview(b"")
        self._data: memoryview = memoryview(b"")

    def line(self, _domid: int, _offered: object, resources: ExitStack) -> Line:
        """In place of main._line."""
        resources.callback(os.close, self._pages)
        page = resources.enter_context(_mapped(self._pages, 0, 4096))
        data = resources.enter_context(_mapped(self._pages, 4096, 2 * _HALF_BYTES))
        ring = Ring(page, data, most_bytes=MOST_BYTES)
        resources.callback(ring.release)
        self._page, self._data = page.cast("I"), data[:]
        resources.callback(self._page.release)
        resources.callback(self._data.release)
        resources.callback(self._bell.close)
        return Line(ring, self._bell)

    def ask(self, message: bytes, turn: Callable[[int | None], None]) -> bytes:
        """The reply to a request. turn: Transport.turn."""
        self._copy_in(message)
        self._bell.ring()
        while self._page[IN_PROD // 4] == self._page[IN_CONS // 4]:
            turn(None)
        return self._copy_out()

    def break_ring(self) -> None:
        """Claim more requests than it can hold."""
        self._page[OUT_PROD // 4] = self._page[OUT_PROD // 4] + 2 * _HALF_BYTES & 0xFFFFFFFF
        self._bell.ring()

    def _copy_in(self, message: bytes) -> None:
        produced = self._page[OUT_PROD // 4]
        start = produced % _HALF_BYTES
        first = min(len(message), _HALF_BYTES - start)
        self._data[_HALF_BYTES + start : _HALF_BYTES + start + first] = message[:first]
        self._data[_HALF_BYTES : _HALF_BYTES + len(message) - first] = message[first:]
        self._page[OUT_PROD // 4] = produced + len(message) & 0xFFFFFFFF

    def _copy_out(self) -> bytes:
        consumed = self._page[IN_CONS // 4]
        count = self._page[IN_PROD // 4] - consumed & 0xFFFFFFFF
        start = consumed % _HALF_BYTES
        first = min(count, _HALF_BYTES - start)
        self._page[IN_CONS // 4] = consumed + count & 0xFFFFFFFF
        return bytes(self._data[start : start + first]) + bytes(self._data[: count - first])


Body = Callable[[Client, Guest, Callable[[int | None], None]], None]


def serve(body: Body) -> None:
    """Have main.main() serve a guest of this process's, and run `body` in place of its loop, confined as it is.

    An ordinary user keeps the root and what privileges it has: only the list of system calls is as it would be.
    """
    guest = Guest()

    class Driven(transport.Transport):
        def run(self) -> None:
            client = Client(lambda message: guest.ask(message, self.turn))
            client.start(uid=ME)
            body(client, guest, self.turn)

    vars(main).update(_line=guest.line, Transport=Driven)
    if ME != 0:
        vars(main).update(_confine=_limit_calls)


def _limit_calls(program: bytes) -> None:
    confine.bound_descriptors(main._DESCRIPTORS)
    confine.bound_memory(main._MEMORY_BYTES)
    netns.call("prctl", confine.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    confine.limit_calls(program)


def all_operations(client: Client, _guest: Guest, _turn: Callable[[int | None], None]) -> None:
    """Each of OPERATIONS; what it is at is said before, as it may be its last words."""
    asked = set()
    handle = client.handle

    def noting(message: bytes) -> bytes:
        asked.add(message[4])
        return handle(message)

    client.handle = noting
    for operation in OPERATIONS:
        sys.stderr.write(f"{operation.__name__}\n")
        operation(client)
    assert {kind for kind, _ in REQUESTS.values()} <= asked
