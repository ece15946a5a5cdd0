"""One zone of a network's engine: its sockets, limits, counters, flows. Nothing here is another zone's."""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

from runtime.net.engine import dns
from runtime.net.engine.acceptor import Acceptor, Traffic
from runtime.net.engine.confine import SocketFactory
from runtime.net.engine.dns import Resolvers, UdpForwarder
from runtime.net.engine.dnsstream import StreamServer
from runtime.net.engine.echo import Echoes, Pinger
from runtime.net.engine.egress import Egress
from runtime.net.engine.feedback import Feedback
from runtime.net.engine.fragments import Gatherer
from runtime.net.engine.gate import Gate
from runtime.net.engine.hostports import HostPorts
from runtime.net.engine.inflow import PublishedUdp, tcp_targets
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import MAX_PUBLISHED, EngineConfig, ZonePart
from runtime.net.engine.names import Names
from runtime.net.engine.pipes import PipeShare
from runtime.net.engine.tap import Requests
from runtime.net.engine.udp import Flows
from runtime.net.netlink import Routes


class Common(NamedTuple):
    """What the zones of an engine share."""

    loop: Loop
    config: EngineConfig
    factory: SocketFactory
    routes: Routes
    resolvers: Resolvers
    names: Names
    ports: HostPorts


class Zone:
    """All that the engine does for one zone.

    inside:  its sockets in the order of model.INSIDE; they are this object's.
    Raises:  ValueError for rules that are none; OSError where there is no descriptor left.
    """

    def __init__(self, common: Common, part: ZonePart, inside: list[socket.socket]) -> None:
        config, rules = common.config, part.rules()
        # Alone, it needs no turns: a part costs an epoll_wait more for every few of them.
        loop = self._loop = common.loop.part() if config.zones > 1 else common.loop
        self.part, self.inside = part, inside
        self._common = common
        self._pipes = PipeShare(loop.pipes)
        self.traffic = Traffic(config.limits, self._pipes, common.ports)
        self.published: dict[str, tuple[int, Acceptor | PublishedUdp]] = {}
        with contextlib.ExitStack() as stack:
            stack.callback(self._watch_no_more)
            tcp4, tcp6, udp4, udp6, dns4, dns6, packet4, packet6, raw4, raw6, part4, part6, echo4, echo6 = inside
            gateways = (config.gateway4, config.gateway6)
            egress = self.egress = Egress(common.routes, config.denied(), rules, gateways)
            feedback = Feedback(raw4, raw6, gateways, common.routes, errors_per_s=config.limits.errors_per_s)
            gate = self._gate = Gate(loop, self.traffic, egress, feedback)
            pinger = Pinger(loop, (echo4, echo6), part.echo_identifier, wait_s=config.limits.echo_wait_s)
            self._echoes = Echoes(self.traffic, egress, feedback, pinger, mtu=config.mtu)
            ends = [socket.inet_pton(dns.family_of(each), each) for each in gateways]
            self._gatherer = Gatherer(loop, self.traffic, feedback, self._echoes, ends)
            for source in (part4, part6):
                self._gatherer.listen(source)
            requests = Requests(loop, gate.take, self._echoes.take)
            for source in (packet4, packet6):
                requests.listen(source)
            self._streams = StreamServer(loop, self.traffic, common.resolvers, common.names)
            self._name_servers = [(gateway, dns.PORT) for gateway in gateways]
            self._doors = [
                Acceptor(loop, self.traffic, tcp, gate.targets_of, counter="accepted", divert=self._is_dns)
                for tcp in (tcp4, tcp6)
            ]
            forwarders = [
                UdpForwarder(loop, self.traffic, each, common.resolvers, common.names) for each in (dns4, dns6)
            ]
            served = {at: each.take for at, each in zip(self._name_servers, forwarders, strict=True)}
            make = common.factory.make
            flows = self._flows = Flows(loop, self.traffic, egress, feedback, make, mtu=config.mtu, served=served)
            for udp in (udp4, udp6):
                flows.listen(udp)
            stack.pop_all()
        common.names.add(part.name, part.zone4, part.zone6)

    def _is_dns(self, near: socket.socket) -> bool:
        try:
            if near.getsockname()[:2] not in self._name_servers:
                return False
        except OSError:  # gone before it was looked at
            return False
        self._streams.serve(near)
        return True

    def publish(self, key: str, zone_port: int, listener: socket.socket) -> str:
        """Lead what comes to a listener to a port of the zone's; "" or what stands in the way.

        A key that is published is asked for again by who got no answer: what it has now counts, and TCP goes on.
        """
        if key in self.published:
            _, before = self.published.pop(key)
            before.close()
        elif len(self.published) >= MAX_PUBLISHED:
            listener.close()
            return "too many ports"
        loop, make = self._loop, self._common.factory.make
        if listener.type == socket.SOCK_DGRAM:
            host = self.part.zone4 if listener.family == socket.AF_INET else self.part.zone6
            self.published[key] = (
                zone_port,
                PublishedUdp(loop, self.traffic, listener, make, (host, zone_port)),
            )
        else:
            to_zone = tcp_targets(make, self.part.zone4, self.part.zone6, zone_port)
            acceptor = Acceptor(loop, self.traffic, listener, to_zone, counter="published", inward=True)
            self.published[key] = (zone_port, acceptor)
        return ""

    def rerouted(self) -> None:
        """See rerouting.py."""
        self._gate.rerouted()
        self._flows.rerouted()

    def close(self) -> None:
        """End all that the zone has here."""
        self._common.names.remove(self.part.name)
        for _, port in self.published.values():
            port.close()
        traffic = self.traffic
        relays = (*traffic.relays, *traffic.inward)
        for each in (*relays, *traffic.held.values(), *traffic.flows.values(), *traffic.clients.values()):
            each.abort()
        for each in list(traffic.queries):
            each.abort()
        self._streams.close()
        self._echoes.close()
        self._gatherer.close()
        for door in self._doors:
            door.close()
        self._watch_no_more()
        for each in self.inside:
            each.close()

    def _watch_no_more(self) -> None:
        for each in self.inside:
            self._loop.forget(each)
        self._pipes.close()
        self._loop.end()
