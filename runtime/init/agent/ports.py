"""Which TCP ports somebody in the zone listens on, told to the host as they open and close.

Looked up in /proc/net/tcp and tcp6, and only while a host is there: a kernel without the inet_diag module has no other
way. Source:  Documentation/networking/proc_net_tcp.rst.
"""

import _socket

from runtime.init.agent.cgroup import read
from runtime.init.agent.core import Agent

_FILES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"
_STEP_S, _FAST_S, _FAST_STEPS = 1.0, 0.2, 50  # often after the start of a session, when workloads open theirs
_MAX_PORTS = 1024


class Ports:
    """Compares the listening sockets with those the host knows."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: set[tuple[str, int]] = set()
        self._timer: int | None = None
        self._steps = 0

    def begin(self) -> None:
        """A host has come: it knows nothing yet."""
        self._known.clear()
        self._steps = 0
        self._agent.loop.cancel(self._timer)
        self._look()

    def _look(self) -> None:
        self._timer = None
        if not self._agent.link.session:
            return
        now = listening()
        for event, changed in (("open", now - self._known), ("closed", self._known - now)):
            for address, port in sorted(changed):
                self._agent.link.note("port", {"state": event, "address": address, "port": port})
        self._known = now
        self._steps += 1
        self._timer = self._agent.loop.after(_FAST_S if self._steps < _FAST_STEPS else _STEP_S, self._look)


def listening() -> set[tuple[str, int]]:
    """(address, port) of each listening socket."""
    found: set[tuple[str, int]] = set()
    for path in _FILES:
        try:
            found |= parse(read(path))
        except OSError:
            continue  # a kernel without IPv6
    return found


def parse(text: str) -> set[tuple[str, int]]:
    """The listening sockets of one of the two files."""
    found: set[tuple[str, int]] = set()
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN and len(found) < _MAX_PORTS:
            address, _, port = words[1].partition(":")
            found.add((address_of(address), int(port, 16)))
    return found


def address_of(digits: str) -> str:
    """An address as text; the file has each 32-bit word of it in this machine's order of bytes."""
    raw = bytes.fromhex(digits)
    turned = b"".join([raw[at : at + 4][::-1] for at in range(0, len(raw), 4)])
    return _socket.inet_ntop(_socket.AF_INET if len(raw) == 4 else _socket.AF_INET6, turned)
