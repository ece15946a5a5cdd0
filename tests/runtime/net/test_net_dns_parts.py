"""DNS of a zone's without a network: what it may have under way, and what that takes."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from runtime.net.engine import main
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.dns import Resolvers, UdpForwarder
from runtime.net.engine.dnsstream import StreamServer, framed
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.names import Names

SERVFAIL = 2
_QUESTION = b"\7example\3org\0" + struct.pack("!2H", 1, 1)


def query(identity: int) -> bytes:
    return struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + _QUESTION


class Asking:
    """A zone's three ways to ask, and a resolver that takes everything and says nothing."""

    def __init__(self, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind(listener.getsockname())
        monkeypatch.setattr("runtime.net.engine.dns.PORT", listener.getsockname()[1])
        self.loop, self.traffic = Loop(), Traffic(limits)
        shared = (self.loop, self.traffic)
        asked = (Resolvers(("127.0.0.1",)), Names(()))
        self.clients, self.forwarders = [], []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            sides = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2)]
            for each in sides:
                each.bind((address, 0))
                each.settimeout(30)
            self.clients.append(sides[0])
            self.forwarders.append(UdpForwarder(*shared, sides[1], *asked))
        near, self.stream = socket.socketpair()
        stack.enter_context(self.stream).settimeout(30)
        self._near = near
        self._server = StreamServer(*shared, *asked)
        self._server.serve(near)
        stack.callback(self.end)

    def by_udp(self, which: int, identity: int) -> None:
        self.forwarders[which].take(query(identity), self.clients[which].getsockname())

    def by_tcp(self, identity: int) -> None:
        self.stream.send(framed(query(identity)))
        (stream,) = self._server.streams
        stream.ready(self._near, READ)

    def end(self) -> None:
        for each in list(self.traffic.queries):
            each.abort()
        self._server.close()
        assert not self.traffic.queries and not self.loop.urgent and not self.loop._watched


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    with contextlib.ExitStack() as stack:
        yield Asking(stack, monkeypatch, Limits(dns_pending=2))


def failed(answer: bytes, identity: int) -> bool:
    return int.from_bytes(answer[:2], "big") == identity and answer[3] & 15 == SERVFAIL


def test_queries_under_way_are_bounded_whichever_way_they_came(asking: Asking) -> None:
    asking.by_udp(0, 1)
    asking.by_udp(1, 2)
    assert len(asking.traffic.queries) == 2
    asking.by_udp(0, 3)
    assert failed(asking.clients[0].recv(999), 3)
    asking.by_udp(1, 4)
    assert failed(asking.clients[1].recv(999), 4)
    asking.by_tcp(5)
    assert failed(asking.stream.recv(999)[2:], 5)
    assert asking.traffic.counts["dns_failed"] == 3


def test_query_over_tcp_keeps_one_by_udp_from_the_last_place_until_it_is_given_up(asking: Asking) -> None:
    asking.by_tcp(1)
    asking.by_udp(0, 2)
    asking.by_udp(1, 3)
    assert failed(asking.clients[1].recv(999), 3)
    (stream,) = asking._server.streams
    stream.tick(asking.loop.now + 60)
    assert failed(asking.stream.recv(999)[2:], 1)
    asking.by_udp(1, 4)
    assert len(asking.traffic.queries) == 2


@pytest.mark.parametrize(
    ("limit", "descriptors"),
    [("connections", 2), ("inward", 2), ("udp_flows", 3), ("pending", 1), ("pipes", 2), ("dns_pending", 2)],
)
def test_descriptors_of_all_that_a_zone_may_have_are_counted(limit: str, descriptors: int) -> None:
    """UDP: two of a flow to the outside, one of a client of a published port. DNS: two of a connection with a query."""
    few = Limits()
    more = few._replace(**{limit: getattr(few, limit) + 1})
    assert main._descriptors(more) - main._descriptors(few) == descriptors


def test_memory_of_dns_is_counted(asking: Asking) -> None:
    """The longest query over TCP, which a resolver takes slowly: the query, and what is left to send of it."""
    one = main._memory_bytes(Limits(dns_pending=2)) - main._memory_bytes(Limits(dns_pending=1))
    longest = query(1) + bytes(65535 - len(query(1)))
    (stream,) = asking._server.streams
    asking.stream.setblocking(False)
    left = memoryview(framed(longest))
    while left:
        with contextlib.suppress(BlockingIOError):
            left = left[asking.stream.send(left) :]
        stream.ready(asking._near, READ)
    while not stream._query:
        stream.ready(asking._near, READ)
    held = sum(map(len, (stream._query, stream._outgoing, stream._asked, stream._incoming)))
    assert held >= 2 * 65535
    assert held + 65535 + 4096 < one, "and an answer as long"
