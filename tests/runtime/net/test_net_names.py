"""What a network's name server answers by itself."""

from __future__ import annotations

import random
import socket
import struct
from ipaddress import ip_address, ip_network

import pytest

from runtime.net.engine.names import Names, read_question

A, PTR, TXT, AAAA, ANY = 1, 12, 16, 28, 255
NETWORKS = (ip_network("10.75.9.0/24"), ip_network("fd5a:6f6e:6577:9::/64"))
WEB4, WEB6 = "10.75.9.2", "fd5a:6f6e:6577:9::2"


@pytest.fixture
def names() -> Names:
    made = Names(NETWORKS)
    made.add("Web.Front-1", WEB4, WEB6)
    made.add("db", "10.75.9.3", "fd5a:6f6e:6577:9::3")
    return made


def query(name: str, kind: int, *, of_class: int = 1, flags: int = 0x0100, count: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return struct.pack("!6H", 0x1234, flags, count, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, of_class)


def told(answer: bytes | None, question: bytes) -> tuple[int, list[tuple[int, str]]]:
    """(code, [(kind, what)]) of an answer; checks all of its form."""
    assert answer is not None
    identity, flags, questions, answers, authority, more = struct.unpack_from("!6H", answer)
    assert (identity, questions, authority, more) == (0x1234, 1, 0, 0)
    assert flags & 0xFFF0 == 0x8580, "an authoritative answer, recursion wanted and had"
    assert answer[12 : len(question)] == question[12:]
    at, found = len(question), []
    for _ in range(answers):
        name, kind, of_class, lives_s, size = struct.unpack_from("!HHHIH", answer, at)
        assert (name, of_class, lives_s) == (0xC00C, 1, 5)
        data = answer[at + 12 : at + 12 + size]
        if kind == PTR:
            parts, place = [], 0
            while data[place]:
                parts.append(data[place + 1 : place + 1 + data[place]].decode())
                place += 1 + data[place]
            assert place == size - 1
            found.append((kind, ".".join(parts)))
        else:
            found.append((kind, socket.inet_ntop(socket.AF_INET if kind == A else socket.AF_INET6, data)))
        at += 12 + size
    assert at == len(answer)
    return flags & 15, found


def ask(names: Names, name: str, kind: int) -> tuple[int, list[tuple[int, str]]]:
    question = query(name, kind)
    return told(names.answer(question), question)


@pytest.mark.parametrize("name", ["web.front-1", "WEB.Front-1", "web.front-1."])
def test_zone_is_found_by_its_name_in_any_case(names: Names, name: str) -> None:
    assert ask(names, name, A) == (0, [(A, WEB4)])
    assert ask(names, name, AAAA) == (0, [(AAAA, WEB6)])
    assert ask(names, name, ANY) == (0, [(A, WEB4), (AAAA, WEB6)])


def test_zone_has_no_records_of_other_kinds_and_nobody_else_is_asked_for_them(names: Names) -> None:
    assert ask(names, "db", TXT) == (0, [])


@pytest.mark.parametrize("address", [WEB4, WEB6])
def test_address_of_a_zone_leads_to_its_name(names: Names, address: str) -> None:
    name = ip_address(address).reverse_pointer
    assert ask(names, name, PTR) == (0, [(PTR, "Web.Front-1")])
    assert ask(names, name.upper(), ANY) == (0, [(PTR, "Web.Front-1")])
    assert ask(names, name, A) == (0, [])


@pytest.mark.parametrize("address", ["10.75.9.77", "10.75.9.1", "fd5a:6f6e:6577:9::77"])
def test_address_of_the_network_that_no_zone_has_does_not_exist(names: Names, address: str) -> None:
    assert ask(names, ip_address(address).reverse_pointer, PTR) == (3, [])


@pytest.mark.parametrize(
    "name",
    [
        *("example.org", "front-1", "db.example.org", "", "2.9.75.10", "in-addr.arpa", "x.2.9.75.10.in-addr.arpa"),
        *("999.9.75.10.in-addr.arpa", ip_address("10.75.8.2").reverse_pointer, "1.ip6.arpa"),
        *(ip_address("192.0.2.1").reverse_pointer, ip_address("fd5a:6f6e:6577:8::2").reverse_pointer),
        "zz." + "0." * 31 + "ip6.arpa",
    ],
)
def test_other_names_are_for_the_hosts_resolvers(names: Names, name: str) -> None:
    for kind in (A, AAAA, PTR, ANY):
        assert names.answer(query(name, kind)) is None


def test_only_plain_questions_are_answered(names: Names) -> None:
    assert names.answer(query("db", A)) is not None
    assert names.answer(query("db", A, of_class=3)) is None
    assert names.answer(query("db", A, flags=0x2900)) is None, "an update"
    assert names.answer(query("db", A, flags=0x8180)) is None, "an answer"
    assert names.answer(query("db", A, count=2)) is None
    assert names.answer(query("db", A, count=0)) is None
    pointer = bytearray(query("db", A))
    pointer[12] = 0xC0
    assert names.answer(bytes(pointer)) is None


def test_extensions_behind_the_question_are_left_out_of_the_answer(names: Names) -> None:
    question = query("db", A)
    extended = question[:11] + b"\1" + question[12:] + b"\0\0\x29\x10\0\0\0\0\0\0\0"
    assert told(names.answer(extended), question) == (0, [(A, "10.75.9.3")])


def test_zone_that_left_is_asked_for_elsewhere(names: Names) -> None:
    names.remove("web.FRONT-1")
    names.remove("nobody")
    assert names.answer(query("web.front-1", A)) is None
    assert ask(names, ip_address(WEB4).reverse_pointer, PTR) == (3, [])
    assert ask(names, "db", A) == (0, [(A, "10.75.9.3")])


def test_damaged_queries_raise_nothing(names: Names) -> None:
    dice = random.Random(11)
    whole = [query("db", A), query("Web.Front-1", AAAA), query(ip_address(WEB6).reverse_pointer, PTR)]
    answered = 0
    for number in range(20_000):
        data = bytearray(whole[number % 3][: dice.randrange(1, 200)])
        for _ in range(dice.randrange(3)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        question = read_question(bytes(data))
        assert question is None or question.end <= len(data)
        answered += names.answer(bytes(data)) is not None
    assert 0 < answered < 20_000
