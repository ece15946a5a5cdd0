"""Whether this host's own programs still have ports: what all its networks' zones use of them is seen in one place.

A UDP socket towards the outside takes a port that is nobody else's as long as it lives, from those that the kernel
chooses of. How many of them are taken, by whichever engine or program, the kernel tells. TCP is another thing: there a
port is shared by connections to different destinations, and the kernel itself keeps every second one for those who
listen as long as it can (net/ipv4/inet_hashtables.c, __inet_hash_connect).
Source: ip-sysctl.rst, ip_local_port_range; proc(5), /proc/net/sockstat.
"""

from __future__ import annotations

import os
import re

KEPT = 16  # of each kind, whatever the others have
_FILES = ("/proc/thread-self/net/sockstat", "/proc/thread-self/net/sockstat6")
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_IN_USE = re.compile(rb"^UDP6?: inuse (\d+)", re.MULTILINE)


class HostPorts:
    """The UDP ports of the namespace it was made in. Keeps files open: there may be no file system later."""

    def __init__(self) -> None:
        with open(_RANGE, "rb") as file:
            first, last = map(int, file.read().split())
        self.half = (last - first + 1) // 2
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in _FILES if os.path.exists(path)]

    @property
    def used(self) -> int:
        """UDP sockets that there are."""
        return sum(int(found) for fd in self._files for found in _IN_USE.findall(os.pread(fd, 4096, 0)))

    def scarce(self, held: int) -> bool:
        """Has a zone that holds so many to make do with them, as half of the host's are taken?"""
        return held >= KEPT and self.used >= self.half

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())
