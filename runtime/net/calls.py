"""The system calls a network's engine may make once it serves, as a seccomp filter.

What all processes of Python's make is in runtime/pythoncalls.py. An engine that makes another call is killed, and the
next one serves within a second. Where the interpreter looks for files by itself, for a traceback's source lines or for
a module, it is answered an error.
Python's file objects and sockets are what the lists were made from, with strace; tests/runtime/net runs the engine
under them.
"""

from __future__ import annotations

import socket
from functools import lru_cache

from runtime import pythoncalls
from runtime.pythoncalls import argument

_ALLOWED = (
    *pythoncalls.ALLOWED,
    # Bytes, through sockets and the pipes between them.
    *("read", "pread64", "write", "readv", "writev", "splice", "tee", "pipe2", "fcntl", "close", "fstat"),
    *("recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg"),
    # Connections. A listener is only ever made by whoever starts an engine.
    *("accept4", "bind", "connect", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt"),
    # Waiting and clocks.
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "ppoll"),
    *("clock_nanosleep", "gettimeofday", "time", "sched_yield"),
)
_REFUSED = (*pythoncalls.REFUSED, "openat", "newfstatat", "readlinkat", "lseek")
_SOCK_TYPE_MASK = 0xF  # linux/net.h; the bits above are SOCK_CLOEXEC and SOCK_NONBLOCK
# All that Python's sockets ask for: FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, and for the address of a packet socket its
# interface's name, SIOCGIFNAME. Source: asm-generic/ioctls.h, linux/sockios.h.
_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451, 0x8910)
_CONDITIONAL: tuple[pythoncalls.Rule, ...] = (
    *((("ioctl",), (argument(1, request),)) for request in _IOCTLS),
    # Of either Internet family: no packet socket, no netlink, nothing of this host's own.
    *(
        (("socket",), (argument(0, family), argument(1, kind, mask=_SOCK_TYPE_MASK)))
        for family in (socket.AF_INET, socket.AF_INET6)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    ),
)


@lru_cache(maxsize=1)
def engine_filter() -> str:
    """The filter as hexadecimal struct sock_filter[], for EngineConfig.seccomp."""
    return pythoncalls.compiled(_ALLOWED, _REFUSED, _CONDITIONAL)
