"""Published ports: listeners of the host that lead into a zone."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from pipeline.bundle.model import Port
from runtime.net.errors import NetworkFault, PortTaken
from runtime.net.sockets import listen


@dataclass
class Published:
    """A port of this host. served: the engine has its listener; until then connections wait."""

    address: str
    port: int
    zone_port: int
    listener: socket.socket
    served: bool = False

    @property
    def key(self) -> str:
        """What the engine knows it by."""
        return f"{self.address}:{self.port}"

    def fields(self) -> dict[str, str | int]:
        """What the ledger says of it."""
        return {"address": self.address, "port": self.port, "zone_port": self.zone_port}

    @classmethod
    def lost(cls, address: str, port: int, zone_port: int) -> Published:
        """One that a ledger knows and whose listener this process does not have."""
        listener = socket.socket()
        listener.close()
        return cls(address, port, zone_port, listener)


def listen_on(zone: str, port: Port) -> Published:
    """Take a port of the calling thread's namespace. Raises PortTaken, NetworkFault."""
    subject = f"port {port.host_address}:{port.host_port} of zone {zone}"
    if port.protocol != "tcp":
        raise NetworkFault(subject, expected="protocol tcp", got=port.protocol)
    try:
        listener = listen(port.host_address, port.host_port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "choose another one, or stop what uses it"
            raise PortTaken(subject, expected="it free", got="taken by another program", hint=hint) from None
        raise NetworkFault(subject, expected="to listen there", got=str(error)) from error
    address, number = listener.getsockname()[:2]
    return Published(address, number, port.zone_port, listener)
