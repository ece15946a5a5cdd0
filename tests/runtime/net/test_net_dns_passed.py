"""What resolvers say passes as it is: large, cut off, with options, damaged; a question too."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from support.networld import DNS4, World, receive_all

from runtime.net.engine.model import Limits
from runtime.net.plan import DNS_PORT

pytestmark = pytest.mark.root

SERVFAIL = 2
TRUNCATED = 0x02  # of the third byte, RFC 1035 section 4.1.1
QUESTION = b"\3wWw\7eXaMpLe\0\0\1\0\1"  # names whose case a resolver is to repeat: draft-vixie-dnsext-dns0x20
EDNS = bytes.fromhex("0000291000000080000000")  # OPT, 4,096 bytes, DNSSEC OK: RFC 6891


def query(identity: int, *, edns: bool = False) -> bytes:
    head = struct.pack("!HHHHHH", identity, 0x0100, 1, 0, 0, int(edns))
    return head + QUESTION + (EDNS if edns else b"")


def says(asked: bytes, rest: bytes, *, flags: int = 0x80, records: int = 1) -> bytes:
    """An answer to a question, with what is behind it."""
    return asked[:2] + bytes([flags | 1, 0x80]) + struct.pack("!HHHH", 1, records, 0, 0) + QUESTION + rest


@pytest.fixture
def world(world: World) -> World:
    """The one resolver is given as long as a busy machine takes for an answer: none is asked twice."""
    world.resolv_conf.write_text(f"nameserver {DNS4}\n")
    world.network = world.new_network(limits=Limits(dns_try_s=30, dns_timeout_s=90))
    return world


@contextlib.contextmanager
def resolver(
    world: World,
    answer: Callable[[bytes], bytes],
    by_tcp: Callable[[bytes], bytes],
    *,
    before: Callable[[bytes], bytes] | None = None,
) -> Iterator[list[bytes]]:
    """A name server of the outside; the questions that came by UDP. before: what is said ahead of an answer by UDP."""
    asked: list[bytes] = []
    listener = world.of(world.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    listener.bind((DNS4, DNS_PORT))

    def serve() -> None:
        while True:
            question, client = listener.recvfrom(65535)
            if client[1] == listener.getsockname()[1]:
                return
            asked.append(question)
            if before is not None:
                listener.sendto(before(question), client)
            listener.sendto(answer(question), client)

    def one(connection: socket.socket) -> None:
        size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
        data = by_tcp(connection.recv(size, socket.MSG_WAITALL))
        connection.sendall(struct.pack("!H", len(data)) + data)

    world.serve(world.outside, DNS4, DNS_PORT, one)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        listener.sendto(b"end", (DNS4, DNS_PORT))
        thread.join()
        listener.close()


def ask(world: World, question: bytes) -> bytes:
    with world.in_zone(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(60)
        client.connect((world.addresses.gateway4, DNS_PORT))
        client.send(question)
        return client.recv(65535)


def ask_by_tcp(world: World, question: bytes) -> bytes:
    with world.connect(world.addresses.gateway4, DNS_PORT) as client:
        client.sendall(struct.pack("!H", len(question)) + question)
        client.shutdown(socket.SHUT_WR)
        return receive_all(client)[2:]


LOOP = struct.pack("!HHHIH", 0xC000 | 12 + len(QUESTION), 1, 1, 60, 4) + b"\xc0\x0c\xc0\x0c"
BEHIND = {
    "more than 512 bytes": bytes(range(256)) * 4,
    "more than a frame": bytes(range(256)) * 15,
    "a name that points at itself": LOOP,
    "a name that points behind the end": struct.pack("!HHHIH", 0xFFFF, 1, 1, 60, 4) + bytes(4),
    "names that point at each other": b"\xc0\x20\xc0\x1e" + LOOP,
    "a length beyond the end": struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 0xFFFF),
    "nothing where a record is said to be": b"",
}


@pytest.mark.parametrize("rest", BEHIND.values(), ids=BEHIND)
def test_answer_passes_byte_by_byte_whatever_is_in_it(world: World, rest: bytes) -> None:
    """The engine reads nothing behind the question of it, so there is nothing to get lost in."""
    network = world.up()
    with resolver(world, lambda asked: says(asked, rest), lambda asked: says(asked, rest)):
        assert ask(world, query(7)) == says(query(7), rest)
        assert ask_by_tcp(world, query(9)) == says(query(9), rest)
    counters = network.counters()
    assert (counters["dns_queries"], counters["dns_failed"], counters["faults"]) == (2, 0, 0)


def test_answer_that_was_cut_off_says_so_and_is_whole_by_tcp(world: World) -> None:
    world.up()
    cut, whole = bytes(100), bytes(range(256)) * 100
    with resolver(
        world,
        lambda asked: says(asked, cut, flags=0x80 | TRUNCATED),
        lambda asked: says(asked, whole),
    ):
        assert ask(world, query(7))[2] & TRUNCATED
        assert ask_by_tcp(world, query(8)) == says(query(8), whole)


def test_case_and_options_of_a_question_reach_the_resolver(world: World) -> None:
    world.up()
    with resolver(world, lambda asked: says(asked, b"x"), lambda asked: b"") as asked:
        assert ask(world, query(7, edns=True)) == says(query(7), b"x")
        assert [each[2:] for each in asked] == [query(7, edns=True)[2:]]


OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "of another name": lambda asked: says(asked, b"x").replace(b"wWw", b"ftp"),
    "of another type": lambda asked: says(asked, b"x").replace(QUESTION, QUESTION[:-4] + b"\0\x1c\0\1"),
    "none": lambda asked: asked[:2] + b"\x81\x80" + bytes(8),
    "a question": lambda asked: asked,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_answer_to_another_question_is_nobodys(world: World, other: Callable[[bytes], bytes]) -> None:
    """By UDP the right one is waited for; by TCP, where none is behind it, another resolver is asked: here is none."""
    network = world.up()
    with resolver(world, lambda asked: says(asked, b"right"), other, before=other):
        assert ask(world, query(7)) == says(query(7), b"right")
        assert ask_by_tcp(world, query(9))[3] & 15 == SERVFAIL
    assert network.counters()["dns_failed"] == 1


SAME: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    # The question alone: in the identity, which is any two bytes, there may be letters as well.
    "in another case": (query(7), lambda asked: says(asked, b"x").replace(QUESTION, QUESTION.lower())),
    "failure without a question": (query(7), lambda asked: asked[:2] + b"\x81\x81" + bytes(8)),
    "of nothing asked": (query(7)[:4] + bytes(6) + b"\0\1" + EDNS, lambda asked: asked[:2] + b"\x81\x80" + asked[4:]),
}


@pytest.mark.parametrize(("asked", "answer"), SAME.values(), ids=SAME)
def test_answer_that_says_the_question_otherwise_passes(
    world: World, asked: bytes, answer: Callable[[bytes], bytes]
) -> None:
    world.up()
    with resolver(world, answer, answer):
        assert ask(world, asked) == answer(asked)
        assert ask_by_tcp(world, asked) == answer(asked)
