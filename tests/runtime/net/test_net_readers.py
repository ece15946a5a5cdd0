"""What the engine reads beside packets, damaged: DNS streams of a zone and of a resolver, what the kernel says beside
a datagram.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
from support.fuzz import LONG
from support.packets import damaged, syn

from runtime.net.engine import dnsstream, feedback, packet, udp
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.datagrams import IP_ORIGDSTADDR, IPV6_ORIGDSTADDR
from runtime.net.engine.dns import Resolvers
from runtime.net.engine.dnsstream import Stream, StreamServer, framed, unframed
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.names import HEADER_BYTES, RESPONSE, Names

A, PTR = 1, 12
USUAL_SEED = 7


def rounds(usual: int, long: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rounds", [usual, pytest.param(long, marks=pytest.mark.soak)])


def fuzzed(rounds: int, usual: int, corpus: list[bytes], check: Callable[[bytes, random.Random], bool]) -> int:
    """Check so many damaged ones of a corpus; how many were taken for good."""
    seed = time.time_ns() if LONG in os.environ or rounds > usual else USUAL_SEED
    dice, taken = random.Random(seed), 0
    for number in range(rounds):
        data = corpus[number % len(corpus)]
        if number // len(corpus) % 8:  # else whole
            data = damaged(data, dice)
        try:
            taken += check(data, dice)
        except Exception as error:
            raise AssertionError(f"seed {seed}, round {number}: {data.hex()}") from error
    return taken


# -- DNS over TCP ------------------------------------------------------------------------------------------------------


def query(name: str, kind: int = A, identity: int = 0x1234, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", identity, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


ASKED = [
    framed(query("web")),
    framed(query("2.9.75.10.in-addr.arpa", PTR)),
    framed(query("example.org")),
    framed(query("web")) + framed(query("example.org", identity=1)) + framed(query("WEB", identity=2)),
    framed(query("web", flags=0x8180)),
    framed(b"short"),
    framed(query("web") + bytes(40)),
    framed(b""),
]
ANSWERED = [framed(query("example.org", flags=0x8180)), framed(query("example.org", flags=0x8183) + bytes(2000))]


@contextmanager
def stream() -> Iterator[tuple[Stream, socket.socket]]:
    """A zone's connection, with its far end; there is a zone `web`, and no resolver is to be had."""
    names = Names((ip_network("10.75.9.0/24"),))
    names.add("web", "10.75.9.2", "fd5a:6f6e:6577:9::2")
    loop = Loop()
    near, far = socket.socketpair()
    server = StreamServer(loop, Traffic(Limits()), Resolvers(()), names)
    try:
        server.serve(near)
        (made,) = server.streams
        far.setblocking(False)
        yield made, far
    finally:
        server.close()
        far.close()
        loop._epoll.close()


def read_all(far: socket.socket) -> bytes:
    parts = []
    try:
        while data := far.recv(65536):
            parts.append(data)
    except (BlockingIOError, ConnectionResetError):
        pass
    return b"".join(parts)


def messages(data: bytes) -> list[bytes]:
    """All of a stream that is whole."""
    found = []
    while (message := unframed(data)) is not None:
        found.append(message)
        data = data[2 + len(message) :]
    return found


def expected(data: bytes) -> tuple[list[bytes], bool]:
    """The identities of the questions that are to be answered, and whether the connection stays."""
    answered: list[bytes] = []
    for message in messages(data):
        if len(message) < HEADER_BYTES or message[2] & RESPONSE:
            return answered, False
        answered.append(message[:2])
    return answered, True


def answers_every_question(data: bytes, dice: random.Random) -> bool:
    """Whatever comes, in whatever pieces: each question in its order has one answer, up to what is none."""
    identities, stays = expected(data)
    said = b""
    with stream() as (made, far):
        rest = data
        while rest and made in made._owner.streams:
            size = dice.randrange(1, 80)
            far.send(rest[:size])
            rest = rest[size:]
            made.ready(made._near, dnsstream.READ)
            said += read_all(far)
        assert (made in made._owner.streams) == stays
        assert len(made._asked) <= 2 + 65535
    told = messages(said)
    assert sum(2 + len(message) for message in told) == len(said), "only whole answers"
    assert [message[:2] for message in told] == identities
    assert all(message[2] & RESPONSE for message in told)
    return bool(told)


@rounds(4_000, 400_000)
def test_fuzz_questions_of_a_stream_are_answered_or_end_it(rounds: int) -> None:
    assert fuzzed(rounds, 4_000, ASKED, answers_every_question) > rounds // 10


def is_about(asked: bytes, answer: bytes) -> bool:
    if len(answer) < HEADER_BYTES or answer[:2] != asked[:2] or not answer[2] & RESPONSE:
        return False
    if answer[4:6] == b"\0\0":
        return answer[3] % 16 > 0
    name, kind = asked[HEADER_BYTES:-4], asked[-4:]
    said = answer[HEADER_BYTES : len(asked)]
    return said[: len(name)].lower() == name and said[len(name) :] == kind


def passes_an_answer_on(data: bytes, dice: random.Random) -> bool:
    """What a resolver says: the answer to the question, as it is, or SERVFAIL."""
    asked = query("example.org")
    first = unframed(data)
    fits = first is not None and is_about(asked, first)
    with stream() as (made, far):
        ours, resolver = socket.socketpair()
        ours.setblocking(False)
        made._query, made._outer = asked, ours
        with resolver:
            rest = data
            while made._query:
                size = dice.randrange(1, 4000)
                if rest:
                    resolver.send(rest[:size])
                else:
                    resolver.close()
                rest = rest[size:]
                made._go_on_asking(ours)
        told = read_all(far)
        assert made in made._owner.streams and made._outer is None
    (answer,) = messages(told)
    assert answer == (first if fits else dnsstream.failure(asked))
    return fits


@rounds(4_000, 400_000)
def test_fuzz_answer_of_a_resolver_is_passed_on_or_becomes_servfail(rounds: int) -> None:
    assert rounds // 10 < fuzzed(rounds, 4_000, ANSWERED, passes_an_answer_on) < rounds


# -- what the kernel says ----------------------------------------------------------------------------------------------


def address4(address: str, port: int) -> bytes:
    """A struct sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


def address6(address: str, port: int) -> bytes:
    """A struct sockaddr_in6."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + packed + struct.pack("=I", 0)


def extended_error(code: int, origin: int, kind: int, subcode: int, info: int) -> bytes:
    return struct.pack("=IBBBxII", code, origin, kind, subcode, info, 0)


ERRORS = [
    extended_error(111, 2, 3, 3, 0) + address4("203.0.113.2", 0),
    extended_error(90, 2, 3, 4, 1300) + address4("203.0.113.2", 0),
    extended_error(90, 3, 2, 0, 1300) + address6("2001:db8:1::2", 0),
    extended_error(113, 3, 1, 3, 0) + address6("2001:db8:1::2", 0),
    extended_error(90, 1, 0, 0, 1400) + address4("0.0.0.0", 0),
    extended_error(113, 1, 0, 0, 0) + address6("::", 0),
    extended_error(11, 4, 0, 0, 0),
]


def error_can_be_told(data: bytes, dice: random.Random) -> bool:
    """Of either family: nothing, or what can be sent to the zone."""
    taken = False
    for family, zone in ((socket.AF_INET, syn()), (socket.AF_INET6, syn(v6=True))):
        read = feedback._read_error(data, family)
        if read is not None:
            trouble, sender = read
            size = 4 if family == socket.AF_INET else 16
            assert sender is None or len(sender) == size
            sent = packet.error_about(zone, trouble, sender or bytes(size))
            assert feedback._destination(sent) == feedback._destination(packet.reset_of(packet.read_syn(zone)))  # type: ignore[arg-type]
            taken = True
    return taken


@rounds(50_000, 5_000_000)
def test_fuzz_error_of_a_socket_can_be_told_to_the_zone_or_is_none(rounds: int) -> None:
    assert rounds // 4 < fuzzed(rounds, 50_000, ERRORS, error_can_be_told) < rounds


@pytest.mark.parametrize("size", range(16))
def test_error_that_was_cut_off_is_none(size: int) -> None:
    assert feedback._read_error(ERRORS[0][:size], socket.AF_INET) is None


MEANT = [address4("203.0.113.2", 53), address6("2001:db8:1::2", 443), address4("203.0.113.2", 0)]


def destination_is_one_or_none(data: bytes, dice: random.Random) -> bool:
    """As long as the kernel's; what is in it is the zone's choice."""
    taken = False
    for family, asked, size in (
        (socket.AF_INET, (socket.IPPROTO_IP, IP_ORIGDSTADDR), 16),
        (socket.AF_INET6, (socket.IPPROTO_IPV6, IPV6_ORIGDSTADDR), 28),
    ):
        hops = {(socket.IPPROTO_IP, socket.IP_TTL): data[:4]} if dice.randrange(2) else {}
        meant, left = udp._destination({asked: data[:size].ljust(size, b"\0")} | hops, family)
        assert left >= 0
        if meant is not None:
            assert 0 < meant[1] < 65536 and socket.inet_pton(family, meant[0])
            taken = True
    return taken


@rounds(50_000, 5_000_000)
def test_fuzz_destination_of_a_datagram_is_one_or_none(rounds: int) -> None:
    assert rounds // 4 < fuzzed(rounds, 50_000, MEANT, destination_is_one_or_none) < rounds
    assert udp._destination({}, socket.AF_INET) == (None, udp._USUAL_HOPS)
