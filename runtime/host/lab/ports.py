"""Ports of this machine that lead into dom0: added and removed while QEMU runs; QEMU's own list is the truth."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from runtime.errors import RuntimeFault
from runtime.host.lab.errors import LabFailed, PortTaken, QmpError
from runtime.host.lab.qemu import NETDEV
from runtime.host.lab.qmp import Qmp

# A line of `info usernet`: protocol[state] fd source-address source-port destination-address destination-port queues.
RULE = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s", re.M)
ANY = {"*": "0.0.0.0"}


class HostPort(NamedTuple):
    """A port of this machine."""

    address: str
    port: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        suffix = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"port {self.port}{suffix} on {self.address}"


class BadAddress(RuntimeFault):
    """An address that cannot be forwarded from."""


def find_free(wanted: Iterable[HostPort]) -> list[int]:
    """The numbers of ports that could be forwarded, all at once; for 0 one that is free.

    Raises:  PortTaken or BadAddress where nothing could listen on one of them.
    """
    with contextlib.ExitStack() as held:
        return [int(held.enter_context(_probe(end)).getsockname()[1]) for end in wanted]


def _probe(end: HostPort) -> socket.socket:
    check_address(end.address)
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if end.protocol == "udp" else socket.SOCK_STREAM)
    try:
        if end.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU: a port in TIME_WAIT is free
        probe.bind((end.address, end.port))
        if end.protocol == "tcp":
            # Two sockets may bind with SO_REUSEADDR; only one may listen.
            probe.listen(1)
    except OSError as error:
        probe.close()
        raise _taken(end, error) from error
    return probe


def check_address(address: str) -> None:
    """Raise BadAddress unless it is an IPv4 address: QEMU forwards from no other."""
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise BadAddress(f"host address {address!r}", expected="an IPv4 address of this machine", got=address) from None


def _taken(end: HostPort, error: OSError) -> RuntimeFault:
    if error.errno == errno.EADDRNOTAVAIL:
        return BadAddress(f"host address {end.address}", expected="an address of this machine", got="another")
    if error.errno == errno.EACCES:
        return PortTaken(str(end), expected="a port you may use", got="one that only root may use")
    return PortTaken(str(end), expected="it free", got="in use by another program", hint="give another host port")


def forwards(qmp: Qmp) -> dict[HostPort, int]:
    """Every forward: from where here, to which port of dom0."""
    text = str(qmp.execute("human-monitor-command", {"command-line": "info usernet"}))
    return {
        HostPort(ANY.get(rule[2], rule[2]), int(rule[3]), rule[1].lower()): int(rule[5]) for rule in RULE.finditer(text)
    }


def add(qmp: Qmp, end: HostPort, dom0_port: int) -> None:
    """Forward a port, unless just this is forwarded already. Raises PortTaken, BadAddress, QmpError."""
    existing = forwards(qmp)
    if existing.get(end) == dom0_port:
        return
    if end in existing:
        raise PortTaken(str(end), expected="it free", got="published by another zone of this lab")
    find_free([end])
    try:
        qmp.human(f"hostfwd_add {NETDEV} {end.protocol}:{end.address}:{end.port}-:{dom0_port}")
    except QmpError as error:
        if "Could not set up" in error.got:
            raise PortTaken(str(end), expected="it free", got="in use by another program") from error
        raise


def add_any(qmp: Qmp, address: str, dom0_port: int) -> int:
    """Forward a TCP port that is free to one of dom0, unless one is already; which one. Raises QmpError, LabFailed."""
    for tries in range(2):
        for end, to in forwards(qmp).items():
            if (end.address, end.protocol, to) == (address, "tcp", dom0_port):
                return end.port
        if tries == 0:
            qmp.human(f"hostfwd_add {NETDEV} tcp:{address}:0-:{dom0_port}")
    raise LabFailed("QEMU", expected=f"a forward to port {dom0_port} of dom0", got="none in its list")


def remove(qmp: Qmp, end: HostPort) -> None:
    """Forward a port no longer. No error when it was not forwarded."""
    check_address(end.address)
    qmp.human(
        f"hostfwd_remove {NETDEV} {end.protocol}:{end.address}:{end.port}",
        expect=lambda text: "removed" in text or "not found" in text,
    )
