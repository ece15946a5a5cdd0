"""Writable layers of further containers on the scratch disk, each a directory of its own, and how they go.

The workload of the zone's own image has the top of the disk. What a further container wrote goes with it, in a process
of its own: the agent does not wait for as many files as a container can make.
"""

import posix

from runtime.init import abi, devices
from runtime.init.mounts import LAYERS
from runtime.init.removal import remove_below
from runtime.init.report import say

_DOOMED = "removed"


def discard(writable: str, name: str = "") -> None:
    """Begin to remove what a container wrote, or all of them: none outlives the zone's run. Raises OSError.

    writable: where the scratch disk is mounted; it may be unmounted at once.
    """
    path = f"{writable}/{LAYERS}/{name}".rstrip("/")
    doomed = f"{writable}/{_DOOMED}"
    if devices.exists(path):
        # Out of the way first: the name is free then, and whoever goes on with it finds it.
        if not devices.exists(doomed):
            posix.mkdir(doomed, 0o700)
        posix.rename(path, f"{doomed}/{_unused(posix.listdir(doomed))}")
    elif name or not devices.exists(doomed):
        return
    fd = posix.open(doomed, abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    if posix.fork():
        posix.close(fd)
        return
    try:
        posix.fchdir(fd)
        # No pipe stays open for us; the console does, for what cannot be removed is to be told.
        posix.closerange(0, 2)
        posix.closerange(3, 1 << 20)
        remove_below(".", posix.stat(".").st_dev)
    except BaseException as error:
        say(f"scratch disk: {type(error).__name__}: {error}")
    posix._exit(0)


def _unused(names: list[str]) -> str:
    return str(max([int(name) for name in names if name.isdigit()], default=0) + 1)
