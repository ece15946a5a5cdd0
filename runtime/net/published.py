"""Published ports: listeners of the host, TCP or UDP, that lead into a zone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.bundle.model import Port
from runtime.errors import RuntimeFault
from runtime.net.errors import NetworkFault, PortTaken
from runtime.net.sockets import bind_udp, listen


@dataclass
class Published:
    """A port of this host. served: the engine has its listener; until then connections wait.

    asked:  the engine may have it, though it has not said so.
    """

    address: str
    port: int
    zone_port: int
    listener: socket.socket
    served: bool = False
    protocol: str = "tcp"
    asked: bool = False

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


class PublishedPorts:
    """The ports a zone's network has, by their keys.

    take:  tells the ledger, before anything is taken.
    """

    def __init__(self, zone: str, take: Callable[..., None]) -> None:
        self._zone, self._take = zone, take
        self._by_key: dict[str, Published] = {}

    def __iter__(self) -> Iterator[Published]:
        return iter(list(self._by_key.values()))

    def listen(self, ports: Iterable[Port]) -> tuple[tuple[str, int], ...]:
        """Listen for all of them or none; where. Raises PortTaken, NetworkFault."""
        taken: list[Published] = []
        try:
            for port in ports:
                taken.append(listen_on(self._zone, port))
            for item in taken:
                self._take("net.listener", **item.fields())
        except BaseException:
            for item in taken:
                item.listener.close()
            raise
        self._by_key |= {item.key: item for item in taken}
        return tuple((item.address, item.port) for item in taken)

    def use(self, listeners: Iterable[tuple[Port, socket.socket]]) -> None:
        """Have duplicates of listeners that stay the caller's."""
        for port, listener in listeners:
            address, number = listener.getsockname()[:2]
            item = Published(address, number, port.zone_port, listener.dup(), protocol=port.protocol)
            self._take("net.listener", **item.fields())
            self._by_key[item.key] = item

    def find(self, key: str) -> Published:
        """One of them. Raises NetworkFault where nothing is published."""
        item = self._by_key.get(key)
        if item is None:
            got = ", ".join(self._by_key) or "none"
            raise NetworkFault(f"port {key} of zone {self._zone}", expected="one that is published", got=got)
        return item

    def close(self, key: str) -> None:
        """Listen there no more."""
        self._by_key.pop(key).listener.close()

    def tell_gone(self, item: Published) -> None:
        """The ledger is to know one no more."""
        self._take("net.listener.gone", **item.fields())

    def know(self, record: Mapping[str, Any]) -> None:
        """One that a ledger knows; its listener is elsewhere, or lost."""
        protocol = record.get("protocol", "tcp")
        item = Published.lost(record["address"], record["port"], record["zone_port"], protocol)
        self._by_key[item.key] = item

    def take_back(self, served: Iterable[tuple[str, int, socket.socket]]) -> None:
        """Have the listeners that an engine serves: key, zone's port, listener."""
        for key, zone_port, listener in served:
            address, port = listener.getsockname()[:2]
            protocol = protocol_of(listener)
            self._by_key[key] = Published(address, port, zone_port, listener, served=True, protocol=protocol)

    def open_again(self) -> RuntimeFault | None:
        """Listen again where every process that did has ended; why one port is another program's by now."""
        failure: RuntimeFault | None = None
        for key, item in list(self._by_key.items()):
            if item.listener.fileno() >= 0:
                continue
            try:
                port = Port(item.address, item.port, item.zone_port, item.protocol)
                self._by_key[key] = listen_on(self._zone, port)
            except (PortTaken, NetworkFault) as fault:
                del self._by_key[key]
                self.tell_gone(item)
                failure = failure or fault
        return failure

    def forget_all(self) -> None:
        """Listen nowhere; the ledger is the caller's business."""
        for item in self._by_key.values():
            item.listener.close()
        self._by_key.clear()
