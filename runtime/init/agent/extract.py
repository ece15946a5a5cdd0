"""Put the members of an archive below a directory of a container, and never outside of its root."""

import errno
import posix
import time

from runtime.init import abi, kernel
from runtime.init.agent import tarformat
from runtime.init.agent.errors import Refused
from runtime.init.agent.tarformat import Entry
from runtime.init.failure import why

_DIRECTORY = abi.O_PATH | posix.O_DIRECTORY
_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000
_NODES = {tarformat.CHARACTER: 0o020000, tarformat.BLOCKDEV: 0o060000, tarformat.FIFO: 0o010000}
_MAX_DIRECTORIES = 65536  # whose times are set at the end, when nothing is put into them any more


class Extractor:
    """begin, data, end and seek of tarread.Reader. A file is complete before it has its name.

    root_fd:  the container's root, which this object closes; path: an existing directory there.
    xattrs_left_out:  how many the file systems here do not take, as a tmpfs before Linux 6.6 no user's.
    """

    def __init__(self, root_fd: int, path: str) -> None:
        self._root_fd = root_fd
        self._base = "/".join(_parts(path))
        try:
            posix.close(self._open(self._base or ".", _DIRECTORY))
        except OSError as error:
            raise Refused(_name(error), f"{path}: expected a directory of the container: {why(error)}") from None
        self._entry: Entry | None = None
        self._fd = self._parent_fd = -1
        # Its own: of two copies into one directory, a directory of the host's that zones share too, each has its file.
        self._temporary = f".zone.copying-{time.time_ns():x}"
        self._times: list[tuple[str, int]] = []
        self.entries = self.bytes = self.xattrs_left_out = 0

    def begin(self, entry: Entry) -> None:
        """A member begins. Raises Refused."""
        parts = _parts(entry.name)
        path = "/".join([self._base, *parts]).strip("/")
        self._entry = entry
        try:
            if not parts:
                return  # the directory itself, which is there and stays as it is
            self._parent_fd = self._directory(path.rpartition("/")[0])
            self._make(entry, path, parts[-1])
        except OSError as error:
            self._let_go()
            raise Refused(_name(error), f"{entry.name!r:.200}: {why(error)}") from None

    def data(self, piece: bytes) -> None:
        """Contents of the file that began. Raises Refused."""
        self.bytes += len(piece)
        try:
            while piece:
                piece = piece[posix.write(self._fd, piece) :]
        except OSError as error:
            name = self._entry.name if self._entry is not None else ""
            self._let_go()
            raise Refused(_name(error), f"{name!r:.200}: {why(error)}") from None

    def seek(self, offset: int) -> None:
        """What comes next belongs there: what lies between is a hole. Raises Refused."""
        try:
            posix.ftruncate(self._fd, offset)
            posix.lseek(self._fd, offset, tarformat.SEEK_SET)
        except OSError as error:
            name = self._entry.name if self._entry is not None else ""
            self._let_go()
            raise Refused(_name(error), f"{name!r:.200}: {why(error)}") from None

    def end(self) -> None:
        """The member is whole: it gets its attributes and its name. Raises Refused."""
        entry = self._entry
        if entry is None:
            return
        self.entries += 1
        try:
            if self._fd >= 0:
                posix.fchown(self._fd, entry.uid, entry.gid)
                posix.fchmod(self._fd, entry.mode)
                self._attribute(self._fd, entry)  # behind the owner: a change of that takes capabilities away
                posix.utime(self._fd, ns=(entry.mtime * 10**9, entry.mtime * 10**9))
                name = _parts(entry.name)[-1]
                self._clear(name)
                posix.rename(self._temporary, name, src_dir_fd=self._parent_fd, dst_dir_fd=self._parent_fd)
                posix.close(self._fd)
                self._fd = -1
        except OSError as error:
            raise Refused(_name(error), f"{entry.name!r:.200}: {why(error)}") from None
        finally:
            self._let_go()

    def finish(self) -> None:
        """All members are there: times of directories."""
        for path, mtime in self._times:
            try:
                fd = self._open(path, posix.O_RDONLY | posix.O_DIRECTORY)
                try:
                    posix.utime(fd, ns=(mtime * 10**9, mtime * 10**9))
                finally:
                    posix.close(fd)
            except OSError:
                continue  # a later member or the workload has replaced it

    def close(self) -> None:
        """Let go of everything; a file that is not whole goes."""
        self._let_go()
        if self._root_fd >= 0:
            posix.close(self._root_fd)
            self._root_fd = -1

    def _let_go(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1
            try:
                posix.unlink(self._temporary, dir_fd=self._parent_fd)
            except OSError:
                pass  # renamed, or the workload has removed it
        if self._parent_fd >= 0:
            posix.close(self._parent_fd)
            self._parent_fd = -1
        self._entry = None

    def _open(self, path: str, flags: int) -> int:
        return kernel.open_in(self._root_fd, path, flags)

    def _directory(self, path: str) -> int:
        """A descriptor of a directory below the root, made where it is missing."""
        try:
            return self._open(path or ".", _DIRECTORY)
        except FileNotFoundError:
            above, _, name = path.rpartition("/")
            parent_fd = self._directory(above)
            try:
                posix.mkdir(name, 0o755, dir_fd=parent_fd)
            finally:
                posix.close(parent_fd)
            return self._open(path, _DIRECTORY)

    def _make(self, entry: Entry, path: str, name: str) -> None:
        here = self._parent_fd
        if entry.kind == tarformat.REGULAR:
            flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
            self._fd = posix.open(self._temporary, flags, 0o600, dir_fd=here)
            return
        if entry.kind == tarformat.DIRECTORY:
            self._make_directory(entry, path, name)
            return
        self._clear(name)
        if entry.kind == tarformat.SYMLINK:
            posix.symlink(entry.link, name, dir_fd=here)
            self._give(entry, name, _S_IFLNK)
        elif entry.kind == tarformat.HARDLINK:
            target = "/".join([self._base, *_parts(entry.link)]).strip("/")
            above, _, last = target.rpartition("/")
            there = self._open(above or ".", _DIRECTORY)
            try:
                posix.link(last, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            finally:
                posix.close(there)
        else:
            kind = _NODES[entry.kind]
            posix.mknod(name, kind | 0o600, posix.makedev(*entry.device), dir_fd=here)
            self._give(entry, name, kind)

    def _give(self, entry: Entry, name: str, kind: int) -> None:
        """Give what has just been made its owner, mode and time.

        By descriptor: who may write to the directory can have put a link in its place, of either sort, and would have
        this done to any file of the zone, or of the container. What is opened so has no fchown; its path in /proc does.
        """
        fd = posix.open(name, abi.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self._parent_fd)
        try:
            status = posix.fstat(fd)
            if status.st_mode & _S_IFMT != kind or status.st_nlink != 1:
                raise Refused("files", f"{entry.name!r:.200}: something else was put in its place while it was made")
            path = f"/proc/self/fd/{fd}"
            posix.chown(path, entry.uid, entry.gid)
            if kind != _S_IFLNK:
                posix.chmod(path, entry.mode)
            posix.utime(path, ns=(entry.mtime * 10**9, entry.mtime * 10**9))
        finally:
            posix.close(fd)

    def _make_directory(self, entry: Entry, path: str, name: str) -> None:
        try:
            posix.mkdir(name, 0o700, dir_fd=self._parent_fd)
        except FileExistsError:
            pass  # opened below, which says whether it is a directory (or a symlink to one, which stays)
        fd = self._open(path, posix.O_RDONLY | posix.O_DIRECTORY)
        try:
            posix.fchown(fd, entry.uid, entry.gid)
            posix.fchmod(fd, entry.mode)
            self._attribute(fd, entry)
        finally:
            posix.close(fd)
        if len(self._times) < _MAX_DIRECTORIES:
            self._times.append((path, entry.mtime))

    def _attribute(self, fd: int, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            try:
                posix.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                self.xattrs_left_out += 1

    def _clear(self, name: str) -> None:
        """What has the name of a new member goes, unless it is a directory."""
        try:
            posix.unlink(name, dir_fd=self._parent_fd)
        except FileNotFoundError:
            return


def _parts(name: str) -> list[str]:
    """The names of a path. Raises Refused for one that goes upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Refused("archive", f"{name!r:.200}: expected a path without .., got one that leads upwards")
    return parts


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "internal")
