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
    *("accept4", "bind", "connect", "shutdown", "getsockname", "getpeername", "getsockopt"),
    # Waiting and clocks.
    *("epoll_create1", "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "ppoll"),
    *("clock_nanosleep", "gettimeofday", "time", "sched_yield", "sched_getaffinity"),
)
_REFUSED = (*pythoncalls.REFUSED, "openat", "newfstatat", "readlinkat", "lseek")
_SOCK_TYPE_MASK = 0xF  # linux/net.h; the bits above are SOCK_CLOEXEC and SOCK_NONBLOCK
# All that Python's sockets ask for: FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, and for the address of a packet socket its
# interface's name, SIOCGIFNAME. Source: asm-generic/ioctls.h, linux/sockios.h.
_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451, 0x8910)
# Of sockets and TCP any; of IP those that the engine sets. With IP_HDRINCL its raw sockets for pings, which are the
# host's, would send packets of any protocol from anybody's address, and no capability is asked for it (raw(7)).
# Source: linux/in.h, linux/in6.h.
_OPTIONS = {
    # IP_TTL, IP_MTU_DISCOVER, IP_RECVERR, IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT
    socket.IPPROTO_IP: (2, 10, 11, 19, 24),
    # IPV6_UNICAST_HOPS, IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_TRANSPARENT
    socket.IPPROTO_IPV6: (16, 23, 25, 75),
}
_CONDITIONAL: tuple[pythoncalls.Rule, ...] = (
    *((("setsockopt",), (argument(1, level),)) for level in (socket.SOL_SOCKET, socket.IPPROTO_TCP)),
    *(
        (("setsockopt",), (argument(1, level), argument(2, option)))
        for level, options in _OPTIONS.items()
        for option in options
    ),
    *((("ioctl",), (argument(1, request),)) for request in _IOCTLS),
    (("sched_setaffinity",), (argument(0, 0),)),  # of the calling thread
    # TCP and UDP of either Internet family: no packet socket, no netlink, nothing of this host's own. Another protocol,
    # named by its number, would have the kernel load the module for it (net/ipv4/af_inet.c, inet_create).
    *(
        (("socket",), (argument(0, family), argument(1, kind, mask=_SOCK_TYPE_MASK), argument(2, 0)))
        for family in (socket.AF_INET, socket.AF_INET6)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    ),
)


@lru_cache(maxsize=1)
def engine_filter() -> str:
    """The filter as hexadecimal struct sock_filter[], for EngineConfig.seccomp."""
    return pythoncalls.compiled(_ALLOWED, _REFUSED, _CONDITIONAL)
