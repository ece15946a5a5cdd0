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
from ipaddress import ip_network
from typing import Any

from pipeline.bundle.egress import parse_rule
from runtime.net.engine import confine
from runtime.net.engine.control import ControlServer
from runtime.net.engine.datagrams import LARGEST
from runtime.net.engine.dns import Resolvers
from runtime.net.engine.flows import page
from runtime.net.engine.hostports import HostPorts
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import INSIDE, MAX_PUBLISHED, EngineConfig, Limits, ZonePart, load
from runtime.net.engine.names import Names
from runtime.net.engine.pipes import PipePool
from runtime.net.engine.placement import Placement
from runtime.net.engine.rerouting import Rerouting
from runtime.net.engine.zone import Common, Zone
from runtime.net.netlink import Routes
from runtime.net.pool import parse_pools, use

log = logging.getLogger(__name__)

Answer = dict[str, Any]
_OF_THE_ENGINE = 256  # descriptors that are of no zone
_OF_THE_ENGINE_BYTES = 128 << 20
_OBJECTS_BYTES = 8192  # what this process needs for one connection or flow beside its bytes


class Server:
    """All parts of one network's engine in one loop: its zones, and what they share."""

    def __init__(self, config: EngineConfig, factory: confine.SocketFactory, ports: HostPorts, room: int) -> None:
        """room: for how many zones there are descriptors."""
        self._config, self._room = config, min(config.zones, room)
        self.loop = loop = Loop(PipePool(config.limits.pipes), Placement())
        names = Names(tuple(map(ip_network, config.subnets)))
        self._resolvers = Resolvers(config.resolvers)
        self._common = Common(loop, config, factory, Routes(), self._resolvers, names, ports)
        self._zones: dict[str, Zone] = {}
        Rerouting(loop, self._common.routes, self._zones.values())
        ControlServer(loop, socket.socket(fileno=config.listeners.control), self._operate)

    def _operate(self, request: dict[str, Any], passed: list[socket.socket], back: list[socket.socket]) -> Answer:
        operation, name = request["op"], str(request.get("zone", ""))
        if operation == "status" and not name:
            return {"zones": sorted(self._zones)}
        if operation == "resolve":
            self._resolvers.replace(tuple(map(str, request["resolvers"])))
            return {}
        if operation == "admit":
            zone4, zone6 = map(str, request["addresses"])
            egress = tuple(map(str, request["egress"]))
            return self._admit(ZonePart(name, zone4, zone6, int(request["echo"]), egress), passed)
        zone = self._zones.get(name)
        if zone is None:
            for item in passed:
                item.close()
            return {"error": f"no zone {name!r} here", "unknown": True}
        if operation == "status":
            return {"counters": {**zone.traffic.snapshot(), "faults": self.loop.faults}}
        if operation == "flows":
            return {"flows": page(zone.traffic.sources, list(map(str, request["after"])), time.monotonic())}
        if operation == "publish":
            (listener,) = passed
            problem = zone.publish(str(request["key"]), int(request["zone_port"]), listener)
            return {"error": problem} if problem else {}
        if operation == "egress":
            zone.egress.replace(tuple(parse_rule(str(text)) for text in request["rules"]))
            return {}
        if operation == "unpublish":
            _, acceptor = zone.published.pop(str(request["key"]), (0, None))
            if acceptor is None:
                return {"error": f"{request['key']} is not published", "unknown": True}
            acceptor.close()
            return {}
        if operation == "handback":
            back += [*zone.inside, *(acceptor.listener for _, acceptor in zone.published.values())]
            published = [[key, zone_port] for key, (zone_port, _) in zone.published.items()]
            return {"inside": INSIDE, "published": published}
        if operation == "leave":
            self._zones.pop(name).close()
            return {}
        return {"error": f"unknown operation {operation!r}"}

    def _admit(self, part: ZonePart, passed: list[socket.socket]) -> Answer:
        problem = ""
        if len(passed) != len(INSIDE):
            problem = f"{len(passed)} sockets came for zone {part.name!r}, expected {len(INSIDE)}"
        elif part.name in self._zones:
            self._zones.pop(part.name).close()  # whoever asks got no answer, and has it served as it is now
        elif len(self._zones) >= self._room:
            problem = f"no room for more than {self._room} zones"
        if not problem:
            try:
                self._zones[part.name] = Zone(self._common, part, passed)
                return {}
            except OSError as error:
                problem = f"no place for zone {part.name!r}: {error}"
        for item in passed:
            item.close()
        return {"error": problem}


def _room(allowed: int, limits: Limits) -> int:
    """For how many zones so many descriptors do. For one always: where none are left, listeners rest."""
    return max(1, (allowed - _OF_THE_ENGINE) // _descriptors(limits))


def _descriptors(limits: Limits) -> int:
    """How many one zone may take."""
    streams = limits.connections + limits.inward + limits.dns_pending
    of_udp = 2 * limits.udp_flows + limits.udp_flows  # a client of a published port has one
    # One more, where others are beside it, for its part of the loop.
    return 2 * (streams + limits.pipes) + limits.pending + of_udp + len(INSIDE) + MAX_PUBLISHED + 1


def _memory_bytes(limits: Limits) -> int:
    """How much of this process's memory one zone may take; what waits in sockets and pipes is the kernel's."""
    connections = limits.connections + limits.inward
    others = limits.pending + 2 * limits.udp_flows + 2 * limits.dns_pending + limits.echoes
    # A SYN may carry data; of DNS there are a query by UDP, and what a connection's two sides have sent and are sent.
    messages = limits.pending + (1 + 4) * limits.dns_pending
    chunks_bytes = 2 * connections * limits.chunk_bytes + messages * LARGEST
    chunks_bytes += limits.fragments_bytes + 2 * LARGEST  # one that is whole is put together, and gets its header
    return chunks_bytes + (connections + others) * _OBJECTS_BYTES


def main() -> None:
    """Run an engine. Effects: changes the user of this process."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    text = sys.stdin.readline()
    if not text:
        return  # whoever started this died before it said what to do
    config = load(text)
    use(parse_pools(*config.pools))
    allowed = confine.bound_descriptors(config.zones * _descriptors(config.limits) + _OF_THE_ENGINE)
    room = _room(allowed, config.limits)
    confine.bound_memory(_OF_THE_ENGINE_BYTES + room * _memory_bytes(config.limits))
    confine.forbid_new_privileges()
    confine.load_what_is_loaded_late()
    namespace = os.open(config.netns, os.O_RDONLY | os.O_CLOEXEC)
    ports = HostPorts()
    confine.empty_root()
    factory = confine.SocketFactory(namespace)
    confine.become(config.uid)
    os.umask(0o077)
    server = Server(config, factory, ports, room)
    confine.limit_calls(bytes.fromhex(config.seccomp))
    server.loop.run()
