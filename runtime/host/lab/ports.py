"""Ports of this machine that lead into dom0: added and removed while QEMU runs; QEMU's own list is the truth."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket

from runtime.errors import RuntimeFault
from runtime.host.lab.errors import LabFailed, PortTaken, QmpError
from runtime.host.lab.qemu import NETDEV
from runtime.host.lab.qmp import Qmp

# A line of `info usernet`: protocol[state] fd source-address source-port destination-address destination-port queues.
RULE = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s", re.M)
ANY = {"*": "0.0.0.0"}


class BadAddress(RuntimeFault):
    """An address that cannot be forwarded from."""


def check_free(address: str, port: int) -> None:
    """Raise PortTaken or BadAddress where nothing could listen on this address and port of this machine."""
    check_address(address)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU: a port in TIME_WAIT is free
        try:
            probe.bind((address, port))
            # Two sockets may bind with SO_REUSEADDR; only one may listen.
            probe.listen(1)
        except OSError as error:
            raise _taken(address, port, error) from error


def check_address(address: str) -> None:
    """Raise BadAddress unless it is an IPv4 address: QEMU forwards from no other."""
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise BadAddress(f"host address {address!r}", expected="an IPv4 address of this machine", got=address) from None


def _taken(address: str, port: int, error: OSError) -> RuntimeFault:
    if error.errno == errno.EADDRNOTAVAIL:
        return BadAddress(f"host address {address}", expected="an address of this machine", got="another")
    if error.errno == errno.EACCES:
        return PortTaken(f"port {port} on {address}", expected="a port you may use", got="one that only root may use")
    return PortTaken(
        f"port {port} on {address}", expected="it free", got="in use by another program", hint="give another host port"
    )


def forwards(qmp: Qmp) -> list[tuple[str, int, int]]:
    """Every forward: (address here, port here, port in dom0)."""
    text = str(qmp.execute("human-monitor-command", {"command-line": "info usernet"}))
    return [(ANY.get(rule[1], rule[1]), int(rule[2]), int(rule[4])) for rule in RULE.finditer(text)]


def add(qmp: Qmp, address: str, port: int, dom0_port: int) -> None:
    """Forward a port, unless just this is forwarded already. Raises PortTaken, BadAddress, QmpError."""
    existing = {(item[0], item[1]): item[2] for item in forwards(qmp)}
    if existing.get((address, port)) == dom0_port:
        return
    if (address, port) in existing:
        raise PortTaken(f"port {port} on {address}", expected="it free", got="published by another zone of this lab")
    check_free(address, port)
    try:
        qmp.human(f"hostfwd_add {NETDEV} tcp:{address}:{port}-:{dom0_port}")
    except QmpError as error:
        if "Could not set up" in error.got:
            raise PortTaken(f"port {port} on {address}", expected="it free", got="in use by another program") from error
        raise


def add_any(qmp: Qmp, address: str, dom0_port: int) -> int:
    """Forward a port that is free to one of dom0, unless one is already; which one. Raises QmpError, LabFailed."""
    for tries in range(2):
        for item in forwards(qmp):
            if (item[0], item[2]) == (address, dom0_port):
                return item[1]
        if tries == 0:
            qmp.human(f"hostfwd_add {NETDEV} tcp:{address}:0-:{dom0_port}")
    raise LabFailed("QEMU", expected=f"a forward to port {dom0_port} of dom0", got="none in its list")


def remove(qmp: Qmp, address: str, port: int) -> None:
    """Forward a port no longer. No error when it was not forwarded."""
    check_address(address)
    qmp.human(
        f"hostfwd_remove {NETDEV} tcp:{address}:{port}", expect=lambda text: "removed" in text or "not found" in text
    )
