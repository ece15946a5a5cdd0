"""The server: one 9P message in, its reply out. Everything is done at once, so nothing is left for Tflush to end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from runtime.share import abi, attributes, wire
from runtime.share.attributes import Change, qid_of
from runtime.share.fids import Fid, Fids, Limits
from runtime.share.files import Owner, Tree, failure
from runtime.share.listing import Listing
from runtime.share.wire import BadMessage, Reader

_IOUNIT = abi.U32.pack(0)  # as much as a message holds: Linux then takes msize less its header


class Server:
    """One directory for one client, which starts a session with Tversion and ends one with another Tversion.

    root_fd:  of the directory; it stays the caller's.
    faults:   requests that ended in an exception nobody foresaw, answered EIO. Each is a mistake in here.
    """

    def __init__(self, root_fd: int, *, readonly: bool, limits: Limits = Limits()) -> None:  # noqa: B008  a NamedTuple
        self._tree = Tree(root_fd, readonly=readonly)
        self._limits = limits
        self._fids = Fids(limits)
        self._message_bytes = 0  # agreed upon; 0 before the session
        self.faults = 0

    def handle(self, message: bytes | memoryview) -> bytes:
        """The reply to one whole message. Never raises for what is in it.

        Errors are Rlerror: EPROTO for a message that is none, or comes before Tversion; EMSGSIZE for one larger than
        was agreed upon; EOPNOTSUPP for a type that is not served.
        """
        view = memoryview(message)
        if len(view) < abi.HEADER.size:
            return wire.error(abi.NOTAG, errno.EPROTO)
        size, kind, tag = abi.HEADER.unpack_from(view)
        try:
            if size != len(view):
                return wire.error(tag, errno.EPROTO)
            if size > (self._message_bytes or self._limits.message_bytes):
                return wire.error(tag, errno.EMSGSIZE)
            operation = _OPERATIONS.get(kind)
            if operation is None:
                return wire.error(tag, errno.EOPNOTSUPP)
            if not self._message_bytes and kind != abi.TVERSION:
                return wire.error(tag, errno.EPROTO)
            reply = wire.message(kind + 1, tag, operation(self, Reader(view[abi.HEADER.size :])))
            if self._message_bytes and len(reply) > self._message_bytes:  # the target of a symlink
                return wire.error(tag, errno.EMSGSIZE)
            return reply
        except BadMessage:
            return wire.error(tag, errno.EPROTO)
        except OSError as problem:
            return wire.error(tag, problem.errno or errno.EIO)
        except Exception:
            self.faults += 1
            return wire.error(tag, errno.EIO)

    def close(self) -> None:
        """End the session and let go of every descriptor; twice is fine."""
        self._fids.clear()
        self._message_bytes = 0
        self._tree.close()

    # The session

    def _version(self, reader: Reader) -> bytes:
        message_bytes = reader.number()
        version = reader.string()
        reader.end()
        self._fids.clear()
        self._message_bytes = 0
        if message_bytes < abi.MIN_MESSAGE_BYTES:
            raise failure(errno.EMSGSIZE)
        agreed = min(message_bytes, self._limits.message_bytes)
        if version != abi.VERSION:
            return abi.U32.pack(agreed) + wire.string(abi.UNKNOWN_VERSION)
        self._message_bytes = agreed
        return abi.U32.pack(agreed) + wire.string(abi.VERSION)

    def _attach(self, reader: Reader) -> bytes:
        number, afid = reader.take(abi.FIDS)
        reader.string(abi.TARGET_MAX)  # uname: users are numbers here
        aname = reader.string(abi.TARGET_MAX)
        uid = reader.number()
        reader.end()
        if afid != abi.NOFID:
            raise failure(errno.EINVAL)
        if aname not in (b"", b"/"):  # there is one directory, and no name leads to another
            raise failure(errno.ENOENT)
        self._fids.check_free(number)
        fid = Fid(self._tree.root(), abi.NOBODY if uid == abi.NONUNAME else uid)
        self._fids.add(number, fid)
        return qid_of(os.stat(fid.path_fd))

    def _flush(self, reader: Reader) -> bytes:
        reader.last(abi.U16)
        return b""

    def _refused(self, reader: Reader) -> bytes:
        """Of a kind that is known and not served: authentication, extended attributes."""
        raise failure(errno.EOPNOTSUPP)

    # Fids

    def _walk(self, reader: Reader) -> bytes:
        number, new_number, count = reader.take(abi.WALK)
        if count > abi.MAX_WALK:
            raise failure(errno.EINVAL)
        names = [reader.string() for _ in range(count)]
        reader.end()
        start = self._fids.get(number)
        if new_number != number:
            self._fids.check_free(new_number)
        elif start.fd >= 0:
            raise failure(errno.EINVAL)
        qids = b""
        walked = os.dup(start.path_fd)
        try:
            for done, name in enumerate(names):
                try:
                    step = self._tree.walk(walked, name)
                except OSError:
                    if not done:
                        raise
                    os.close(walked)
                    return abi.U16.pack(done) + qids
                os.close(walked)
                walked = step
                qids += qid_of(os.stat(walked))
        except BaseException:
            os.close(walked)
            raise
        if new_number == number:
            self._fids.drop(number)
        self._fids.add(new_number, Fid(walked, start.uid))
        return abi.U16.pack(count) + qids

    def _clunk(self, reader: Reader) -> bytes:
        (number,) = reader.last(abi.U32)
        self._fids.drop(number)
        return b""

    def _remove(self, reader: Reader) -> bytes:
        (number,) = reader.last(abi.U32)
        fid = self._fids.get(number)
        try:
            self._tree.remove(fid.path_fd)
        finally:
            self._fids.drop(number)
        return b""

    # Open files

    def _lopen(self, reader: Reader) -> bytes:
        number, flags = reader.last(abi.FIDS)
        fid = self._fids.check_openable(number)
        self._fids.open(fid, self._tree.open(fid.path_fd, flags), flags)
        return qid_of(os.stat(fid.fd)) + _IOUNIT

    def _lcreate(self, reader: Reader) -> bytes:
        number, name = reader.number(), reader.string()
        flags, mode, gid = reader.last(abi.CREATE_MODE)
        fid = self._fids.check_openable(number)
        path_fd, fd = self._tree.create(fid.path_fd, name, flags, mode, Owner(fid.uid, gid))
        os.close(fid.path_fd)
        fid.path_fd = path_fd  # the fid is the new file's from now on
        self._fids.open(fid, fd, flags)
        return qid_of(os.stat(fd)) + _IOUNIT

    def _read(self, reader: Reader) -> bytes:
        number, offset, count = reader.last(abi.TRANSFER)
        fid = self._fids.opened(number)
        data = os.pread(fid.fd, self._room(count), _signed(offset))
        return abi.U32.pack(len(data)) + data

    def _write(self, reader: Reader) -> bytes:
        number, offset, count = reader.take(abi.TRANSFER)
        data = reader.data(count)
        reader.end()
        self._tree.changing()
        return abi.U32.pack(os.pwrite(self._fids.opened(number).fd, data, _signed(offset)))

    def _readdir(self, reader: Reader) -> bytes:
        number, offset, count = reader.last(abi.TRANSFER)
        fid = self._fids.opened(number)
        if fid.listing is None:
            if not stat.S_ISDIR(os.stat(fid.fd).st_mode):
                raise failure(errno.ENOTDIR)
            fid.listing = Listing(fid.fd, is_root=self._tree.is_root(fid.fd))
        entries = fid.listing.read(_signed(offset), self._room(count))
        return abi.U32.pack(len(entries)) + entries

    def _fsync(self, reader: Reader) -> bytes:
        number, only_data = reader.last(abi.FIDS)
        fid = self._fids.opened(number)
        (os.fdatasync if only_data else os.fsync)(fid.fd)
        return b""

    def _lock(self, reader: Reader) -> bytes:
        number, kind, _, start, length, _ = reader.take(abi.LOCK)
        reader.string()  # client_id: a fid is of one client
        reader.end()
        locks = self._fids.opened(number).locks
        assert locks is not None
        return abi.U8.pack(locks.set(kind, start, length))

    def _getlock(self, reader: Reader) -> bytes:
        number, kind, start, length, process = reader.take(abi.GETLOCK)
        client = reader.string()
        reader.end()
        locks = self._fids.opened(number).locks
        assert locks is not None
        found = locks.get(kind, start, length)
        return abi.LOCKED.pack(*found, process if found[0] == abi.LOCK_UNLCK else 0) + wire.string(client)

    # Files

    def _getattr(self, reader: Reader) -> bytes:
        number, _ = reader.last(abi.GETATTR)
        return attributes.attributes_of(os.stat(self._fids.get(number).path_fd))

    def _setattr(self, reader: Reader) -> bytes:
        number, *fields = reader.last(abi.SETATTR)
        fid = self._fids.get(number)
        attributes.change(self._tree, fid.path_fd, fid.writable_fd, Change(*fields))
        return b""

    def _statfs(self, reader: Reader) -> bytes:
        (number,) = reader.last(abi.U32)
        return attributes.statfs_of(self._fids.get(number).path_fd)

    def _readlink(self, reader: Reader) -> bytes:
        (number,) = reader.last(abi.U32)
        path_fd = self._fids.get(number).path_fd
        if not stat.S_ISLNK(os.stat(path_fd).st_mode):
            raise failure(errno.EINVAL)
        return wire.string(os.readlink(b"", dir_fd=path_fd))

    # Names

    def _mkdir(self, reader: Reader) -> bytes:
        number, name = reader.number(), reader.string()
        mode, gid = reader.last(abi.FIDS)
        directory = self._fids.get(number)
        return _made(self._tree.mkdir(directory.path_fd, name, mode, Owner(directory.uid, gid)))

    def _mknod(self, reader: Reader) -> bytes:
        number, name = reader.number(), reader.string()
        mode, _, _, gid = reader.last(abi.NODE)
        directory = self._fids.get(number)
        return _made(self._tree.mknod(directory.path_fd, name, mode, Owner(directory.uid, gid)))

    def _symlink(self, reader: Reader) -> bytes:
        number, name, target = reader.number(), reader.string(), reader.string(abi.TARGET_MAX)
        (gid,) = reader.last(abi.U32)
        directory = self._fids.get(number)
        return _made(self._tree.symlink(directory.path_fd, name, target, Owner(directory.uid, gid)))

    def _link(self, reader: Reader) -> bytes:
        number, file_number = reader.take(abi.FIDS)
        name = reader.string()
        reader.end()
        self._tree.link(self._fids.get(number).path_fd, self._fids.get(file_number).path_fd, name)
        return b""

    def _rename(self, reader: Reader) -> bytes:
        number, new_number = reader.take(abi.FIDS)
        name = reader.string()
        reader.end()
        self._tree.move(self._fids.get(number).path_fd, self._fids.get(new_number).path_fd, name)
        return b""

    def _renameat(self, reader: Reader) -> bytes:
        number, name = reader.number(), reader.string()
        new_number, new_name = reader.number(), reader.string()
        reader.end()
        old, new = self._fids.get(number), self._fids.get(new_number)
        self._tree.rename(old.path_fd, name, new.path_fd, new_name)
        return b""

    def _unlinkat(self, reader: Reader) -> bytes:
        number, name = reader.number(), reader.string()
        (flags,) = reader.last(abi.U32)
        directory = self._fids.get(number).path_fd
        self._tree.unlink(directory, name, directory=bool(flags & abi.AT_REMOVEDIR))
        return b""

    def _room(self, count: int) -> int:
        """How much of what is asked for fits the reply."""
        return min(count, self._message_bytes - abi.DATA_OFFSET)


def _signed(offset: int) -> int:
    """An offset the host's calls take. Raises OSError."""
    if offset > 2**63 - 1:
        raise failure(errno.EINVAL)
    return offset


def _made(path_fd: int) -> bytes:
    """The qid of a file just made, whose descriptor is closed."""
    try:
        return qid_of(os.stat(path_fd))
    finally:
        os.close(path_fd)


_OPERATIONS: dict[int, Callable[[Server, Reader], bytes]] = {
    abi.TVERSION: Server._version,
    abi.TAUTH: Server._refused,
    abi.TATTACH: Server._attach,
    abi.TFLUSH: Server._flush,
    abi.TWALK: Server._walk,
    abi.TCLUNK: Server._clunk,
    abi.TREMOVE: Server._remove,
    abi.TLOPEN: Server._lopen,
    abi.TLCREATE: Server._lcreate,
    abi.TREAD: Server._read,
    abi.TWRITE: Server._write,
    abi.TREADDIR: Server._readdir,
    abi.TFSYNC: Server._fsync,
    abi.TLOCK: Server._lock,
    abi.TGETLOCK: Server._getlock,
    abi.TGETATTR: Server._getattr,
    abi.TSETATTR: Server._setattr,
    abi.TSTATFS: Server._statfs,
    abi.TREADLINK: Server._readlink,
    abi.TMKDIR: Server._mkdir,
    abi.TMKNOD: Server._mknod,
    abi.TSYMLINK: Server._symlink,
    abi.TLINK: Server._link,
    abi.TRENAME: Server._rename,
    abi.TRENAMEAT: Server._renameat,
    abi.TUNLINKAT: Server._unlinkat,
    abi.TXATTRWALK: Server._refused,
    abi.TXATTRCREATE: Server._refused,
}
