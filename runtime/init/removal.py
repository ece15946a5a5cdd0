"""Delete what is below a directory, however deep it is."""

import errno
import posix

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_S_IFMT, _S_IFDIR = 0o170000, 0o040000
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC


def remove_below(path: str, device: int) -> None:
    """Delete what is on the file system `device`; mount points and what is on them stay. What went meanwhile is gone.

    With one descriptor, and neither paths nor recursion: a container can make a tree as deep as it likes.
    Raises:  OSError.
    """
    here = posix.open(path, _DIRECTORY)
    names = posix.listdir(here)
    above: list[tuple[str, list[str]]] = []  # the way here: a directory's name, and what else is beside it
    try:
        while names or above:
            if names:
                name = names.pop()
                below = _take_away(name, here, device)
                if below >= 0:
                    posix.close(here)
                    here = below
                    above.append((name, names))
                    names = _names(here)
            else:
                up = posix.open("..", _DIRECTORY, dir_fd=here)
                posix.close(here)
                here = up
                name, names = above.pop()
                _unless_gone(posix.rmdir, name, here)
    finally:
        posix.close(here)


def _take_away(name: str, here: int, device: int) -> int:
    """Delete what is no directory; a descriptor of what is one, else -1."""
    try:
        status = posix.stat(name, dir_fd=here, follow_symlinks=False)
        if status.st_dev == device and status.st_mode & _S_IFMT == _S_IFDIR:
            return posix.open(name, _DIRECTORY | posix.O_NOFOLLOW, dir_fd=here)
    except FileNotFoundError:
        return -1
    if status.st_dev == device:
        _unless_gone(posix.unlink, name, here)
    return -1


def _names(directory: int) -> list[str]:
    try:
        return posix.listdir(directory)
    except FileNotFoundError:  # another process that removes was quicker
        return []


def _unless_gone(action: "Callable[..., object]", name: str, here: int) -> None:
    """Do it; what is not there any more, is mounted on, or has got something in it meanwhile is passed over."""
    try:
        action(name, dir_fd=here)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
            raise
