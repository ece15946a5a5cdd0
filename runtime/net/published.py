"""Published ports: listeners of the host, TCP or UDP, that lead into a zone."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from pipeline.bundle.model import Port
from runtime.net.errors import NetworkFault, PortTaken
from runtime.net.sockets import bind_udp, listen


@dataclass
class Published:
    """A port of this host. served: the engine has its listener; until then connections wait."""

    address: str
    port: int
    zone_port: int
    listener: socket.socket
    served: bool = False
    protocol: str = "tcp"

    @property
    def key(self) -> str:
        """What the engine knows it by."""
        return key_of(self.address, self.port, self.protocol)

    def fields(self) -> dict[str, str | int]:
        """What the ledger says of it."""
        fields: dict[str, str | int] = {"address": self.address, "port": self.port, "zone_port": self.zone_port}
        return fields if self.protocol == "tcp" else {**fields, "protocol": self.protocol}

    @classmethod
    def lost(cls, address: str, port: int, zone_port: int, protocol: str) -> Published:
        """One that a ledger knows and whose listener this process does not have."""
        listener = socket.socket()
        listener.close()
        return cls(address, port, zone_port, listener, protocol=protocol)


def key_of(address: str, port: int, protocol: str) -> str:
    """`address:port` for TCP, `address:port/udp` for UDP."""
    return f"{address}:{port}" + ("" if protocol == "tcp" else f"/{protocol}")


def protocol_of(listener: socket.socket) -> str:
    """tcp or udp."""
    return "udp" if listener.type == socket.SOCK_DGRAM else "tcp"


def listen_on(zone: str, port: Port) -> Published:
    """Take a port of the calling thread's namespace. Raises PortTaken, NetworkFault."""
    subject = f"port {key_of(port.host_address, port.host_port, port.protocol)} of zone {zone}"
    if port.protocol not in ("tcp", "udp"):
        raise NetworkFault(subject, expected="protocol tcp or udp", got=port.protocol)
    try:
        take = listen if port.protocol == "tcp" else bind_udp
        listener = take(port.host_address, port.host_port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "choose another one, or stop what uses it"
            raise PortTaken(subject, expected="it free", got="taken by another program", hint=hint) from None
        raise NetworkFault(subject, expected="to listen there", got=str(error)) from error
    address, number = listener.getsockname()[:2]
    return Published(address, number, port.zone_port, listener, protocol=port.protocol)
