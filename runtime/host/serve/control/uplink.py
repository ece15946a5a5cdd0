"""By which interface this host's default route leaves, and the addresses it has there."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

ROUTES = Path("/proc/net/route")
ADDRESSES6 = Path("/proc/net/if_inet6")
NETWORK_CLASS = Path("/sys/class/net")
SCOPE_GLOBAL = "00"
# include/uapi/linux/sockios.h; struct ifreq has the name first, then a struct sockaddr
SIOCGIFADDR = 0x8915
SIOCGIFNETMASK = 0x891B
IFREQ = struct.Struct("16s4x4s16x")


@dataclass(frozen=True)
class Uplink:
    """Addresses with their prefix lengths; "" for what there is none of."""

    interface: str = ""
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""


def uplink() -> Uplink:
    """Of this machine, now."""
    try:
        name = default_interface(ROUTES.read_text())
    except OSError:
        name = ""
    if not name:
        return Uplink()
    mac = _read(NETWORK_CLASS / name / "address").strip()
    return Uplink(name, _ipv4(name), global_ipv6(name, _read(ADDRESSES6)), mac)


def default_interface(routes: str) -> str:
    """The interface of the default route with the least metric, from /proc/net/route."""
    rows = [line.split() for line in routes.splitlines()[1:]]
    found = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    return min(found)[1] if found else ""


def global_ipv6(name: str, addresses: str) -> str:
    """The first global address of an interface, from /proc/net/if_inet6."""
    for line in addresses.splitlines():
        digits, _, prefix, scope, *_, interface = line.split()
        if interface == name and scope == SCOPE_GLOBAL:
            return f"{ipaddress.IPv6Address(int(digits, 16))}/{int(prefix, 16)}"
    return ""


def _ipv4(name: str) -> str:
    request = IFREQ.pack(name.encode(), bytes(4))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            address, mask = (
                IFREQ.unpack(fcntl.ioctl(door, call, request))[1] for call in (SIOCGIFADDR, SIOCGIFNETMASK)
            )
    except OSError:
        return ""
    return str(ipaddress.IPv4Interface((address, int.from_bytes(mask, "big").bit_count())))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
