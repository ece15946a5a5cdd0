"""The engine's process: reads its config from standard input, gives up its privileges, serves until it is killed.

It holds no state outside itself, so SIGKILL is a proper end. The zone's TCP is accepted before the outer connect is
known to succeed: a refused destination reaches the zone as connect, then reset. The SYN gate that answers first and
truthfully belongs to the engine that replaces this one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from runtime.net.engine import confine
from runtime.net.engine.acceptor import Acceptor, Traffic, inward, outward
from runtime.net.engine.control import ControlServer
from runtime.net.engine.dns import Resolvers, UdpForwarder, tcp_targets
from runtime.net.engine.flows import page
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import EngineConfig, load
from runtime.net.netlink import Rtnetlink

log = logging.getLogger(__name__)

MAX_PUBLISHED = 200  # all of them go back in one packet


class Server:
    """All parts of one network's engine in one loop."""

    def __init__(self, config: EngineConfig, factory: confine.SocketFactory) -> None:
        self._config, self._factory = config, factory
        self.loop, self._traffic = Loop(), Traffic(config.limits)
        self._published: dict[str, tuple[int, Acceptor]] = {}
        listeners = config.listeners
        # In the order of Listeners, the control socket excepted, which is never handed back.
        self._inside = [socket.socket(fileno=fd) for fd in listeners[:-1]]
        tcp4, tcp6, dns_udp4, dns_udp6, dns_tcp4, dns_tcp6 = self._inside
        resolvers = self._resolvers = Resolvers(config.resolvers)
        to_outside = outward(Rtnetlink(), config.denied())
        for listener in (tcp4, tcp6):
            Acceptor(self.loop, self._traffic, listener, to_outside, counter="accepted")
        for listener in (dns_tcp4, dns_tcp6):
            Acceptor(self.loop, self._traffic, listener, tcp_targets(resolvers), counter="dns_queries")
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
        if operation == "unpublish":
            _, acceptor = self._published.pop(str(request["key"]), (0, None))
            if acceptor is None:
                return {"error": f"{request['key']} is not published"}
            acceptor.close()
            return {}
        if operation == "handback":
            back += [*self._inside, *(acceptor.listener for _, acceptor in self._published.values())]
            return {"published": [[key, zone_port] for key, (zone_port, _) in self._published.items()]}
        return {"error": f"unknown operation {operation!r}"}

    def _publish(self, key: str, zone_port: int, listener: socket.socket) -> dict[str, Any]:
        if key in self._published or len(self._published) >= MAX_PUBLISHED:
            listener.close()
            return {"error": f"{key} is published already" if key in self._published else "too many ports"}
        to_zone = inward(self._factory.make, self._config.zone4, self._config.zone6, zone_port)
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
    confine.bound_descriptors(2 * config.limits.connections + config.limits.dns_pending + 256)
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
