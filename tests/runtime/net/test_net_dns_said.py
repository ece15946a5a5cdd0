"""What resolvers of the host's say to a zone's questions, and what none of them is asked; without a network."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.dns import Resolvers, UdpForwarder
from runtime.net.engine.dnsstream import StreamServer, framed, unframed
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.names import Names

ADDRESSES = ("127.0.0.2", "127.0.0.3")
SERVFAIL, NOT_IMPLEMENTED, REFUSED = 2, 4, 5
A, SOA, IXFR, AXFR = 1, 6, 251, 252
QUERY, NOTIFY, UPDATE = 0, 4, 5
WAYS = pytest.mark.parametrize("way", ["udp", "tcp"])


def query(kind: int = A, *, opcode: int = QUERY) -> bytes:
    return (
        struct.pack("!6H", 0x1234, opcode << 11 | 0x0100, 1, 0, 0, 0)
        + b"\7example\3org\0"
        + struct.pack("!2H", kind, 1)
    )


class Resolver:
    """One that says the same code and mark to whatever it is asked; no code: it does not listen."""

    def __init__(self, stack: contextlib.ExitStack, address: str, port: int, code: int | None) -> None:
        self.asked: list[bytes] = []
        self._says = bytes([0x81, 0x80 | (code or 0)])
        self._mark = address.encode()
        self._sockets: list[socket.socket] = []
        self._stack = stack
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM) if code is not None else ():
            made = stack.enter_context(socket.socket(socket.AF_INET, kind))
            made.bind((address, port))
            if kind == socket.SOCK_STREAM:
                made.listen()
            self._sockets.append(made)

    def serve(self) -> None:
        """Do what there is to do."""
        for each in select.select(self._sockets, [], [], 0)[0]:
            if each.type == socket.SOCK_DGRAM:
                asked, client = each.recvfrom(4096)
                each.sendto(self._answer(asked), client)
            elif each is self._sockets[1]:
                self._sockets.append(self._stack.enter_context(each.accept()[0]))
            elif (asked := unframed(each.recv(4096)) or b"") != b"":
                each.sendall(framed(self._answer(asked)))
            else:
                self._sockets.remove(each)

    def _answer(self, asked: bytes) -> bytes:
        self.asked.append(asked[2:])
        return asked[:2] + self._says + asked[4:] + self._mark


class Zone:
    """A zone that asks by one way, and the resolvers of its host."""

    def __init__(self, stack: contextlib.ExitStack, port: int, way: str, *codes: int | None) -> None:
        self.resolvers = [Resolver(stack, *each) for each in zip(ADDRESSES, (port, port), codes, strict=True)]
        self._loop, self.traffic = Loop(), Traffic(Limits())
        shared = (self._loop, self.traffic, Resolvers(ADDRESSES), Names(()))
        self._forwarder: UdpForwarder | None = None
        if way == "udp":
            self._client, near = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
            for each in (self._client, near):
                each.bind((ADDRESSES[0], 0))
            self._forwarder = UdpForwarder(shared[0], shared[1], near, shared[2], shared[3])
        else:
            self._client, near = socket.socketpair()
            stack.enter_context(self._client)
            server = StreamServer(*shared)
            server.serve(near)
            stack.callback(server.close)

    def ask(self, question: bytes) -> bytes:
        """What is said to a question."""
        if self._forwarder is None:
            self._client.sendall(framed(question))
        else:
            self._forwarder.take(question, self._client.getsockname())
        while not select.select([self._client], [], [], 0)[0]:
            self._loop._serve(self._loop._epoll.poll(0.05, 64))
            for each in self.resolvers:
                each.serve()
        answer = self._client.recv(4096)
        return answer if self._forwarder is not None else unframed(answer) or b""

    @property
    def asked(self) -> list[int]:
        """How often each resolver was."""
        return [len(each.asked) for each in self.resolvers]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture
def port(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> int:
    """One that is nobody's, and stands for 53."""
    with socket.create_server((ADDRESSES[0], 0)) as found:
        number: int = found.getsockname()[1]
    monkeypatch.setattr("runtime.net.engine.dns.PORT", number)
    return number


@WAYS
@pytest.mark.parametrize("code", [SERVFAIL, NOT_IMPLEMENTED, REFUSED])
def test_resolver_that_has_no_answer_is_followed_by_the_next(
    stack: contextlib.ExitStack, port: int, way: str, code: int
) -> None:
    zone = Zone(stack, port, way, code, 0)
    answer = zone.ask(query())
    assert answer[3] & 15 == 0 and answer.endswith(ADDRESSES[1].encode())
    assert zone.asked == [1, 1]
    assert not zone.traffic.queries and zone.traffic.counts["dns_failed"] == 0


@WAYS
def test_answer_that_there_is_no_such_name_is_one(stack: contextlib.ExitStack, port: int, way: str) -> None:
    zone = Zone(stack, port, way, 3, 0)
    assert zone.ask(query())[3] & 15 == 3
    assert zone.asked == [1, 0]


@WAYS
@pytest.mark.parametrize("listens", [True, False])
def test_where_nobody_has_an_answer_the_zone_is_told_what_the_last_one_said(
    stack: contextlib.ExitStack, port: int, way: str, listens: bool
) -> None:
    zone = Zone(stack, port, way, REFUSED, SERVFAIL if listens else None)
    answer = zone.ask(query())
    assert answer[:2] == b"\x12\x34" and answer[3] & 15 == (SERVFAIL if listens else REFUSED)
    assert answer.endswith(ADDRESSES[1].encode()) is listens, "its own words, with all that is in them"
    assert zone.asked == [1, int(listens)], "each once"
    assert not zone.traffic.queries and zone.traffic.counts["dns_failed"] == (0 if listens else 1)


@WAYS
@pytest.mark.parametrize(
    ("question", "code"),
    [
        (query(SOA, opcode=UPDATE), NOT_IMPLEMENTED),
        (query(SOA, opcode=NOTIFY), NOT_IMPLEMENTED),
        (query(AXFR), REFUSED),
        (query(IXFR), REFUSED),
    ],
    ids=["update", "notice", "transfer", "transfer of changes"],
)
def test_resolver_of_the_host_is_asked_questions_and_nothing_else(
    stack: contextlib.ExitStack, port: int, way: str, question: bytes, code: int
) -> None:
    """What trusts the host would do for a zone what it does for the host."""
    zone = Zone(stack, port, way, 0, 0)
    answer = zone.ask(question)
    assert answer[:2] == question[:2] and answer[2] & 0xF8 == 0x80 | question[2] & 0x78
    assert answer[3] & 15 == code and answer[12:] == question[12:]
    assert zone.asked == [0, 0]
    assert zone.ask(query()).endswith(ADDRESSES[0].encode())
