"""The engine's process: reads its config from standard input, gives up its privileges, serves until it is killed.

It holds no state outside itself, so SIGKILL is a proper end.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from pipeline.bundle.egress import parse_rule
from runtime.net.engine import confine, dns
from runtime.net.engine.acceptor import Acceptor, Traffic
from runtime.net.engine.control import ControlServer
from runtime.net.engine.dns import Resolvers, UdpForwarder
from runtime.net.engine.echo import Echoes
from runtime.net.engine.egress import Egress
from runtime.net.engine.feedback import Feedback
from runtime.net.engine.flows import page
from runtime.net.engine.gate import Gate
from runtime.net.engine.inflow import PublishedUdp, tcp_targets
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import INSIDE, MAX_PUBLISHED, EngineConfig, load
from runtime.net.engine.pipes import PipePool
from runtime.net.engine.tap import Tap
from runtime.net.engine.udp import Flows
from runtime.net.netlink import Rtnetlink

log = logging.getLogger(__name__)


class Server:
    """All parts of one network's engine in one loop."""

    def __init__(self, config: EngineConfig, factory: confine.SocketFactory) -> None:
        self._config, self._factory = config, factory
        self.loop, self._traffic = Loop(PipePool(config.limits.pipes)), Traffic(config.limits)
        self._published: dict[str, tuple[int, Acceptor | PublishedUdp]] = {}
        listeners = config.listeners
        self._inside = [socket.socket(fileno=getattr(listeners, name)) for name in INSIDE]
        tcp4, tcp6, udp4, udp6, dns_udp4, dns_udp6, dns_tcp4, dns_tcp6, packet4, packet6, raw4, raw6 = self._inside
        routes, gateways = Rtnetlink(), (config.gateway4, config.gateway6)
        egress = self._egress = Egress(routes, config.denied(), config.rules(), gateways)
        feedback = Feedback(raw4, raw6, gateways, routes, errors_per_s=config.limits.errors_per_s)
        gate = Gate(self.loop, self._traffic, egress, feedback)
        echo4, echo6 = (socket.socket(fileno=fd) for fd in (listeners.echo4, listeners.echo6))
        echoes = Echoes(self.loop, self._traffic, egress, feedback, (echo4, echo6), config.echo_identifier)
        for source in (packet4, packet6):
            Tap(self.loop, source, gate.take, echoes.take)
        for listener in (tcp4, tcp6):
            Acceptor(self.loop, self._traffic, listener, gate.targets_of, counter="accepted")
        flows = Flows(self.loop, self._traffic, egress, feedback, factory.make, mtu=config.mtu)
        for listener in (udp4, udp6):
            flows.listen(listener)
        resolvers = self._resolvers = Resolvers(config.resolvers)
        for listener in (dns_tcp4, dns_tcp6):
            Acceptor(self.loop, self._traffic, listener, dns.tcp_targets(resolvers), counter="dns_queries")
        for listener in (dns_udp4, dns_udp6):
            UdpForwarder(self.loop, self._traffic, listener, resolvers)
        ControlServer(self.loop, socket.socket(fileno=listeners.control), self._operate)

    def _operate(
        self, request: dict[str, Any], passed: list[socket.socket], back: list[socket.socket]
    ) -> dict[str, Any]:
        operation = request["op"]
        if operation == "status":
            return {"counters": {**self._traffic.snapshot(), "faults": self.loop.faults}}
        if operation == "flows":
            return {"flows": page(self._traffic.sources, list(map(str, request["after"])), time.monotonic())}
        if operation == "publish":
            (listener,) = passed
            return self._publish(str(request["key"]), int(request["zone_port"]), listener)
        if operation == "resolve":
            self._resolvers.replace(tuple(map(str, request["resolvers"])))
            return {}
        if operation == "egress":
            self._egress.replace(tuple(parse_rule(str(text)) for text in request["rules"]))
            return {}
        if operation == "unpublish":
            _, acceptor = self._published.pop(str(request["key"]), (0, None))
            if acceptor is None:
                return {"error": f"{request['key']} is not published"}
            acceptor.close()
            return {}
        if operation == "handback":
            back += [*self._inside, *(acceptor.listener for _, acceptor in self._published.values())]
            published = [[key, zone_port] for key, (zone_port, _) in self._published.items()]
            return {"inside": INSIDE, "published": published}
        return {"error": f"unknown operation {operation!r}"}

    def _publish(self, key: str, zone_port: int, listener: socket.socket) -> dict[str, Any]:
        if key in self._published or len(self._published) >= MAX_PUBLISHED:
            listener.close()
            return {"error": f"{key} is published already" if key in self._published else "too many ports"}
        zone4, zone6, make = self._config.zone4, self._config.zone6, self._factory.make
        if listener.type == socket.SOCK_DGRAM:
            zone = (zone4 if listener.family == socket.AF_INET else zone6, zone_port)
            self._published[key] = (zone_port, PublishedUdp(self.loop, self._traffic, listener, make, zone))
        else:
            to_zone = tcp_targets(make, zone4, zone6, zone_port)
            acceptor = Acceptor(self.loop, self._traffic, listener, to_zone, counter="published", inward=True)
            self._published[key] = (zone_port, acceptor)
        return {}


def main() -> None:
    """Run an engine. Effects: changes the user of this process."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    text = sys.stdin.readline()
    if not text:
        return  # whoever started this died before it said what to do
    config = load(text)
    limits = config.limits
    sockets = 2 * (limits.connections + limits.udp_flows + limits.pipes) + limits.pending + limits.dns_pending
    confine.bound_descriptors(sockets + 256)
    confine.forbid_new_privileges()
    confine.load_what_is_loaded_late()
    namespace = os.open(config.netns, os.O_RDONLY | os.O_CLOEXEC)
    confine.empty_root()
    factory = confine.SocketFactory(namespace)
    confine.become(config.uid)
    os.umask(0o077)
    server = Server(config, factory)
    confine.limit_calls(bytes.fromhex(config.seccomp))
    server.loop.run()
