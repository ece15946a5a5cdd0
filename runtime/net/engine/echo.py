"""Echo requests of the zone to the outside: a real request to the real host, and what comes back.

All of a zone's go out by one raw socket per family, with an identifier and a sequence number that are not the zone's;
what comes back is known by that, and gets the zone's own again. Who does not answer is not answered for.
Source: RFC 792, RFC 4443 sections 3 and 4, RFC 5508 section 3.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable
from typing import NamedTuple

from pipeline.bundle.egress import ICMP
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.egress import Egress
from runtime.net.engine.feedback import EXPIRED, PROHIBITED, Feedback, too_big, trouble_of
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.packet import (
    Answer,
    Echo,
    echo_reply,
    echo_request,
    read_answer,
    read_echo,
)
from runtime.net.engine.udp import FRAGMENT_IF_NEEDED, FRAGMENT_NEVER, MTU, MTU_DISCOVER

_BURST = 16  # answers taken before the loop's others get their turn
_LARGEST = 65535
_HOPS: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
}


class Asked(NamedTuple):
    """A request under way, without its data. since: Loop.now."""

    source: bytes
    destination: bytes
    mark: bytes
    head: bytes
    since: float


# Takes the family, what was asked, what came back, and from whom.
Answered = Callable[[int, Asked, Answer, bytes], None]


class Pinger:
    """The raw sockets of the host's that a zone asks by, and what it asked."""

    def __init__(
        self, loop: Loop, outer: tuple[socket.socket, socket.socket], identifier: int, *, wait_s: float
    ) -> None:
        """wait_s: so long for an answer."""
        self._loop, self._wait_s = loop, wait_s
        self._burst = loop.burst(_BURST)
        # What comes for an engine before this one is not to be taken for an answer.
        self._identifier, self._sequence = identifier, secrets.randbelow(1 << 16)
        self.answered: Answered = lambda family, asked, answer, sender: None
        self._outer: dict[int, socket.socket] = dict(zip((socket.AF_INET, socket.AF_INET6), outer, strict=True))
        self._asked: dict[int, Asked] = {}  # by sequence number, the oldest first
        for family, each in self._outer.items():
            each.setblocking(False)
            each.setsockopt(*MTU_DISCOVER[family], FRAGMENT_NEVER)
            loop.watch(each, self, READ)

    @property
    def under_way(self) -> int:
        """So many requests without an answer."""
        return len(self._asked)

    def ask(self, echo: Echo) -> None:
        """Send a request on. Raises OSError."""
        sequence = self._sequence = (self._sequence + 1) & 0xFFFF
        message = echo_request(echo.family, self._identifier, sequence, echo.data)
        hops = (*_HOPS[echo.family], (echo.hops - 1).to_bytes(4, "little"))
        outer, discover = self._outer[echo.family], MTU_DISCOVER[echo.family]
        if echo.gathered:
            outer.setsockopt(*discover, FRAGMENT_IF_NEEDED)
        try:
            outer.sendmsg([message], [hops], 0, (echo.host, 0))
        finally:
            if echo.gathered:
                outer.setsockopt(*discover, FRAGMENT_NEVER)
        self._asked[sequence] = Asked(echo.source, echo.destination, echo.mark, echo.head, self._loop.now)
        self._loop.patient.add(self)

    def forget(self, sequence: int) -> None:
        """Nobody waits for this answer any more."""
        self._asked.pop(sequence, None)
        if not self._asked:
            self._loop.patient.discard(self)

    def forget_oldest(self) -> None:
        """Wait no more for the one that most likely nobody will answer."""
        self.forget(next(iter(self._asked)))

    def close(self) -> None:
        """Wait for nothing any more."""
        self._asked.clear()
        self._loop.discard(self)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take a few answers."""
        for _ in range(self._burst):
            try:
                received, sender = source.recvfrom(_LARGEST)
            except OSError:
                return
            answer = read_answer(source.family, received, self._identifier)
            asked = self._asked.get(answer.sequence) if answer is not None else None
            if answer is not None and asked is not None:
                packed = socket.inet_pton(source.family, sender[0].partition("%")[0])
                self.answered(source.family, asked, answer, packed)

    def tick(self, now: float) -> None:
        """Forget what was asked long ago."""
        while self._asked:
            sequence, asked = next(iter(self._asked.items()))
            if now - asked.since < self._wait_s:
                return
            self.forget(sequence)

    def abort(self) -> None:
        """One answer failed in an unforeseen way; the others go on."""


class Echoes:
    """All echo requests of a zone."""

    def __init__(self, traffic: Traffic, egress: Egress, feedback: Feedback, pinger: Pinger, *, mtu: int) -> None:
        """mtu: of the zone's link."""
        self._traffic, self._egress, self._feedback, self._pinger = traffic, egress, feedback, pinger
        self._mtu = mtu
        pinger.answered = self.answer

    def take(self, packet: bytes) -> None:
        """One packet of the zone's that the filter of the packet socket took for an echo request."""
        self.consider(read_echo(packet))

    def consider(self, echo: Echo | None) -> None:
        """Ask the outside, or say why not; None is a packet that is none."""
        counts = self._traffic.counts
        if echo is None:
            counts["malformed"] += 1
        elif not self._egress.allows(echo.host, 0, ICMP):
            counts["denied"] += 1
            self._feedback.error(echo.family, echo.head, PROHIBITED[echo.family])
        elif echo.hops <= 1:
            self._feedback.error(echo.family, echo.head, EXPIRED[echo.family])
        else:
            self._ask(echo)

    def _ask(self, echo: Echo) -> None:
        if self._pinger.under_way >= self._traffic.limits.echoes:
            self._pinger.forget_oldest()
        try:
            self._pinger.ask(echo)
        except OSError as error:
            self._traffic.counts["failed"] += 1
            trouble = trouble_of(error.errno or 0, echo.family)
            if error.errno == errno.EMSGSIZE:
                trouble = too_big(echo.family, _path_mtu(echo.family, echo.host))
            if trouble is not None:
                self._feedback.error(echo.family, echo.head, trouble)
            return
        self._traffic.counts["echoes"] += 1

    def answer(self, family: int, asked: Asked, answer: Answer, sender: bytes) -> None:
        """What came back for a request, and from whom."""
        if len(asked.source) != len(sender):
            return
        if answer.trouble is not None:
            if answer.destination == asked.destination:  # another program of the host's may have the same identifier
                self._pinger.forget(answer.sequence)
                self._feedback.error(family, asked.head, answer.trouble, sender)
        elif sender == asked.destination:
            self._pinger.forget(answer.sequence)
            packet = echo_reply(asked.destination, asked.source, asked.mark, answer.data)
            self._feedback.send_in_fragments(family, packet, socket.inet_ntop(family, asked.source), self._mtu)

    def close(self) -> None:
        """See Pinger."""
        self._pinger.close()


def _path_mtu(family: int, host: str) -> int:
    """The largest packet to a host that routing knows of; the least there is where it says nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            return probe.getsockopt(*MTU[family])
    except OSError:
        return 1280 if family == socket.AF_INET6 else 576
