"""The system calls a network's engine may make once it serves, as a seccomp filter.

Decided and compiled here, by whoever starts an engine: it is told the finished program, and imports no compiler.
What is on no list kills the engine. A refusal would look to its handlers like one more connection that failed, and stay
unseen for ever; a death is told, the kernel's log names the call, and the next engine serves within a second. Where the
interpreter looks for files by itself, for a traceback's source lines or for a module, it is answered an error.
Python's file objects and sockets, glibc's allocator and locks, and clocks that are not read in user space (clocksource
xen) are what the lists were made from, with strace; tests/runtime/net runs the engine under them.
"""

from __future__ import annotations

import errno
import socket
from functools import lru_cache
from typing import Any

from pipeline.seccomp import filters

_ALLOWED = (
    # Bytes, through sockets and the pipes between them.
    *("read", "pread64", "write", "readv", "writev", "splice", "tee", "pipe2", "fcntl", "close", "fstat"),
    *("recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg"),
    # Connections. A listener is only ever made by whoever starts an engine.
    *("accept4", "bind", "connect", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt"),
    # Waiting and clocks.
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "poll", "ppoll", "futex", "restart_syscall"),
    *("clock_gettime", "clock_nanosleep", "gettimeofday", "time", "sched_yield"),
    # Memory, but none that holds code: see _conditional.
    *("brk", "mremap", "munmap", "madvise"),
    # The process itself, whose end by an exception is to be told as that.
    *("getpid", "gettid", "getrandom", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("exit", "exit_group"),
)
# What CPython tries when it reports an error or imports; each copes with a refusal.
_REFUSED = (
    *("open", "openat", "access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat", "statx"),
    *("readlink", "readlinkat", "getcwd", "lseek", "prctl"),
)
_PROT_EXEC = 0x4  # asm-generic/mman-common.h
_SOCK_TYPE_MASK = 0xF  # linux/net.h; the bits above are SOCK_CLOEXEC and SOCK_NONBLOCK
# All that Python's sockets ask for: FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, and for the address of a packet socket its
# interface's name, SIOCGIFNAME. Source: asm-generic/ioctls.h, linux/sockios.h.
_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451, 0x8910)


def _argument(index: int, value: int, *, mask: int | None = None) -> dict[str, Any]:
    if mask is None:
        return {"index": index, "op": "SCMP_CMP_EQ", "value": value}
    return {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}


def _conditional() -> list[dict[str, Any]]:
    """Rules that look at arguments."""
    rules: list[tuple[list[str], list[dict[str, Any]]]] = [
        (["mmap", "mprotect"], [_argument(2, 0, mask=_PROT_EXEC)]),
        *((["ioctl"], [_argument(1, request)]) for request in _IOCTLS),
        # Of either Internet family: no packet socket, no netlink, nothing of this host's own.
        *(
            (["socket"], [_argument(0, family), _argument(1, kind, mask=_SOCK_TYPE_MASK)])
            for family in (socket.AF_INET, socket.AF_INET6)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        ),
    ]
    return [{"names": names, "action": "SCMP_ACT_ALLOW", "args": arguments} for names, arguments in rules]


def profile() -> dict[str, object]:
    """The lists as an OCI profile."""
    return {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [
            {"names": list(_ALLOWED), "action": "SCMP_ACT_ALLOW"},
            {"names": list(_REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
            # isatty() of a standard stream, which a traceback may ask for.
            {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOTTY, "args": [_argument(1, 0x5401)]},
            *_conditional(),
        ],
    }


@lru_cache(maxsize=1)
def engine_filter() -> str:
    """The filter as hexadecimal struct sock_filter[], for EngineConfig.seccomp."""
    return filters.compile(profile()).hex()
