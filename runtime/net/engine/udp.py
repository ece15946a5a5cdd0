"""UDP of the zone to the outside: flows, each with a socket on either side.

The first datagram of a flow arrives at a listener behind TPROXY. From then on a socket of the namespace that is bound
to the outside's address and connected to the zone gets them, and gives the answers: TPROXY finds it, which passes over
those that are bound only; the kernel computes the checksums and puts fragments together. On the host a connected socket
takes answers from nobody else, and keeps the ICMP errors that come back for the zone.
Source: udp(7), ip(7), ipv6(7), Documentation/networking/tproxy.rst; idle time RFC 4787 section 4.3.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping

from pipeline.bundle.egress import UDP
from runtime.net.engine import flows as listed
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.datagrams import IP_ORIGDSTADDR, IPV6_ORIGDSTADDR, LARGEST, Ancillary, datagrams, hops_of, push
from runtime.net.engine.egress import Egress
from runtime.net.engine.feedback import EXPIRED, PROHIBITED, Feedback, next_error, queue_errors, too_big, trouble_of
from runtime.net.engine.gate import FEW_HOPS, set_hops
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.packet import Trouble, ends_of, udp_quote
from runtime.net.engine.session import Session, make_room, shorten_queues

MTU_DISCOVER: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
MTU: dict[int, tuple[int, int]] = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
FRAGMENT_NEVER, FRAGMENT_IF_NEEDED = 2, 1  # IP_PMTUDISC_DO, IP_PMTUDISC_WANT
_HEADERS_BYTES: dict[int, int] = {socket.AF_INET: 28, socket.AF_INET6: 48}
_BURST = 32  # datagrams moved before the loop's others get their turn
_BIRTHS = 4  # the same for first datagrams: a flow costs as much as 30 datagrams of it
_USUAL_HOPS = 64
_TOLD_S = 600.0  # so long a zone's kernel remembers what it was told of a way: ip-sysctl.rst, mtu_expires
_MOST_TOLD = 1024

_buffer = bytearray(LARGEST)
_view = memoryview(_buffer)

Address = tuple[str, int]
MakeSocket = Callable[[int, int], socket.socket]


class Flow(Session):
    """One pair of addresses and ports."""

    __slots__ = ("_far", "_fragments", "_last_bytes", "_owner", "key", "remote")

    def __init__(self, owner: Flows, key: bytes, remote: Address, near: socket.socket, far: socket.socket) -> None:
        super().__init__(owner.traffic, near)
        self._owner, self.key, self.remote, self._far = owner, key, remote, far
        self._last_bytes = 0
        self._fragments = False

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Towards the zone, towards the outside."""
        return self._near, self._far

    def ready(self, source: socket.socket, mask: int) -> None:
        """Move a few datagrams, and errors."""
        if source is self._near:
            self._move(source, self.send)
            return
        if mask & select.EPOLLERR:
            self._pass_errors()
        if mask & READ:
            self.answered = True
        self._move(source, self.deliver)

    def _move(self, source: socket.socket, pass_on: Callable[[memoryview], None]) -> None:
        self.last_active = time.monotonic()
        for _ in range(self._owner.burst):
            try:
                size = source.recv_into(_buffer)
            except BlockingIOError:
                break
            except OSError:  # an error about a datagram before; what the queue says of it has been passed on
                if source.fileno() < 0:  # the flow has ended
                    break
                continue
            pass_on(_view[:size])

    def send(self, data: bytes | memoryview) -> None:
        """One datagram of the zone's. One too big for the way is reported, as a router does, and goes in fragments."""
        self._last_bytes = len(data)
        counts = self._traffic.counts
        try:
            push(self._far, data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE or self._fragments or not self._shrink(data):
                counts["lost"] += 1
                if error.errno == errno.EPERM:  # the host's own firewall
                    self._complain(PROHIBITED[self._far.family], None)
                return
        counts["bytes_up"] += len(data)
        self.up_bytes += len(data)

    def _shrink(self, data: bytes | memoryview) -> bool:
        family = self._far.family
        mtu = self._far.getsockopt(*MTU[family])
        self._fragment()
        while next_error(self._far) is not None:
            pass  # the same in other words
        # Larger than the zone's link, or of a zone that has been told, it came in fragments: to report it once more
        # would be an error of each new socket's that the zone does nothing wrong with.
        if len(data) + _HEADERS_BYTES[family] <= self._owner.mtu and not self._owner.was_told(self.key):
            self._complain(too_big(family, mtu), None)
        try:
            push(self._far, data)
        except OSError:
            return False
        return True

    def _fragment(self) -> None:
        """From now on: a zone that has been told sends in fragments itself, and these arrive here as a whole."""
        self._fragments = True
        self._far.setsockopt(*MTU_DISCOVER[self._far.family], FRAGMENT_IF_NEEDED)

    def _pass_errors(self) -> None:
        while (reported := next_error(self._far)) is not None:
            if reported[0][:2] == too_big(self._far.family, 0)[:2]:
                self._fragment()
            self._complain(*reported)

    def _complain(self, trouble: Trouble, sender: bytes | None) -> None:
        self._owner.complain(self.key, self._last_bytes, trouble, sender)

    def abort(self) -> None:
        """See Session."""
        self._owner.end(self)


class Flows:
    """All flows of a zone: takes first datagrams from the listeners behind TPROXY.

    served:  what is not for the outside, by its address: takes a datagram and who sent it.
    """

    def __init__(
        self,
        loop: Loop,
        traffic: Traffic,
        egress: Egress,
        feedback: Feedback,
        make_near: MakeSocket,
        *,
        mtu: int,
        served: Mapping[Address, Callable[[bytes, Address], None]] | None = None,
    ) -> None:
        self.traffic, self.mtu, self._served = traffic, mtu, dict(served or {})
        self._loop, self._egress, self._feedback, self._make_near = loop, egress, feedback, make_near
        self._flows: dict[bytes, Flow] = traffic.flows
        self._told: dict[bytes, float] = {}
        self.burst, self._births = loop.burst(_BURST), loop.burst(_BIRTHS)
        traffic.sources.append(self)

    def listen(self, listener: socket.socket) -> None:
        """Take first datagrams from a socket that TPROXY leads to."""
        listener.setblocking(False)
        self._loop.watch(listener, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take a few datagrams."""
        for data, ancillary, client in datagrams(source, self._births):
            remote, hops = _destination(ancillary, source.family)
            if remote is None or not client[1]:  # a socket for port 0 would take what is from any
                self.traffic.counts["malformed"] += 1
            elif remote in self._served:
                self._served[remote](data, client)
            else:
                self._take(source.family, data, client[:2], remote, hops)

    def _take(self, family: int, data: bytes, client: Address, remote: Address, hops: int) -> None:
        ends = (socket.inet_pton(family, client[0]), socket.inet_pton(family, remote[0]))
        key = b"".join((*ends, client[1].to_bytes(2, "big"), remote[1].to_bytes(2, "big")))
        flow = self._flows.get(key)
        if flow is None:
            flow = self._begin(family, key, len(data), client, remote, hops)
        if flow is not None:
            flow.send(data)

    def _begin(self, family: int, key: bytes, size: int, client: Address, remote: Address, hops: int) -> Flow | None:
        counts = self.traffic.counts
        if not self._egress.allows(*remote, UDP):
            counts["denied"] += 1
            self.complain(key, size, PROHIBITED[family], None)
            return None
        if hops <= 1:
            self.complain(key, size, EXPIRED[family], None)
            return None
        make_room(self._flows, self.traffic, outside=True)
        try:
            far = _open_far(family, (self._egress.outer(remote[0]), remote[1]), hops)
        except OSError as error:
            counts["failed"] += 1
            if (trouble := trouble_of(error.errno or 0, family)) is not None:
                self.complain(key, size, trouble, None)
            return None
        try:
            near = _open_near(self._make_near(family, socket.SOCK_DGRAM), client, remote)
        except OSError:  # out of descriptors, or an address no socket can have
            counts["limited"] += 1
            far.close()
            return None
        counts["udp_flows"] += 1
        flow = self._flows[key] = Flow(self, key, remote, near, far)
        shorten_queues(self._flows, *flow.sockets)
        for each in flow.sockets:
            self._loop.watch(each, flow, READ)
        self._loop.patient.add(flow)
        return flow

    def complain(self, key: bytes, size: int, trouble: Trouble, sender: bytes | None) -> None:
        """Tell the zone what became of a datagram of `size` bytes."""
        family = socket.AF_INET if len(key) == 12 else socket.AF_INET6
        told = self._feedback.error(family, udp_quote(key, size), trouble, sender)
        if told and trouble[:2] == too_big(family, 0)[:2]:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[_outer_end(key)] = time.monotonic()

    def was_told(self, key: bytes) -> bool:
        """Does the zone know that the way to a flow's outer end is narrower than its own link?"""
        told = self._told.get(_outer_end(key))
        return told is not None and time.monotonic() - told < _TOLD_S

    def rerouted(self) -> None:
        """The zone's next datagram is judged and sent anew, see rerouting.py."""
        for flow in list(self._flows.values()):
            if not self._egress.holds(flow.remote[0], flow.sockets[1]):
                self.end(flow)

    def end(self, flow: Flow) -> None:
        """Close both sides. Harmless twice."""
        self._flows.pop(flow.key, None)
        self._loop.discard(flow)
        for each in flow.sockets:
            self._loop.forget(each)
            each.close()

    def flows(self, now: float) -> Iterator[listed.Flow]:
        """See flows.HasFlows."""
        for flow in self._flows.values():
            zone, outside = map(listed.endpoint, ends_of(flow.key))
            yield listed.Flow("udp", zone, outside, "open", flow.up_bytes, flow.down_bytes, now - flow.began)

    def tick(self, now: float) -> None:
        """Flows have their own deadlines."""

    def abort(self) -> None:
        """One datagram failed in an unforeseen way; the listeners stay."""


def _outer_end(key: bytes) -> bytes:
    size = (len(key) - 4) // 2
    return key[size : 2 * size]


def _destination(ancillary: Ancillary, family: int) -> tuple[Address | None, int]:
    """Where a datagram was meant to go, and how many hops it had left."""
    hops = hops_of(ancillary)
    hops = _USUAL_HOPS if hops is None else hops
    for asked, start, end in (
        ((socket.IPPROTO_IP, IP_ORIGDSTADDR), 4, 8),
        ((socket.IPPROTO_IPV6, IPV6_ORIGDSTADDR), 8, 24),
    ):
        data = ancillary.get(asked)  # a struct sockaddr_in or sockaddr_in6
        port = int.from_bytes(data[2:4], "big") if data else 0
        if data and port:
            return (socket.inet_ntop(family, data[start:end]), port), hops
    return None, hops


def _open_far(family: int, remote: Address, hops: int) -> socket.socket:
    far = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        queue_errors(far, family, wanted=True)
        far.setsockopt(*MTU_DISCOVER[family], FRAGMENT_NEVER)
        if hops <= FEW_HOPS:
            set_hops(far, hops - 1)
        far.connect(remote)
    except BaseException:
        far.close()
        raise
    return far


def _open_near(near: socket.socket, client: Address, remote: Address) -> socket.socket:
    try:
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # flows from several ports of the zone to one remote
        near.bind(remote)
        near.connect(client)
    except BaseException:
        near.close()
        raise
    return near
