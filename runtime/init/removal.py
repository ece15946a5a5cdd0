"""Delete a directory or what is below it, however deep that is."""

import errno
import posix

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
# It is not there any more, is mounted on, or has got something in it meanwhile.
_PASSED_OVER = (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY)


def remove_directory(name: str, parent_fd: int) -> None:
    """Delete a directory with all that is in it. Raises OSError, EBUSY for a mount point."""
    try:
        posix.rmdir(name, dir_fd=parent_fd)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        remove_below(name, posix.fstat(parent_fd).st_dev, parent_fd)
        posix.rmdir(name, dir_fd=parent_fd)


def remove_below(path: str, device: int, parent_fd: int | None = None) -> None:
    """Delete what is on the file system `device`; mount points and what is on them stay. What went meanwhile is gone.

    With one descriptor, and neither paths nor recursion: a container can make a tree as deep as it likes.
    Raises:  OSError.
    """
    here = posix.open(path, _DIRECTORY | posix.O_NOFOLLOW, dir_fd=parent_fd)
    names = posix.listdir(here)
    above: list[tuple[str, list[str]]] = []  # the way here: a directory's name, and what else is beside it
    try:
        while names or above:
            if names:
                name = names.pop()
                try:
                    posix.unlink(name, dir_fd=here)
                except IsADirectoryError:
                    below = _open_on(device, name, here)
                    if below >= 0:
                        posix.close(here)
                        here = below
                        above.append((name, names))
                        names = _names(here)
                except OSError as error:
                    if error.errno not in _PASSED_OVER:
                        raise
            else:
                up = posix.open("..", _DIRECTORY, dir_fd=here)
                posix.close(here)
                here = up
                name, names = above.pop()
                try:
                    posix.rmdir(name, dir_fd=here)
                except OSError as error:
                    if error.errno not in _PASSED_OVER:
                        raise
    finally:
        posix.close(here)


def _open_on(device: int, name: str, here: int) -> int:
    """A descriptor of a directory; -1 where it is gone by now, or on another file system."""
    try:
        fd = posix.open(name, _DIRECTORY | posix.O_NOFOLLOW, dir_fd=here)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    if posix.fstat(fd).st_dev == device:
        return fd
    posix.close(fd)
    return -1


def _names(directory: int) -> list[str]:
    try:
        return posix.listdir(directory)
    except FileNotFoundError:  # another process that removes was quicker
        return []
