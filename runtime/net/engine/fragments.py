"""A zone's packets that come in fragments, put together: UDP and echo requests, which are all that the guard lets in.

The kernel could do it. But it counts what waits for a namespace as a whole, and takes nothing of anybody any more when
that is too much: what one zone leaves unfinished would be another's to wait for. Here each has its own, and of what is
too much the oldest gives way.
What is put together goes on as what came whole does: a datagram through `lo` and TPROXY, as a SYN does; a request to
the outside to the engine's own pings, one to the gateway to the kernel, which answers.
Pieces that overlap are no packet, nor are those that do not fit together, or are more than a packet can be.
Source: RFC 791 section 3.2, RFC 8200 section 4.5, RFC 5722 section 4.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import NamedTuple

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.echo import Echoes
from runtime.net.engine.feedback import Feedback
from runtime.net.engine.loop import Loop
from runtime.net.engine.packet import FRAGMENT, ICMP, ICMPV6, UDP, checksum, ip_header, read_echo
from runtime.net.engine.tap import Tap

_BURST = 16  # pieces taken before the loop's others get their turn
_PIECE_BYTES = 256  # what one takes of this process's memory beside its bytes
_MOST: dict[int, int] = {4: 65535 - 20, 16: 65535}  # behind the IP header, by the size of an address
_MORE4, _PLACE4 = 0x2000, 0x1FFF
_MORE6, _PLACE6 = 1, 0xFFF8


class Piece(NamedTuple):
    """A fragment.

    key:        what tells the pieces of one packet from those of others, as the kernel has it, and the protocol.
    addresses:  source and destination, packed.
    at:         where in the packet its bytes belong; more: others are behind it.
    """

    key: bytes
    addresses: bytes
    protocol: int
    hops: int
    at: int
    more: bool
    data: bytes


def read_piece(packet: bytes) -> Piece | None:
    """A fragment of either version, without IP options or other extension headers; None for all else."""
    if len(packet) < 20:
        return None
    if packet[0] == 0x45:
        end, place = int.from_bytes(packet[2:4], "big"), int.from_bytes(packet[6:8], "big")
        protocol, addresses, start = packet[9], packet[12:20], 20
        at, more, number, hops = (place & _PLACE4) * 8, bool(place & _MORE4), packet[4:6], packet[8]
        if not 20 <= end <= len(packet) or checksum(packet[:20]) or not (at or more) or protocol not in (UDP, ICMP):
            return None
    elif packet[0] >> 4 == 6 and len(packet) >= 48 and packet[6] == FRAGMENT:
        end, place = 40 + int.from_bytes(packet[4:6], "big"), int.from_bytes(packet[42:44], "big")
        protocol, addresses, start = packet[40], packet[8:40], 48
        at, more, number, hops = place & _PLACE6, bool(place & _MORE6), packet[44:48], packet[7]
        if not 48 <= end <= len(packet) or protocol not in (UDP, ICMPV6):
            return None
    else:
        return None
    data = packet[start:end]
    if (more and (len(data) % 8 or not data)) or at + len(data) > _MOST[len(addresses) // 2]:
        return None
    return Piece(b"".join((addresses, number, bytes([protocol]))), addresses, protocol, hops, at, more, data)


class _Waiting:
    """What there is of a packet. size: of all of it; -1 until its last piece is here."""

    __slots__ = ("got_bytes", "hops", "pieces", "since", "size")

    def __init__(self, since: float) -> None:
        self.since, self.pieces = since, dict[int, bytes]()
        self.got_bytes = self.hops = 0
        self.size = -1

    @property
    def held_bytes(self) -> int:
        """What it takes of this process's memory."""
        return self.got_bytes + _PIECE_BYTES * len(self.pieces)

    def add(self, piece: Piece) -> bool:
        """Take a piece; False for one that does not fit to the others."""
        before = self.pieces.get(piece.at)
        if before is not None:
            return before == piece.data  # sent twice
        end = piece.at + len(piece.data)
        if not piece.more:
            if self.size >= 0 or any(at >= end for at in self.pieces):
                return False
            self.size = end
        elif 0 <= self.size < end:
            return False
        if not piece.at:
            self.hops = piece.hops
        self.pieces[piece.at] = piece.data
        self.got_bytes += len(piece.data)
        return self.size < 0 or self.got_bytes <= self.size

    def whole(self) -> bytes | None:
        """All of it; None where pieces overlap."""
        end, parts = 0, []
        for at, data in sorted(self.pieces.items()):
            if at != end:
                return None
            parts.append(data)
            end += len(data)
        return b"".join(parts)


class Gatherer(Tap):
    """All of one zone's. gateways: packed."""

    def __init__(
        self, loop: Loop, traffic: Traffic, feedback: Feedback, echoes: Echoes, gateways: Collection[bytes]
    ) -> None:
        super().__init__(loop, _BURST)
        self._traffic, self._feedback, self._echoes, self._gateways = traffic, feedback, echoes, gateways
        self._waiting: dict[bytes, _Waiting] = {}  # the oldest first
        self.held_bytes = 0

    def take(self, packet: bytes) -> None:
        """See Tap: a packet of the zone's that the filter took for a fragment."""
        piece = read_piece(packet)
        if piece is None:
            self._traffic.counts["malformed"] += 1
            return
        waiting = self._waiting.get(piece.key)
        if waiting is None:
            waiting = self._waiting[piece.key] = _Waiting(self._loop.now)
            self._loop.urgent.add(self)
        self.held_bytes -= waiting.held_bytes
        fits = waiting.add(piece)
        self.held_bytes += waiting.held_bytes
        if not fits or waiting.got_bytes == waiting.size:
            self._forget(piece.key)
            whole = waiting.whole() if fits else None
            if whole is None:
                self._traffic.counts["malformed"] += 1
            else:
                self._pass_on(piece, waiting.hops, whole)
        while self.held_bytes > self._traffic.limits.fragments_bytes:
            self._traffic.counts["limited"] += 1
            self._forget(next(iter(self._waiting)))

    def _pass_on(self, piece: Piece, hops: int, whole: bytes) -> None:
        size = len(piece.addresses) // 2
        source, destination = piece.addresses[:size], piece.addresses[size:]
        packet = ip_header(source, destination, piece.protocol, len(whole), hops=hops) + whole
        if piece.protocol == UDP or destination in self._gateways:
            family = socket.AF_INET if size == 4 else socket.AF_INET6
            self._feedback.send(family, packet, socket.inet_ntop(family, destination))
        else:
            echo = read_echo(packet)
            self._echoes.consider(None if echo is None else echo._replace(gathered=True))

    def _forget(self, key: bytes) -> None:
        self.held_bytes -= self._waiting.pop(key).held_bytes
        if not self._waiting:
            self._loop.discard(self)

    def tick(self, now: float) -> None:
        """Forget what has waited for long."""
        while self._waiting:
            key, waiting = next(iter(self._waiting.items()))
            if now - waiting.since < self._traffic.limits.fragments_wait_s:
                return
            self._forget(key)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()
        self.held_bytes = 0
        self._loop.discard(self)
