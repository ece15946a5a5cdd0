"""What the engine's process gives up, and the thread that stays in the network's namespace.

Done now: own uid and gid without groups, so no capability in any namespace; no_new_privs; no core dumps; a bound on
descriptors. Seccomp and an empty root come with the data path that replaces this one.
PR_SET_PDEATHSIG is not used: zoned restarts and adopts running zones, whose connections must survive it.
"""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import socket
import threading

from runtime.net import netns

# Source: linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38


class SocketFactory:
    """Makes sockets in another network namespace: a thread entered it while the process still could."""

    def __init__(self, path: str) -> None:
        self._wanted: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[socket.socket | OSError | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(path,), name="factory", daemon=True).start()
        entered = self._made.get()
        if isinstance(entered, OSError):
            raise entered

    def _serve(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            netns.setns(fd)
            os.close(fd)
        except OSError as error:
            self._made.put(error)
            return
        self._made.put(None)
        while True:
            family, kind = self._wanted.get()
            try:
                self._made.put(socket.socket(family, kind))
            except OSError as error:
                self._made.put(error)

    def make(self, family: int, kind: int) -> socket.socket:
        """A new socket of the namespace. Raises OSError."""
        self._wanted.put((family, kind))
        made = self._made.get()
        if not isinstance(made, socket.socket):
            raise made or OSError("no socket came")
        return made


def bound_descriptors(count: int) -> None:
    """Allow this many descriptors and no more. Effects: the process's limit."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_new_privileges() -> None:
    """Set no_new_privs; threads inherit it, so this comes before the first of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl PR_SET_NO_NEW_PRIVS")


def become(uid: int) -> None:
    """Change user and group for good, in all threads (glibc's setxid does). All capabilities go with it."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
