"""Which ports somebody in the zone listens on, told to the host as they open and close; for UDP, which are bound.

Looked up in /proc/net, and only while a host is there: a kernel without the inet_diag module has no other way. UDP
sockets with a port of the kernel's own choice are not told: nearly all are clients', and come and go.
Source:  Documentation/networking/proc_net_tcp.rst; include/net/tcp_states.h.
"""

import _socket

from runtime.init.agent.cgroup import read
from runtime.init.agent.core import Agent

_FILES = {"tcp": ("/proc/net/tcp", "/proc/net/tcp6"), "udp": ("/proc/net/udp", "/proc/net/udp6")}
_STATES = {"tcp": "0A", "udp": "07"}  # LISTEN; CLOSE, which is a UDP socket without a peer
_CHOSEN = "/proc/sys/net/ipv4/ip_local_port_range"
_STEP_S, _FAST_S, _FAST_STEPS = 1.0, 0.2, 50  # often after the start of a session, when workloads open theirs
_MAX_PORTS = 1024

Found = set[tuple[str, str, int]]
"""(protocol, address, port)"""


class Ports:
    """Compares the listening sockets with those the host knows."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: Found = set()  # at the last look
        self._told: Found = set()  # to this host
        self._timer: int | None = None
        self._steps = 0

    def begin(self) -> None:
        """A host has come: it is told all that is open, and what an earlier one knew and is so no longer."""
        self._told = set()
        self._steps = 0
        self._agent.loop.cancel(self._timer)
        self._look()

    def _look(self) -> None:
        self._timer = None
        if not self._agent.link.session:
            return
        now = listening("tcp") | without(listening("udp"), chosen())
        for event, changed in (("open", now - self._told), ("closed", self._known - now)):
            for protocol, address, port in sorted(changed):
                note = {"state": event, "protocol": protocol, "address": address, "port": port}
                self._agent.link.note("port", note)
        self._known = self._told = now
        self._steps += 1
        self._timer = self._agent.loop.after(_FAST_S if self._steps < _FAST_STEPS else _STEP_S, self._look)


def listening(protocol: str) -> Found:
    """Each listening socket of a protocol."""
    found: Found = set()
    for path in _FILES[protocol]:
        try:
            found |= parse(read(path), protocol)
        except OSError:
            continue  # a kernel without IPv6
    return found


def is_open(found: Found, port: int) -> bool:
    """Can this port be reached from outside of the zone?"""
    return any(number == port and not address.startswith("127.") and address != "::1" for _, address, number in found)


def chosen() -> range:
    """The ports the kernel gives to sockets that ask for none."""
    try:
        first, last = read(_CHOSEN).split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return range(0)


def without(found: Found, left_out: range) -> Found:
    """Those with other ports."""
    return {item for item in found if item[2] not in left_out}


def parse(text: str, protocol: str) -> Found:
    """The listening sockets of one of the files."""
    found: Found = set()
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == _STATES[protocol] and len(found) < _MAX_PORTS:
            address, _, port = words[1].partition(":")
            found.add((protocol, address_of(address), int(port, 16)))
    return found


def address_of(digits: str) -> str:
    """An address as text; the file has each 32-bit word of it in this machine's order of bytes."""
    raw = bytes.fromhex(digits)
    turned = b"".join([raw[at : at + 4][::-1] for at in range(0, len(raw), 4)])
    return _socket.inet_ntop(_socket.AF_INET if len(raw) == 4 else _socket.AF_INET6, turned)
