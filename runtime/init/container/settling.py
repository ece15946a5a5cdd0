"""Wait until a cgroup is as it was asked to be."""

import posix
import select
import time

SETTLE_S = 10.0
_LOOK_AGAIN_MS = 100


def settles(directory: int, key: str, value: str) -> bool:
    """Wait until the cgroup.events of a cgroup has the value. Not within 10 s: False. Raises OSError."""
    end = time.monotonic() + SETTLE_S
    fd = posix.open("cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    try:
        while f"{key} {value}" not in posix.pread(fd, 4096, 0).decode().splitlines():
            left_ms = int((end - time.monotonic()) * 1000)
            if left_ms <= 0:
                return False
            poll.poll(min(left_ms, _LOOK_AGAIN_MS))
        return True
    finally:
        posix.close(fd)
