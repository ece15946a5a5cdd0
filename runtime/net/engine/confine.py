"""What the engine's process gives up, and the thread that stays in the network's namespace.

Own uid and gid without groups, so no capability in the host's namespaces, and none to regain; no_new_privs; an empty
root; a list of system calls (runtime/net/calls.py); no core dumps; bounds on descriptors and memory. What it needs of
the host's files is imported, opened or told before: name servers are told again when they change.
In the network's own namespace its uid is the owner's (runtime/net/netns.py): its sockets there may be transparent.
PR_SET_PDEATHSIG is not used: zoned restarts and adopts running zones, whose connections must survive it.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import queue
import resource
import socket
import sys
import threading
import time

from runtime.net import netns
from runtime.net.engine.datagrams import IP_TRANSPARENT, IPV6_TRANSPARENT

# Source: linux/prctl.h, linux/sched.h, linux/mount.h, linux/seccomp.h, asm/unistd_64.h
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_PRIVATE = 1 << 18
SYS_PIVOT_ROOT = 155
SYS_SECCOMP = 317
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
_INSTRUCTION_BYTES = 8  # struct sock_filter
_TRANSPARENT = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}
# A directory that every host has: the empty root is mounted there first, in a mount namespace of the engine's own.
_STEPPING_STONE = netns.DIRECTORY.parent


class _Program(ctypes.Structure):
    """struct sock_fprog, linux/filter.h."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


class SocketFactory:
    """Makes sockets in another network namespace: a thread entered it while the process still could.

    They are transparent: they may have any address, and TPROXY gives them what is for their connection.
    """

    def __init__(self, namespace: int) -> None:
        """namespace: a descriptor of it, which this closes. Raises OSError."""
        self._wanted: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[socket.socket | OSError | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(namespace,), name="factory", daemon=True).start()
        entered = self._made.get()
        if isinstance(entered, OSError):
            raise entered

    def _serve(self, namespace: int) -> None:
        try:
            netns.setns(namespace)
        except OSError as error:
            self._made.put(error)
            return
        finally:
            os.close(namespace)
        self._made.put(None)
        while True:
            family, kind = self._wanted.get()
            try:
                self._made.put(_transparent(family, kind))
            except OSError as error:
                self._made.put(error)
            except MemoryError:  # without this thread, whoever asks it would wait for ever
                self._made.put(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))

    def make(self, family: int, kind: int) -> socket.socket:
        """A new socket of the namespace. Raises OSError."""
        self._wanted.put((family, kind))
        made = self._made.get()
        if not isinstance(made, socket.socket):
            raise made or OSError("no socket came")
        return made


def _transparent(family: int, kind: int) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.setsockopt(*_TRANSPARENT[socket.AddressFamily(family)], 1)
    except BaseException:
        made.close()
        raise
    return made


def bound_descriptors(count: int) -> int:
    """Allow this many descriptors and no more, or as many as this process may have. Effects: the process's limit."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    except ValueError:  # above the limit that it was started with, or the kernel's
        count = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return count


def bound_memory(count_bytes: int) -> None:
    """Allow this process so much memory of its own and no more. Effects: the process's limit."""
    resource.setrlimit(resource.RLIMIT_DATA, (count_bytes, count_bytes))


def forbid_new_privileges() -> None:
    """Set no_new_privs and empty the bounding set; threads inherit both, so this comes before the first of them."""
    netns.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        try:
            netns.call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                break  # one more than this kernel has
            raise


def load_what_is_loaded_late() -> None:
    """Let the interpreter read what it would read when it is first needed: there will be nothing to read then.

    That is how a traceback and the time in front of it are written.
    """
    time.tzset()
    try:
        raise OSError(errno.EPERM, "none")
    except OSError:
        record = logging.LogRecord("engine", logging.WARNING, __file__, 1, "none", None, sys.exc_info())
    for handler in logging.getLogger().handlers:
        handler.format(record)


def empty_root() -> None:
    """Change the root to an empty, read-only directory, and no longer have any other file system, nor standard input.

    Comes before the first thread, which then has this root too. Raises OSError.
    Source: pivot_root(2), "pivot_root(".", ".")".
    """
    netns.call("unshare", CLONE_NEWNS)
    netns.mount("", "/", "", netns.MS_REC | MS_PRIVATE)
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    netns.mount("none", _STEPPING_STONE, "tmpfs", flags, "size=4k,nr_inodes=1,mode=555")
    os.chdir(_STEPPING_STONE)
    netns.call("syscall", ctypes.c_long(SYS_PIVOT_ROOT), b".", b".")
    netns.call("umount2", b".", netns.MNT_DETACH)
    os.chdir("/")
    os.dup2(1, 0)  # the null device


def become(uid: int) -> None:
    """Change user and group for good, in all threads (glibc's setxid does). All capabilities go with it."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def limit_calls(program: bytes) -> None:
    """Have every thread of this process make the system calls of a filter only, for good. Raises OSError.

    Source: seccomp(2); SECCOMP_FILTER_FLAG_TSYNC, whose failure is the number of a thread that could not follow.
    """
    description = _Program(len(program) // _INSTRUCTION_BYTES, program)
    arguments = (SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(description))
    netns.call("syscall", ctypes.c_long(SYS_SECCOMP), *arguments)
