"""The zone's name server on gateway:53: answers for zones' names (names.py), passes all else to the host's resolvers.

Each query gets its own outer socket (so its own random port) and its own random ID: answers of strangers do not fit.
A resolver that is silent or refuses is followed by the next; when the time is over the zone gets SERVFAIL.
An answer is to be about what was asked; what else is in it is not looked at.
Source: RFC 1035 sections 4.1.1 and 4.2, RFC 5452.
"""

from __future__ import annotations

import random
import socket
import time
from typing import Any

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.names import HEADER_BYTES, RESPONSE, Names

PORT = 53
_LARGEST = 65535
_SERVFAIL = 2
_RCODE = 0x0F  # of the fourth byte
_NONE = b"\0\0"  # for so many questions
_random = random.SystemRandom()


class Resolvers:
    """The host's resolvers: whoever started the engine says which, and says so again when they change (DHCP, VPN)."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        self._servers = servers

    def current(self) -> tuple[str, ...]:
        """The resolvers now."""
        return self._servers

    def replace(self, servers: tuple[str, ...]) -> None:
        """Other ones from the next query on."""
        self._servers = servers


def socket_address(server: str) -> Any:
    """What a socket connects to for a resolver; a link-local one names its interface by number ("fe80::1%2").

    Given as text, that would be resolved by glibc, which asks files and services that the engine does not have.
    """
    host, _, scope = server.partition("%")
    return (host, PORT, 0, int(scope)) if scope else (host, PORT)


def family_of(address: str) -> int:
    """AF_INET6 for an address with colons."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def servfail(query: bytes) -> bytes:
    """The answer "server failure" to a query: its header with QR and RCODE set, RA as a forwarder, question kept."""
    flags = bytes([query[2] | RESPONSE, (query[3] & 0x10) | 0x80 | _SERVFAIL])
    end = _question_end(query)
    counts = b"\0\1" if end > HEADER_BYTES else b"\0\0"
    return query[:2] + flags + counts + bytes(6) + query[HEADER_BYTES:end]


def _question_end(query: bytes) -> int:
    """Where the first question ends; the header's end when it is damaged."""
    offset = HEADER_BYTES
    while offset < len(query) and query[offset]:
        if query[offset] > 63:  # a compression pointer has no place in a question
            return HEADER_BYTES
        offset += 1 + query[offset]
    return offset + 5 if offset + 5 <= len(query) else HEADER_BYTES


def answers(query: bytes, message: bytes) -> bool:
    """Is a message of a resolver's about a query's question? A failure may be without any.

    In any case of letters: there are servers that do not keep it. Source: RFC 5452 section 3.
    """
    if len(message) < HEADER_BYTES or not message[2] & RESPONSE:
        return False
    if message[4:6] == _NONE:
        return query[4:6] == _NONE or message[3] & _RCODE != 0
    end = _question_end(query)
    return _folded(message[HEADER_BYTES:end]) == _folded(query[HEADER_BYTES:end])


def _folded(question: bytes) -> tuple[bytes, bytes]:
    """The name of a question, its type and class."""
    return question[:-4].lower(), question[-4:]


class UdpForwarder:
    """Takes queries by UDP, and answers them from a socket bound to the gateway's port 53."""

    def __init__(
        self, loop: Loop, traffic: Traffic, zone_side: socket.socket, resolvers: Resolvers, names: Names
    ) -> None:
        self.loop, self.traffic, self.zone_side, self.resolvers, self.names = loop, traffic, zone_side, resolvers, names
        zone_side.setblocking(False)

    def take(self, query: bytes, client: Any) -> None:
        """One datagram of the zone's."""
        if len(query) < HEADER_BYTES or query[2] & RESPONSE:
            return
        self.traffic.counts["dns_queries"] += 1
        known = self.names.answer(query)
        if known is not None:
            self.answer(known, client)
        elif self.traffic.full(len(self.traffic.queries), self.traffic.limits.dns_pending):
            self.answer(servfail(query), client, failed=True)
        else:
            Query(self, query, client).try_next()

    def answer(self, message: bytes, client: Any, *, failed: bool = False) -> None:
        """Send an answer to the zone; lost ones are asked again by its resolver."""
        if failed:
            self.traffic.counts["dns_failed"] += 1
        try:
            self.zone_side.sendto(message, client)
        except OSError:
            pass


class Query:
    """One query on its way through the resolvers."""

    def __init__(self, owner: UdpForwarder, query: bytes, client: Any) -> None:
        self._owner, self._query, self._client = owner, query, client
        self._servers = list(owner.resolvers.current()) * 2
        self._id = b""
        self._outer: socket.socket | None = None
        self._deadline = time.monotonic() + owner.traffic.limits.dns_timeout_s
        self._try_until = 0.0
        owner.traffic.queries.add(self)
        owner.loop.urgent.add(self)

    def try_next(self) -> None:
        """Ask the next resolver, or give up."""
        self._close_outer()
        while self._servers and time.monotonic() < self._deadline:
            server = self._servers.pop(0)
            self._id = _random.randbytes(2)
            try:
                self._outer = socket.socket(family_of(server), socket.SOCK_DGRAM)
                self._outer.setblocking(False)
                self._outer.connect(socket_address(server))
                self._outer.send(self._id + self._query[2:])
            except OSError:
                self._close_outer()
                continue
            self._try_until = time.monotonic() + self._owner.traffic.limits.dns_try_s
            self._owner.loop.watch(self._outer, self, READ)
            return
        self._finish(servfail(self._query), failed=True)

    def ready(self, source: socket.socket, mask: int) -> None:
        """An answer or a refusal came."""
        try:
            answer = source.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            self.try_next()
            return
        if answer[:2] == self._id and answers(self._query, answer):
            self._finish(self._query[:2] + answer[2:])

    def tick(self, now: float) -> None:
        """Go on to the next resolver when this one is silent."""
        if now >= min(self._try_until, self._deadline):
            self.try_next()

    def abort(self) -> None:
        """Give up."""
        self._finish(servfail(self._query), failed=True)

    def _finish(self, message: bytes, *, failed: bool = False) -> None:
        if self in self._owner.traffic.queries:
            self._owner.traffic.queries.discard(self)
            self._owner.loop.discard(self)
            self._close_outer()
            self._owner.answer(message, self._client, failed=failed)

    def _close_outer(self) -> None:
        if self._outer is not None:
            self._owner.loop.forget(self._outer)
            self._outer.close()
            self._outer = None
