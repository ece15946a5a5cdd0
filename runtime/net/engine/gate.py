"""The SYN gate: a zone's SYN is held until the outer connect has an outcome, and the zone sees that outcome.

    zone -- SYN --> guard -- copy --> Gate -- connect --> outside
                      |                 |  succeeded: the SYN goes on, through `lo` and TPROXY to the listener,
                    dropped             |             and the connection accepted from it gets the outer socket
                                        |  refused:   RST          unreachable: the same ICMP error
                                        |  silence:   silence; the zone sends its SYN again, as to anybody

The kernel's TCP never sees a SYN that has no outer connection, so it cannot answer one. A SYN sent again while its
connect runs changes nothing: one connect. One sent again after that is passed on again.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import cast

from pipeline.bundle.egress import TCP
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.egress import Egress
from runtime.net.engine.feedback import EXPIRED, Feedback, next_error, queue_errors, trouble_of
from runtime.net.engine.flows import Flow, endpoint
from runtime.net.engine.loop import GONE, WRITE, Loop
from runtime.net.engine.packet import Syn, ends_of, key_of, read_syn
from runtime.net.engine.relay import NEWS, Target

# A SYN with fewer hops left than any operating system starts with belongs to a traceroute.
FEW_HOPS = 32
_REMEMBERED = 1024  # connections whose SYN may come once more
_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK)


class Held:
    """One SYN and its outer connect; then, until the connection is accepted, the connected socket."""

    __slots__ = ("began", "deadline", "far", "gate", "open", "seen", "syn")

    def __init__(self, gate: Gate, syn: Syn, far: socket.socket) -> None:
        self.gate, self.syn, self.far = gate, syn, far
        self.began = gate.loop.now
        self.deadline = self.began + gate.traffic.limits.connect_timeout_s
        self.open = False
        self.seen = 0  # of NEWS since it is, for whoever gets the connection

    def ready(self, source: socket.socket, mask: int) -> None:
        """The connect has an outcome; or the server hung up before the zone's connection was accepted."""
        if self.open:
            self.seen |= mask
            return
        code = self.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & GONE else 0
        if code or mask & WRITE:
            self.seen = mask & ~WRITE
            self.gate.settle(self, code)
        else:
            next_error(self.far)  # an error that ends nothing

    def tick(self, now: float) -> None:
        """Give up what takes too long."""
        if now >= self.deadline:
            self.gate.traffic.counts["failed"] += 1
            self.gate.drop(self)

    def abort(self) -> None:
        """Give up at once."""
        self.gate.drop(self)


class Gate:
    """Takes SYNs from the packet sockets of a network's bridge."""

    def __init__(
        self,
        loop: Loop,
        traffic: Traffic,
        egress: Egress,
        feedback: Feedback,
    ) -> None:
        self.traffic = traffic
        self.loop, self._egress, self._feedback = loop, egress, feedback
        self._held: dict[bytes, Held] = traffic.held
        traffic.sources.append(self)
        self._accepted: dict[bytes, bytes] = {}  # the last ones: key, sequence

    def take(self, packet: bytes) -> None:
        """One packet of the zone's that the filter of the packet socket took for a bare SYN."""
        syn = read_syn(packet)
        if syn is None:
            self.traffic.counts["malformed"] += 1
            return
        held = self._held.get(syn.key)
        if held is not None:
            held.syn = syn  # the zone may have given up and begun anew, from the same port
            if held.open:
                self._pass_on(syn)
        elif self._accepted.get(syn.key) == syn.sequence:
            self._pass_on(syn)  # late; the connection it belongs to knows it
        else:
            self._consider(syn)

    def _consider(self, syn: Syn) -> None:
        counts, limits = self.traffic.counts, self.traffic.limits
        if not self._egress.allows(syn.host, syn.port, TCP):
            counts["denied"] += 1
            self._feedback.refuse(syn)
        elif len(self.traffic.relays) >= limits.connections:
            counts["limited"] += 1
            self._feedback.refuse(syn)
        elif syn.hops <= 1:
            self._feedback.error(syn.family, syn.packet, EXPIRED[syn.family])
        else:
            if len(self._held) >= limits.pending:
                # The oldest: what answers at all answers long before a black hole is that old.
                counts["limited"] += 1
                self.drop(next(iter(self._held.values())))
            self._connect(syn)

    def _connect(self, syn: Syn) -> None:
        try:
            # Without Python's wrapper, which costs more than the socket.
            far = cast(socket.socket, socket.SocketType(syn.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        except OSError:  # out of descriptors: silence, the zone tries again
            self.traffic.counts["limited"] += 1
            return
        held = Held(self, syn, far)
        self._held[syn.key] = held
        queue_errors(far, syn.family, wanted=True)
        if syn.hops <= FEW_HOPS:
            set_hops(far, syn.hops - 1)
        code = far.connect_ex((self._egress.outer(syn.host), syn.port))
        if code in _PENDING:
            self.loop.urgent.add(held)
            self.loop.watch(far, held, NEWS)  # it stays watched, for whoever gets the connection
        else:
            self.settle(held, code)

    def settle(self, held: Held, code: int) -> None:
        """The outer connect succeeded (0) or failed: tell the zone."""
        syn = held.syn
        if code:
            self.traffic.counts["failed"] += 1
            reported = next_error(held.far)
            self.drop(held)
            if code == errno.ECONNREFUSED:
                self._feedback.refuse(syn)
            elif reported is not None:
                self._feedback.error(syn.family, syn.packet, *reported)
            elif (trouble := trouble_of(code, syn.family)) is not None:
                self._feedback.error(syn.family, syn.packet, trouble)
            return
        queue_errors(held.far, syn.family, wanted=False)
        if syn.hops <= FEW_HOPS:
            set_hops(held.far, -1)
        held.open = True
        held.deadline = self.loop.now + self.traffic.limits.accept_timeout_s
        self.loop.urgent.add(held)
        self._pass_on(syn)

    def _pass_on(self, syn: Syn) -> None:
        self._feedback.send(syn.family, syn.packet, syn.host)

    def targets_of(self, near: socket.socket, peer: tuple[str, int]) -> list[Target]:
        """Where a connection accepted behind the gate leads: nowhere, if its outer one is gone. Raises OSError.

        Whoever is given a target makes its socket, which may be watched already.
        """
        local = near.getsockname()
        held = self._held.get(key_of(peer, local))
        if held is None or not held.open:
            return []
        far = held.far
        self._forget(held)
        self._accepted.pop(held.syn.key, None)
        self._accepted[held.syn.key] = held.syn.sequence
        if len(self._accepted) > _REMEMBERED:
            del self._accepted[next(iter(self._accepted))]
        return [Target(near.family, local[:2], lambda family, kind: far, connected=True, seen=held.seen)]

    def flows(self, now: float) -> Iterator[Flow]:
        """See flows.HasFlows: the connections that are not made yet."""
        for held in self._held.values():
            zone, outside = map(endpoint, ends_of(held.syn.key))
            yield Flow("tcp", zone, outside, "connecting", 0, 0, now - held.began)

    def rerouted(self) -> None:
        """The zone sends its SYN again, and that is judged and connected anew, see rerouting.py."""
        for held in list(self._held.values()):
            if not self._egress.holds(held.syn.host, held.far):
                self.drop(held)

    def drop(self, held: Held) -> None:
        """Close the outer side; the zone hears nothing of it."""
        self._forget(held)
        self.loop.close(held.far)

    def _forget(self, held: Held) -> None:
        if self._held.get(held.syn.key) is held:
            del self._held[held.syn.key]
        self.loop.discard(held)


def set_hops(connection: socket.socket, hops: int) -> None:
    """Set time to live or hop limit of what a socket sends; -1 for the usual."""
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
    else:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
