"""Bring up lo and the zone's interface from the launch data."""

import _socket
import posix

from runtime.init import abi, devices, netlink
from runtime.init.failure import BootFailure, os_failure, why


def configure(network: dict[str, object] | None, timeout_s: float) -> None:
    """lo up; then MTU, addresses and default routes of the interface, once it is there.

    Raises:  BootFailure "network" naming what the kernel refused.
    """
    link = Link()
    try:
        link.request("setting lo up", netlink.link_up(_socket.if_nametoindex("lo"), None, link.next()))
        if network is not None:
            _interface(link, network, timeout_s)
    except OSError as error:
        raise os_failure("network", "network set-up", error) from None
    except ValueError as error:
        raise BootFailure("network", f"network of the launch data: {error}") from None
    finally:
        link.close()


def _interface(link: "Link", network: dict[str, object], timeout_s: float) -> None:
    name, mtu = str(network["interface"]), network["mtu"]
    addresses, gateways = _words(network["addresses"]), _words(network["gateways"])
    rto_min_ms = network.get("rto_min_ms", 0)
    if not isinstance(mtu, int):
        raise ValueError(f"an mtu of {mtu!r}")
    if not isinstance(rto_min_ms, int):
        raise ValueError(f"an rto_min_ms of {rto_min_ms!r}")
    if not devices.wait_for(f"/sys/class/net/{name}", timeout_s):
        raise BootFailure("network", f"interface {name} did not appear within {timeout_s:.0f} s")
    # All addresses are static: what a neighbour advertises must not add routes of its own.
    _write_if_there(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", b"0")
    index = _socket.if_nametoindex(name)
    link.request(f"setting {name} up with mtu {mtu}", netlink.link_up(index, mtu, link.next()))
    for address in addresses:
        link.request(f"address {address} on {name}", netlink.add_address(index, address, link.next()))
    for gateway in gateways:
        route = netlink.add_default_route(index, gateway, addresses, link.next(), rto_min_ms)
        link.request(f"default route through {gateway}", route)


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _write_if_there(path: str, data: bytes) -> None:
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        posix.write(fd, data)
    finally:
        posix.close(fd)


class Link:
    """A netlink socket that sends one request at a time and reads its acknowledgement."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, abi.NETLINK_ROUTE)
        self._sequence = 0

    def next(self) -> int:
        """The sequence number for the request to come."""
        self._sequence += 1
        return self._sequence

    def request(self, what: str, message: bytes) -> None:
        """Send and wait for the answer. Raises BootFailure when the kernel refuses."""
        self._socket.send(message)
        while True:
            sequence, error = netlink.acknowledgement(self._socket.recv(65536))
            if sequence == self._sequence:
                break
        if error:
            raise BootFailure("network", f"{what}: {why(OSError(error, ''))}")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
