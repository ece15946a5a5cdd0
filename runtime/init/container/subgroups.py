"""The groups that a container has made in its own, as many and as deep as it likes."""

import posix

from runtime.init.container.cgroup import DIRECTORY, read


def remove(top: int) -> None:
    """Remove all below a cgroup that has no process. Raises OSError. With one descriptor and without recursion."""
    here = posix.open(".", DIRECTORY, dir_fd=top)
    left = _names(here)
    above: list[tuple[str, list[str]]] = []  # the way here: a group's name, and what else is beside it
    try:
        while left or above:
            if left:
                name = left.pop()
                below = posix.open(name, DIRECTORY, dir_fd=here)
                posix.close(here)
                here = below
                above.append((name, left))
                left = _names(here)
            else:
                up = posix.open("..", DIRECTORY, dir_fd=here)
                posix.close(here)
                here = up
                name, left = above.pop()
                posix.rmdir(name, dir_fd=here)
    finally:
        posix.close(here)


def pids(top: int) -> list[int]:
    """The processes of a cgroup and of all below it; groups that go meanwhile are passed over. Raises OSError."""
    found = [int(word) for word in read(top, "cgroup.procs").split()]
    groups = _names(top)
    while groups:
        group = groups.pop()
        try:
            directory = posix.open(group, DIRECTORY, dir_fd=top)
        except OSError:
            continue
        try:
            groups += [f"{group}/{name}" for name in _names(directory)]
            found += [int(word) for word in read(directory, "cgroup.procs").split()]
        except OSError:
            continue  # one of threads, whose processes are told above it
        finally:
            posix.close(directory)
    return found


def _names(directory: int) -> list[str]:
    with posix.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
