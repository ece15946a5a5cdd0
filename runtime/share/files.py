"""The files below one directory of the host, by descriptors: no name with a slash and no symlink is ever followed.

Everything outside of a Tree deals in O_PATH descriptors of files; who gets one closes it. An O_PATH descriptor opens
nothing (no device is touched, no FIFO waits) and stays the file's, however it is renamed. What is done to the file
itself goes through itself.py, which reaches it even if it is a symlink, and nothing beyond.

What is mounted below the directory is not entered (EXDEV): qids name files by inode number, which says nothing across
file systems, and a host may have mounted there what is none of the zone's business. The kernel refuses the step
(steps.py), also into a bind mount; a directory with another st_dev without a mount is refused here,
such as a subvolume of btrfs; files of an overlay have several. A server
in a mount namespace of its own may remove an empty directory on which the host's has something mounted, which unmounts
it there (fs/namei.c, vfs_rmdir, detach_mounts): what has mounts below is better not shared for writing.

A directory that somebody of the host, or another zone with a share around this one, moves out of the directory stays
open to those who have it open, as in a chroot; its ".." is refused (ESTALE).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from runtime.share import abi
from runtime.share.itself import Itself
from runtime.share.steps import step

# O_NONBLOCK: a lease or a FIFO keeps nobody waiting.
_OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Of the flags a client may give, those that are passed on.
_FLAGS = {abi.APPEND: os.O_APPEND, abi.DSYNC: os.O_DSYNC, abi.SYNC: os.O_SYNC}
_SET_ID = stat.S_ISUID | stat.S_ISGID
_MADE = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)


def failure(number: int) -> OSError:
    """The OSError of an errno."""
    return OSError(number, os.strerror(number))


def safe_mode(kind: int, mode: int) -> int:
    """The permission bits a file may get. kind: its S_IFMT bits.

    None but directories get set-user-ID and set-group-ID: the zone's root may give a file to the host's root, and any
    user of the host who can reach the directory could run it then. On directories the bits only say who owns new files.
    """
    return mode & (0o7777 if kind == stat.S_IFDIR else 0o1777)


def check_name(name: bytes) -> None:
    """Is this a name a file may get? Raises OSError, EINVAL."""
    if name in (b"", b".", b"..") or b"/" in name:
        raise failure(errno.EINVAL)


class Owner(NamedTuple):
    """Whose new files are. A gid of abi.NONUNAME leaves the one the host's file system gives."""

    uid: int
    gid: int


class Tree:
    """Everything below `root_fd`, of which no more is kept than a descriptor of its own. All methods raise OSError."""

    def __init__(self, root_fd: int, *, readonly: bool) -> None:
        status = os.stat(root_fd)
        if not stat.S_ISDIR(status.st_mode):
            raise failure(errno.ENOTDIR)
        self.itself = Itself()
        self._root, self._readonly = self.itself.open(root_fd, os.O_PATH), readonly
        self._device, self._inode = status.st_dev, status.st_ino

    def close(self) -> None:
        """Let go of the root; twice is fine."""
        self.itself.close()
        if self._root >= 0:
            os.close(self._root)
        self._root = -1

    def root(self) -> int:
        """The directory itself."""
        return os.dup(self._root)

    def is_root(self, fd: int) -> bool:
        """Is it the directory itself?"""
        status = os.stat(fd)
        return (status.st_dev, status.st_ino) == (self._device, self._inode)

    def changing(self) -> None:
        """Whatever changes anything asks first."""
        if self._readonly:
            raise failure(errno.EROFS)

    def walk(self, fd: int, name: bytes) -> int:
        """One step: a name in a directory, or ".." of it, which at the root is the root.

        Raises:  ENOTDIR also where it starts from a symlink: the client follows those itself.
        """
        if name == b"..":
            return self._parent(fd)
        check_name(name)
        return self._step(fd, name)

    def open(self, fd: int, flags: int) -> int:
        """Really open a file. Raises ENXIO for what is neither file nor directory, ELOOP for a symlink."""
        status = os.stat(fd)  # before it is opened: opening a device may already do something
        kind = stat.S_IFMT(status.st_mode)
        writing = flags & abi.ACCESS_MODE != abi.RDONLY or bool(flags & abi.TRUNC)
        if writing:
            self.changing()
        if kind == stat.S_IFDIR:
            if writing:
                raise failure(errno.EISDIR)
            return self.itself.open(fd, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
        if flags & abi.DIRECTORY:
            raise failure(errno.ENOTDIR)
        if kind != stat.S_IFREG:
            raise failure(errno.ELOOP if kind == stat.S_IFLNK else errno.ENXIO)
        if writing:
            self.disarm(fd, status)
        return self.itself.open(fd, _host_flags(flags) | (os.O_TRUNC if flags & abi.TRUNC else 0))

    def disarm(self, fd: int, status: os.stat_result) -> None:
        """Before a file's content changes: it loses set-user-ID and set-group-ID.

        The kernel sees to that for anybody else's write(2), but a server that is root may keep them (CAP_FSETID).
        """
        if stat.S_ISREG(status.st_mode) and status.st_mode & _SET_ID:
            self.itself.chmod(fd, safe_mode(stat.S_IFREG, status.st_mode))

    def create(self, dir_fd: int, name: bytes, flags: int, mode: int, owner: Owner) -> tuple[int, int]:
        """Make a file and open it, or open the one that is there, unless flags say EXCL: O_PATH and real descriptor."""
        self.changing()
        check_name(name)
        flags &= ~abi.DIRECTORY
        try:
            making = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            opened = os.open(name, _host_flags(flags) | making, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            if flags & abi.EXCL:
                raise
            fd = self.walk(dir_fd, name)
            try:
                return fd, self.open(fd, flags)
            except BaseException:
                os.close(fd)
                raise
        try:
            self._give(opened, owner, safe_mode(stat.S_IFREG, mode))
            return self.itself.open(opened, os.O_PATH), opened
        except BaseException:
            os.close(opened)
            os.unlink(name, dir_fd=dir_fd)
            raise

    def mkdir(self, dir_fd: int, name: bytes, mode: int, owner: Owner) -> int:
        """Make a directory."""
        self.changing()
        check_name(name)
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        return self._adopt(dir_fd, name, owner, safe_mode(stat.S_IFDIR, mode))

    def mknod(self, dir_fd: int, name: bytes, mode: int, owner: Owner) -> int:
        """Make a file, FIFO or socket. Raises EPERM for devices: they would be those of the host."""
        self.changing()
        check_name(name)
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            raise failure(errno.EPERM)
        if kind not in _MADE:
            raise failure(errno.EINVAL)
        os.mknod(name, kind | 0o600, dir_fd=dir_fd)
        return self._adopt(dir_fd, name, owner, safe_mode(kind, mode))

    def symlink(self, dir_fd: int, name: bytes, target: bytes, owner: Owner) -> int:
        """Make a symlink. Its target is the client's affair: nothing here follows it."""
        self.changing()
        check_name(name)
        os.symlink(target, name, dir_fd=dir_fd)
        return self._adopt(dir_fd, name, owner, None)

    def link(self, dir_fd: int, fd: int, name: bytes) -> None:
        """Give a file another name."""
        self.changing()
        check_name(name)
        self.itself.link(fd, dir_fd, name)

    def rename(self, old_dir_fd: int, old_name: bytes, new_dir_fd: int, new_name: bytes) -> None:
        """Rename, also over what has the new name."""
        self.changing()
        check_name(old_name)
        check_name(new_name)
        os.rename(old_name, new_name, src_dir_fd=old_dir_fd, dst_dir_fd=new_dir_fd)

    def unlink(self, dir_fd: int, name: bytes, *, directory: bool) -> None:
        """Remove a name."""
        self.changing()
        check_name(name)
        if directory:
            os.rmdir(name, dir_fd=dir_fd)
        else:
            os.unlink(name, dir_fd=dir_fd)

    def move(self, fd: int, new_dir_fd: int, new_name: bytes) -> None:
        """Rename a file of which only the descriptor is known."""
        self.changing()
        dir_fd, name = self._place(fd)
        try:
            self.rename(dir_fd, name, new_dir_fd, new_name)
        finally:
            os.close(dir_fd)

    def remove(self, fd: int) -> None:
        """Remove a file of which only the descriptor is known."""
        self.changing()
        dir_fd, name = self._place(fd)
        try:
            self.unlink(dir_fd, name, directory=stat.S_ISDIR(os.stat(fd).st_mode))
        finally:
            os.close(dir_fd)

    def _step(self, dir_fd: int, name: bytes) -> int:
        """What has the name, if it is on the root's file system."""
        fd = step(dir_fd, name)
        try:
            status = os.stat(fd)
            if stat.S_ISDIR(status.st_mode) and status.st_dev != self._device:
                raise failure(errno.EXDEV)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _parent(self, fd: int) -> int:
        """The directory above one, after a look that the root is above that: it may have been moved out of it."""
        if self.is_root(fd):
            return self.root()
        above = self._step(fd, b"..")
        try:
            climber = os.dup(above)
            try:
                while not self.is_root(climber):
                    higher = self._step(climber, b"..")
                    if os.path.sameopenfile(higher, climber):
                        os.close(higher)
                        raise failure(errno.ESTALE)
                    os.close(climber)
                    climber = higher
            finally:
                os.close(climber)
        except BaseException as problem:
            os.close(above)
            if isinstance(problem, OSError) and problem.errno == errno.EXDEV:
                raise failure(errno.ESTALE) from None
            raise
        return above

    def _place(self, fd: int) -> tuple[int, bytes]:
        """The directory a file is in and its name there, both as the kernel has them now, whoever has renamed it.

        Linux asks only servers without Tunlinkat and Trenameat for this, so fids keep neither, and a path is looked up
        again, by steps that follow nothing. It ends in " (deleted)" where there is no name any more.
        Raises:  EBUSY for the root, ESTALE where another file has the name, or none, or it is not below the root.
        """
        if self.is_root(fd):
            raise failure(errno.EBUSY)
        root, path = self.itself.path(self._root), self.itself.path(fd)
        root = root.rstrip(b"/") + b"/"
        if not path.startswith(root):
            raise failure(errno.ESTALE)
        *above, name = path.removeprefix(root).split(b"/")
        dir_fd = self.root()
        try:
            for part in above:
                lower = self.walk(dir_fd, part)
                os.close(dir_fd)
                dir_fd = lower
            if not os.path.samestat(os.stat(name, dir_fd=dir_fd, follow_symlinks=False), os.stat(fd)):
                raise failure(errno.ESTALE)
        except BaseException as problem:
            os.close(dir_fd)
            if isinstance(problem, FileNotFoundError):
                raise failure(errno.ESTALE) from None
            raise
        return dir_fd, name

    def _adopt(self, dir_fd: int, name: bytes, owner: Owner, mode: int | None) -> int:
        """What was just made gets its owner and mode, or goes again. mode: None for a symlink, which has none."""
        fd = self.walk(dir_fd, name)
        try:
            self._give(fd, owner, mode)
        except BaseException:
            status = os.stat(fd)
            os.close(fd)
            self.unlink(dir_fd, name, directory=stat.S_ISDIR(status.st_mode))
            raise
        return fd

    def _give(self, fd: int, owner: Owner, mode: int | None) -> None:
        """Owner first: changing it takes bits from the mode. No umask is asked: the client has applied its own."""
        self.itself.chown(fd, owner.uid, -1 if owner.gid == abi.NONUNAME else owner.gid)
        if mode is not None:
            self.itself.chmod(fd, mode)


def _host_flags(flags: int) -> int:
    """The host's flags for the client's, of which most are dropped. Raises EINVAL for an access mode that is none."""
    passed = flags & abi.ACCESS_MODE
    if passed not in (abi.RDONLY, abi.WRONLY, abi.RDWR):
        raise failure(errno.EINVAL)
    for theirs, ours in _FLAGS.items():
        if flags & theirs:
            passed |= ours
    return passed | _OPEN
