"""A file or directory of a container as a tar archive, made while it is sent."""

import errno
import posix

from runtime.init import abi, kernel
from runtime.init.agent import tarformat
from runtime.init.agent.errors import Refused
from runtime.init.agent.tarformat import Entry
from runtime.init.failure import why

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Iterator

    StatResult = posix.stat_result

_DIRECTORY = abi.O_PATH | posix.O_DIRECTORY
_LISTED = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_PIECE_BYTES = 65536
_MOST_OPEN = 64  # directories above the one that is read, whose descriptors are kept
_MAX_LINKS = 100_000
_S_IFMT = 0o170000
_KINDS = {
    0o100000: tarformat.REGULAR,
    0o120000: tarformat.SYMLINK,
    0o020000: tarformat.CHARACTER,
    0o060000: tarformat.BLOCKDEV,
    0o040000: tarformat.DIRECTORY,
    0o010000: tarformat.FIFO,
}
NAMES = {
    tarformat.REGULAR: "file",
    tarformat.SYMLINK: "symlink",
    tarformat.CHARACTER: "character",
    tarformat.BLOCKDEV: "block",
    tarformat.DIRECTORY: "directory",
    tarformat.FIFO: "fifo",
}
# File systems whose files are no data: what is mounted of these below a copied directory comes as an empty directory.
_NO_DATA = (0x9FA0, 0x62656572, 0x1CD1, 0x63677270)  # proc, sysfs, devpts, cgroup2: include/uapi/linux/magic.h


class Archive:
    """take() gives the archive's bytes, b"" at its end; closes the root's descriptor then, and where it is refused.

    The last name of the path is the archive's first; that of "/" and of what ends in "/." is ".". A symlink is sent
    as one, unless the path ends in a slash.
    """

    def __init__(self, root_fd: int, path: str) -> None:
        self._root_fd = root_fd
        self._open_fds: list[int] = []
        self._links: dict[tuple[int, int], str] = {}
        self._rest = b""
        self.entries = 0
        try:
            self._parent_fd, self._name = locate(root_fd, path)
            self._open_fds.append(self._parent_fd)
            status = posix.stat(self._name, dir_fd=self._parent_fd, follow_symlinks=False)
        except OSError as error:
            self.close()
            raise Refused(errno.errorcode.get(error.errno or 0, "internal"), f"{path}: {why(error)}") from None
        except BaseException:
            self.close()
            raise
        self._pieces = self._all(status)

    def take(self, limit: int) -> bytes:
        """At most `limit` bytes. Raises OSError."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                self.close()
                return b""
            self._rest = piece
        data, self._rest = self._rest[:limit], self._rest[limit:]
        return data

    def close(self) -> None:
        """Let go of every descriptor."""
        for fd in [*self._open_fds, self._root_fd]:
            if fd >= 0:
                posix.close(fd)
        self._open_fds, self._root_fd = [], -1

    def _all(self, status: "StatResult") -> "Iterator[bytes]":
        yield from self._member(self._parent_fd, self._name, self._name, status)
        # Directories by descriptor and without following anything: what is renamed meanwhile leads nowhere else.
        todo: list[_Directory] = []
        if status.st_mode & _S_IFMT == 0o040000:
            todo.append(self._enter(self._parent_fd, self._name, self._name, status.st_dev))
        while todo:
            here = todo[-1]
            if not here.names:
                todo.pop()
                if todo and todo[-1].fd < 0:
                    self._return(todo[-1], here)
                self._close(here)
                continue
            name = here.names.pop()
            try:
                child = posix.stat(name, dir_fd=here.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since the directory was listed
            below = f"{here.path}/{name}"
            yield from self._member(here.fd, name, below, child)
            if child.st_mode & _S_IFMT == 0o040000:
                try:
                    todo.append(self._enter(here.fd, name, below, status.st_dev))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # gone since it was looked at, or something else is in its place
                # The one so far above is closed already where its child has another child.
                if len(todo) > _MOST_OPEN and todo[-1 - _MOST_OPEN].fd >= 0:
                    self._close(todo[-1 - _MOST_OPEN])
        yield tarformat.END

    def _enter(self, parent_fd: int, name: str, path: str, device: int) -> "_Directory":
        here = _Directory(posix.open(name, _LISTED, dir_fd=parent_fd), path)
        self._open_fds.append(here.fd)
        if here.identity[0] != device and kernel.filesystem_magic(f"/proc/self/fd/{here.fd}") in _NO_DATA:
            return here
        here.names = sorted(posix.listdir(here.fd), reverse=True)
        return here

    def _return(self, there: "_Directory", below: "_Directory") -> None:
        """Open a directory again, from one in it: the same one, as that may have been moved. Raises Refused."""
        again = _Directory(posix.open("..", _LISTED, dir_fd=below.fd), there.path)
        self._open_fds.append(again.fd)
        if again.identity != there.identity:
            raise Refused("files", f"{below.path!r:.200}: moved elsewhere while it was read")
        there.fd = again.fd

    def _close(self, directory: "_Directory") -> None:
        self._open_fds.remove(directory.fd)
        posix.close(directory.fd)
        directory.fd = -1

    def _member(self, parent_fd: int, name: str, path: str, status: "StatResult") -> "Iterator[bytes]":
        kind = _KINDS.get(status.st_mode & _S_IFMT)
        if kind is None:
            return  # a socket: it means nothing without its process
        entry = entry_of(path, kind, status)
        identity = (status.st_dev, status.st_ino)
        if kind == tarformat.SYMLINK:
            try:
                entry.link = posix.readlink(name, dir_fd=parent_fd)
            except FileNotFoundError:
                return
        elif status.st_nlink > 1 and kind != tarformat.DIRECTORY:
            if identity in self._links:
                entry.kind, entry.link = tarformat.HARDLINK, self._links[identity]
            elif len(self._links) < _MAX_LINKS:
                self._links[identity] = path
        self.entries += 1
        if entry.kind != tarformat.REGULAR:
            if entry.kind == tarformat.DIRECTORY:
                entry.xattrs = self._directory_xattrs(parent_fd, name, path)
            yield tarformat.encode(entry)
            return
        try:
            flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
            fd = posix.open(name, flags, dir_fd=parent_fd)
        except FileNotFoundError:
            return
        self._open_fds.append(fd)
        opened = posix.fstat(fd)
        entry.size = opened.st_size
        entry.xattrs = xattrs_of(fd, path)
        if opened.st_blocks * 512 < opened.st_size:
            yield from _holes(entry, fd, opened)
        else:
            yield tarformat.encode(entry)
            yield from _read(fd, entry.size)
        yield bytes(tarformat.padding(entry.size))
        self._open_fds.remove(fd)
        posix.close(fd)

    def _directory_xattrs(self, parent_fd: int, name: str, path: str) -> dict[str, str]:
        try:
            fd = posix.open(name, _LISTED, dir_fd=parent_fd)
        except (FileNotFoundError, NotADirectoryError):
            return {}  # gone since it was looked at, or something else is in its place
        try:
            return xattrs_of(fd, path)
        finally:
            posix.close(fd)


def _holes(entry: Entry, fd: int, status: "StatResult") -> "Iterator[bytes]":
    """The header and the data of a file that may have holes."""
    from runtime.init.agent import tarsparse

    found = tarsparse.extents(fd, status)
    if found is None:
        found, head = [(0, entry.size)], b""
    else:
        entry.more = tarsparse.records(entry.name, entry.size)
        head = tarsparse.sparse_map(found, entry.size)
        entry.name, entry.size = tarsparse.NAME, len(head) + sum([size for _, size in found])
    yield tarformat.encode(entry) + head
    for start, size in found:
        posix.lseek(fd, start, tarformat.SEEK_SET)
        yield from _read(fd, size)


def _read(fd: int, left: int) -> "Iterator[bytes]":
    """So many bytes, whatever there is."""
    while left and (piece := posix.read(fd, min(left, _PIECE_BYTES))):
        left -= len(piece)
        yield piece
    while left:  # it has become shorter while it was read
        piece = bytes(min(left, _PIECE_BYTES))
        left -= len(piece)
        yield piece


class _Directory:
    """One that is being read: what of it is still to be."""

    def __init__(self, fd: int, path: str) -> None:
        status = posix.fstat(fd)
        self.fd, self.path, self.identity = fd, path, (status.st_dev, status.st_ino)
        self.names: list[str] = []


def entry_of(path: str, kind: bytes, status: "StatResult") -> Entry:
    """The entry for a file's status."""
    return Entry(
        path,
        kind,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == tarformat.REGULAR else 0,
        mtime=int(status.st_mtime),
        device=(posix.major(status.st_rdev), posix.minor(status.st_rdev))
        if kind in (tarformat.CHARACTER, tarformat.BLOCKDEV)
        else (0, 0),
    )


def xattrs_of(fd: int, path: str) -> dict[str, str]:
    """The extended attributes of a file that go with it. Raises Refused where they are more than an archive takes."""
    found: dict[str, str] = {}
    try:
        names = [name for name in posix.listxattr(fd) if tarformat.is_copied(name)]
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        names = []
    for name in names:
        try:
            found[name] = posix.getxattr(fd, name).decode("utf-8", "surrogateescape")
        except OSError as error:
            if error.errno != errno.ENODATA:  # gone since they were listed
                raise
    if (size := sum([len(name) + len(value) for name, value in found.items()])) > tarformat.MAX_XATTRS_BYTES:
        most = tarformat.MAX_XATTRS_BYTES
        raise Refused("files", f"{path!r:.200}: expected attributes of at most {most} bytes, got {size}")
    return found


def locate(root_fd: int, path: str) -> tuple[int, str]:
    """A descriptor of the directory a path's last name is in, and that name; symlinks on the way stay in the root."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused("params", f"path: expected one without .., got {path!r:.200}")
    whole = not parts or path.endswith(("/", "/."))
    above = "/".join(parts if whole else parts[:-1])
    try:
        return kernel.open_in(root_fd, above or ".", _DIRECTORY), "." if whole else parts[-1]
    except OSError as error:
        raise Refused(errno.errorcode.get(error.errno or 0, "internal"), f"{path}: {why(error)}") from None


def kind_name(status: "StatResult") -> str:
    """The word for a file's kind."""
    return NAMES.get(_KINDS.get(status.st_mode & _S_IFMT, b""), "socket")
