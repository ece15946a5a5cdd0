"""Listeners whose connections become relays: TPROXY, published ports."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from runtime.net.engine.flows import Flow, HasFlows, endpoint
from runtime.net.engine.hostports import HostPorts
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.pipes import PipeShare
from runtime.net.engine.queues import Queues
from runtime.net.engine.relay import Relay, Target, reset

_PAUSE_S = 1.0

# Takes an accepted connection and who it is from.
TargetsOf = Callable[[socket.socket, tuple[str, int]], Sequence[Target]]


class Traffic:
    """The counters and limits that all that an engine does for one zone share.

    pipes:  the zone's part of the engine's; the loop's if there is none.
    ports:  the host's; without, there are enough of them.
    """

    def __init__(self, limits: Limits, pipes: PipeShare | None = None, ports: HostPorts | None = None) -> None:
        self.limits, self.pipes, self.queues, self._ports = limits, pipes, Queues(limits.growing), ports
        self.counts = {
            "accepted": 0,
            "denied": 0,
            "failed": 0,
            "limited": 0,
            "malformed": 0,
            "udp_flows": 0,
            "echoes": 0,
            "published": 0,
            "bytes_up": 0,
            "bytes_down": 0,
            "lost": 0,
            "dns_queries": 0,
            "dns_failed": 0,
        }
        self.relays: set[Relay] = set()  # of the zone's own connections
        self.inward: set[Relay] = set()  # of clients of published TCP ports
        self.held: dict[bytes, Any] = {}  # the gate's, by key
        self.flows: dict[bytes, Any] = {}  # of UDP to the outside, by key
        self.clients: dict[Any, Any] = {}  # of published UDP ports
        self.queries: set[Any] = set()  # of DNS that a resolver has not answered: by UDP, over TCP
        self.sources: list[HasFlows] = []

    def full(self, held: int, most: int) -> bool:
        """Has what takes a port of the host's for each to do with those it holds?"""
        return held >= most or (self._ports is not None and self._ports.scarce(held))

    def snapshot(self) -> dict[str, int]:
        """The counters now; running connections included."""
        counts = dict(self.counts)
        for relays, up, down in ((self.relays, 0, 1), (self.inward, 1, 0)):
            for relay in relays:
                counts["bytes_up"] += relay.sent_bytes[up]
                counts["bytes_down"] += relay.sent_bytes[down]
        counts.update(active=len(self.relays) + len(self.inward), pending=len(self.held))
        counts.update(udp_active=len(self.flows) + len(self.clients))
        return counts


class Acceptor:
    """Accepts on one listener and asks `targets_of` where each connection leads; where it is nowhere, it is reset.

    counter:  what a connection counts as; inward: it comes from outside, so its bytes count the other way, and clients
              that stay take no connection of the zone's own.
    divert:   asked where it is nowhere; says True where it has taken the connection for itself.
    """

    def __init__(
        self,
        loop: Loop,
        traffic: Traffic,
        listener: socket.socket,
        targets_of: TargetsOf,
        *,
        counter: str,
        inward: bool = False,
        divert: Callable[[socket.socket], bool] = lambda near: False,
    ) -> None:
        self._loop, self._traffic, self._listener = loop, traffic, listener
        self._targets_of, self._counter, self._inward, self._divert = targets_of, counter, inward, divert
        limits = traffic.limits
        self._relays, self._most = (traffic.inward, limits.inward) if inward else (traffic.relays, limits.connections)
        self._paused_until = 0.0
        # Of each relay: its accepted socket, where it leads, since when.
        self._taken: dict[Relay, tuple[socket.socket, Sequence[Target], float]] = {}
        traffic.sources.append(self)
        listener.setblocking(False)
        # What is accepted has it, too. The peers have their own ideas of when to wait for more; a second wait on top of
        # theirs helps nobody.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._family: int = listener.family
        loop.watch(listener, self, READ)

    @property
    def listener(self) -> socket.socket:
        """What it accepts on."""
        return self._listener

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take one connection: others of the loop get their turn between two of them."""
        try:
            near, peer = self._accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            # Out of descriptors or memory: the listener stays readable and would keep the loop busy.
            self._paused_until = time.monotonic() + _PAUSE_S
            self._loop.watch(source, self, 0)
            self._loop.urgent.add(self)
            return
        full = len(self._relays) >= self._most
        targets: Sequence[Target] = ()
        if not full:
            try:
                targets = self._targets_of(near, peer)
            except OSError:  # gone before it was looked at
                pass
        if not targets and self._divert(near):
            return
        counts = self._traffic.counts
        counts[self._counter] += 1
        if full:
            counts["limited"] += 1
            reset(near)
            return
        shared = (self._traffic.pipes, self._traffic.queues)
        relay = Relay(self._loop, self._traffic.limits, near, targets, self._ended, *shared)
        self._taken[relay] = (near, targets, self._loop.now)
        self._relays.add(relay)
        relay.start()

    def _accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """As socket.accept does, without asking four times which family it is. Raises OSError."""
        fd, peer = self._listener._accept()  # type: ignore[attr-defined]
        near = socket.SocketType(self._family, socket.SOCK_STREAM, 0, fd)
        return cast(socket.socket, near), peer

    def _ended(self, relay: Relay, connected: bool) -> None:
        self._relays.discard(relay)
        del self._taken[relay]
        self._list_no_more()
        counts = self._traffic.counts
        if not connected:
            counts["failed"] += 1
        sent, received = relay.sent_bytes
        counts["bytes_down" if self._inward else "bytes_up"] += sent
        counts["bytes_up" if self._inward else "bytes_down"] += received

    def flows(self, now: float) -> Iterator[Flow]:
        """See flows.HasFlows."""
        for relay, (near, targets, began) in self._taken.items():
            try:
                peer, local = endpoint(near.getpeername()), endpoint(near.getsockname())
            except OSError:  # it is ending
                continue
            zone, outer = (endpoint(targets[0].address), peer) if self._inward else (peer, local)
            up, down = relay.sent_bytes[::-1] if self._inward else relay.sent_bytes
            yield Flow("tcp", zone, outer, "open" if relay.connected else "connecting", up, down, now - began)

    def tick(self, now: float) -> None:
        """End a pause."""
        if now >= self._paused_until:
            self._loop.urgent.discard(self)
            self._loop.watch(self._listener, self, READ)

    def abort(self) -> None:
        """One connection failed in an unforeseen way; the listener stays."""

    def close(self) -> None:
        """Stop listening; connections taken go on."""
        self._loop.discard(self)
        self._loop.forget(self._listener)
        self._listener.close()
        self._list_no_more()

    def _list_no_more(self) -> None:
        if not self._taken and self._listener.fileno() < 0:
            self._traffic.sources.remove(self)
