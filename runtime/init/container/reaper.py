"""A pid 1 for containers whose command is none: it reaps orphans, forwards signals and tells how the command ended.

Optional (process.init), as with other runtimes: a command that expects to be pid 1 is. A command that does not, and
has no handler for SIGTERM, would not be stopped by it as pid 1, and its orphans would stay zombies.
"""

import _signal  # type: ignore[import-not-found]
import posix

from runtime.init import kernel

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_ALL = tuple(range(1, 65))
_FAILED = 125  # of the reaper itself: nobody was told how the command ended


def run(status_fd: int, closed: list[int], command: "Callable[[], None]") -> None:
    """Fork; `command` goes on in the child and this function returns there. The parent never returns.

    status_fd:  is told the wait status of the command, as decimal digits.
    closed:     descriptors only the child needs.
    """
    kernel.block_signals(_ALL)
    child = posix.fork()  # not clone3: a filter may know it as the way to make namespaces
    if child == 0:
        kernel.block_signals(())
        command()
        return
    try:
        for fd in (0, 1, 2, *closed):
            posix.close(fd)
        status = _watch(child)
        posix.write(status_fd, str(status).encode())
        posix._exit(0)  # with pid 1 the kernel ends what is left in the namespace
    finally:
        posix._exit(_FAILED)


def _watch(child: int) -> int:
    while True:
        number = _signal.sigwait(_ALL)
        if number != _signal.SIGCHLD:
            try:
                posix.kill(child, number)
            except (ProcessLookupError, PermissionError):
                # It has ended; or has become another user, and CAP_KILL was taken from both of us.
                continue
        else:
            status = kernel.reap(child)
            if status is not None:
                return status
