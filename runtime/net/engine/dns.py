"""The zone's name server on gateway:53: answers for zones' names (names.py), passes all else to the host's resolvers.

Each query gets its own outer socket (so its own random port) and its own random ID: answers of strangers do not fit.
A resolver that is silent, does not listen or has no answer to give is followed by the next, as the host's own libc has
it. Where the last one has none either, its words go to the zone; where it is silent, SERVFAIL or what another said.
An answer is to be about what was asked; what else is in it is not looked at.
Updates, notices and transfers of whole domains go to nobody: a resolver of the host's would be told them by the host
itself, and that may be all it asks for.
Source: RFC 1035 sections 4.1.1 and 4.2, RFC 5452, RFC 2136, RFC 5936.
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
SERVFAIL, _NOT_IMPLEMENTED, _REFUSED = 2, 4, 5
_NO_ANSWERS = (SERVFAIL, _NOT_IMPLEMENTED, _REFUSED)  # another one may have it: glibc, resolv/res_send.c, send_dg
_OPCODE = 0x78  # of the third byte
_TRANSFERS = (b"\0\xfb", b"\0\xfc")  # IXFR, AXFR
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


def failure(query: bytes, code: int = SERVFAIL) -> bytes:
    """The answer to a query that there is none: its header with QR and RCODE set, RA as a forwarder, question kept."""
    flags = bytes([query[2] | RESPONSE, (query[3] & 0x10) | 0x80 | code])
    end = _question_end(query)
    counts = b"\0\1" if end > HEADER_BYTES else b"\0\0"
    return query[:2] + flags + counts + bytes(6) + query[HEADER_BYTES:end]


def own_answer(query: bytes, names: Names) -> bytes | None:
    """What is said to a query without asking anybody; None where a resolver is to say."""
    known = names.answer(query)
    if known is None and query[2] & _OPCODE:
        return failure(query, _NOT_IMPLEMENTED)
    if known is None and query[HEADER_BYTES : _question_end(query)][-4:-2] in _TRANSFERS:
        return failure(query, _REFUSED)
    return known


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


def unable(answer: bytes) -> int:
    """Why a resolver has no answer, where another one may have it; 0 for one that is an answer."""
    code = answer[3] & _RCODE
    return code if code in _NO_ANSWERS else 0


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
        known = own_answer(query, self.names)
        if known is not None:
            self.answer(known, client)
        elif self.traffic.full(len(self.traffic.queries), self.traffic.limits.dns_pending):
            self.answer(failure(query), client, failed=True)
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
        self._server, self._code = "", SERVFAIL  # who is asked; what there is to say where nobody answers
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
            server = self._server = self._servers.pop(0)
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
        self._finish(failure(self._query, self._code), failed=True)

    def ready(self, source: socket.socket, mask: int) -> None:
        """An answer or a refusal came."""
        try:
            answer = source.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            self.try_next()
            return
        if answer[:2] != self._id or not answers(self._query, answer):
            return
        others = [each for each in self._servers if each != self._server]
        if others and (code := unable(answer)):
            self._servers, self._code = others, code
            self.try_next()
        else:
            self._finish(self._query[:2] + answer[2:])

    def tick(self, now: float) -> None:
        """Go on to the next resolver when this one is silent."""
        if now >= min(self._try_until, self._deadline):
            self.try_next()

    def abort(self) -> None:
        """Give up."""
        self._finish(failure(self._query), failed=True)

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
