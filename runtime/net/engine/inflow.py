"""Connections and datagrams to published ports: they reach the zone in the name of who sent them.

In the namespace every address is local, so a socket there may have the client's; the zone's answers find it. A client
that has no name the zone could answer to (loopback, link-local, another family) comes from the gateway.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from runtime.net.engine.acceptor import TargetsOf, Traffic
from runtime.net.engine.datagrams import IP_PKTINFO, IPV6_PKTINFO, LARGEST, datagrams
from runtime.net.engine.flows import Flow, endpoint
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.relay import Target
from runtime.net.engine.session import Session, make_room, shorten_queues
from runtime.net.engine.udp import Address, MakeSocket
from runtime.net.pool import pools

_IP_BIND_ADDRESS_NO_PORT = 24  # the port is chosen at connect, unique by both ends: ip(7)
_BURST = 32  # answers moved before the loop's others get their turn
_QUESTIONS = 8  # the same for what clients send: each may be a new one

_buffer = bytearray(LARGEST)
_view = memoryview(_buffer)


def has_a_name(host: str) -> bool:
    """May a zone be told that a packet is from this address?"""
    address = ip_address(host.partition("%")[0])
    if address in (pools().v4 if address.version == 4 else pools().v6):
        return False
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def tcp_targets(make_socket: MakeSocket, zone4: str, zone6: str, zone_port: int) -> TargetsOf:
    """Targets of a published port: the zone, first by the client's own family and address."""

    def targets_of(near: socket.socket, peer: Address) -> Sequence[Target]:
        client, of = peer[0], near.family

        def named(family: int, kind: int) -> socket.socket:
            made = make_socket(family, kind)
            if family == of and has_a_name(client):
                made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                made.bind((client, 0))
            return made

        targets = [
            Target(socket.AF_INET, (zone4, zone_port), named),
            Target(socket.AF_INET6, (zone6, zone_port), named),
        ]
        return targets if of == socket.AF_INET else targets[::-1]

    return targets_of


class Inflow(Session):
    """Datagrams of one client."""

    __slots__ = ("_owner", "_reply", "client", "key")

    def __init__(
        self, owner: PublishedUdp, key: tuple[Address, bytes], client: Address, near: socket.socket, reply: bytes
    ) -> None:
        super().__init__(owner.traffic, near)
        self._owner, self.key, self.client, self._reply = owner, key, client, reply

    def ready(self, source: socket.socket, mask: int) -> None:
        """Answers of the zone."""
        for _ in range(self._owner.burst):
            try:
                size = source.recv_into(_buffer)
            except BlockingIOError:
                break
            except OSError:
                continue
            if self._owner.answer(_view[:size], self.client, self._reply):
                self.up_bytes += size
        self.answered = True
        self.last_active = time.monotonic()

    def abort(self) -> None:
        """See Session."""
        self._owner.end(self, self._near)


class PublishedUdp:
    """One published UDP port."""

    def __init__(
        self,
        loop: Loop,
        traffic: Traffic,
        listener: socket.socket,
        make_near: MakeSocket,
        zone: Address,
    ) -> None:
        self.traffic, self.listener = traffic, listener
        self._loop, self._make_near, self._zone = loop, make_near, zone
        self._flows: dict[tuple[Address, bytes], Inflow] = {}
        self.burst, self._questions = loop.burst(_BURST), loop.burst(_QUESTIONS)
        listener.setblocking(False)
        loop.watch(listener, self, READ)
        traffic.sources.append(self)

    def flows(self, now: float) -> Iterator[Flow]:
        """See flows.HasFlows."""
        for each in self._flows.values():
            zone, outside = endpoint(self._zone), endpoint(each.client)
            yield Flow("udp", zone, outside, "open", each.up_bytes, each.down_bytes, now - each.began)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take a few datagrams."""
        now = time.monotonic()
        pktinfo = (
            (socket.IPPROTO_IP, IP_PKTINFO) if source.family == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_PKTINFO)
        )
        for data, ancillary, client in datagrams(source, self._questions):
            asked = ancillary.get(pktinfo, b"")
            key = (client, asked)
            flow = self._flows.get(key) or self._begin(key, client, asked)
            if flow is not None:
                flow.last_active = now
                flow.deliver(data)

    def _begin(self, key: tuple[Address, bytes], client: Address, asked: bytes) -> Inflow | None:
        make_room(self.traffic.clients, self.traffic)
        try:
            near = self._make_near(self.listener.family, socket.SOCK_DGRAM)
        except OSError:  # out of descriptors
            self.traffic.counts["limited"] += 1
            return None
        try:
            near.setblocking(False)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if has_a_name(client[0]):
                near.bind(client[:2])
            near.connect(self._zone)
        except OSError:
            self.traffic.counts["failed"] += 1
            near.close()
            return None
        self.traffic.counts["published"] += 1
        flow = self._flows[key] = Inflow(self, key, client, near, asked)
        self.traffic.clients[self._identity(flow)] = flow
        shorten_queues(self.traffic.clients, near)
        self._loop.watch(near, flow, READ)
        self._loop.patient.add(flow)
        return flow

    def _identity(self, flow: Inflow) -> tuple[int, tuple[Address, bytes]]:
        return id(self), flow.key

    def answer(self, data: memoryview, client: Address, asked: bytes) -> bool:
        """Send the zone's answer from the address that the client asked; False where it was lost."""
        if self.listener.family == socket.AF_INET:
            # struct in_pktinfo: the route says the interface, not the way the question came.
            control = [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + asked[4:])] if asked else []
        else:
            local_link = client[0].startswith("fe80")
            control = [(socket.IPPROTO_IPV6, IPV6_PKTINFO, asked if local_link else asked[:16] + bytes(4))]
        try:
            self.listener.sendmsg([data], control, 0, client)
        except OSError:  # a full queue loses datagrams, as every queue does
            self.traffic.counts["lost"] += 1
            return False
        self.traffic.counts["bytes_up"] += len(data)
        return True

    def end(self, flow: Inflow, near: socket.socket) -> None:
        """Forget a client."""
        self._flows.pop(flow.key, None)
        self.traffic.clients.pop(self._identity(flow), None)
        self._loop.discard(flow)
        self._loop.forget(near)
        near.close()

    def close(self) -> None:
        """Publish no more."""
        for flow in list(self._flows.values()):
            flow.abort()
        self.traffic.sources.remove(self)
        self._loop.forget(self.listener)
        self.listener.close()

    def tick(self, now: float) -> None:
        """Clients have their own deadlines."""

    def abort(self) -> None:
        """One datagram failed in an unforeseen way; the port stays."""
