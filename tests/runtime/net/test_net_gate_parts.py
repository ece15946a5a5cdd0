"""The SYN gate without a network: which SYN leads to a connect, and which is passed on."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from support.packets import echo, syn

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.gate import Gate, Held
from runtime.net.engine.loop import END, WRITE, Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.packet import Syn
from runtime.net.engine.relay import Relay


class Egress:
    def __init__(self) -> None:
        self.asked = 0

    def allows(self, host: str, port: int, protocol: str) -> bool:
        self.asked += 1
        return True

    def outer(self, host: str) -> str:
        return host


class Feedback:
    """What the zone would be sent."""

    def __init__(self) -> None:
        self.passed_on: list[bytes] = []
        self.refused = 0

    def send(self, family: int, packet: bytes, destination: str) -> None:
        self.passed_on.append(packet)

    def refuse(self, refused: Syn) -> None:
        self.refused += 1


class LocalGate(Gate):
    """Connects to a listener on loopback, wherever a SYN wants to go."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - a tuple
        self.egress, self.feedback = Egress(), Feedback()
        super().__init__(Loop(), Traffic(limits), self.egress, self.feedback)  # type: ignore[arg-type]
        self.listener = socket.create_server(("127.0.0.1", 0))

    def _connect(self, read: Syn) -> None:
        super()._connect(read._replace(host="127.0.0.1", port=self.listener.getsockname()[1]))

    def settle_all(self) -> None:
        for held in list(self._held.values()):
            held.ready(held.far, WRITE)


class Accepted:
    """A connection as the kernel would accept it after the SYN was passed on."""

    family = socket.AF_INET

    peer = ("10.75.7.2", 40000)

    def getsockname(self) -> tuple[str, int]:
        return "203.0.113.2", 443


AGAIN = syn()
ANEW = syn(sequence=5)  # the zone gave up and began anew from the same port


@pytest.fixture
def gate() -> Iterator[LocalGate]:
    made = LocalGate()
    yield made
    for held in list(made._held.values()):
        made.drop(held)
    made.listener.close()


def held_of(gate: LocalGate) -> Held:
    (held,) = gate._held.values()
    return held


def test_syn_sent_again_leads_to_one_connect_before_between_and_after(gate: LocalGate) -> None:
    gate.take(syn())
    gate.take(AGAIN)
    assert (gate.egress.asked, gate.feedback.passed_on) == (1, [])
    gate.settle_all()
    assert gate.feedback.passed_on == [syn()]
    gate.take(AGAIN)
    assert gate.feedback.passed_on == [syn()] * 2, "the first may have been lost"
    (target,) = gate.targets_of(Accepted(), Accepted.peer)  # type: ignore[arg-type]
    assert target.connected
    with contextlib.closing(target.make_socket(target.family, socket.SOCK_STREAM)) as far:
        assert far.getpeername() == gate.listener.getsockname()
        gate.take(AGAIN)
        assert gate.egress.asked == 1, "the connection it belongs to is there"
        assert gate.feedback.passed_on == [syn()] * 3
    assert not gate._held
    gate.take(ANEW)
    assert gate.egress.asked == 2, "the port's next connection is another one"


@pytest.mark.parametrize("last", [b"", b"hello"], ids=["it only ends", "it says something, and ends"])
def test_what_the_server_does_before_its_connection_is_accepted_is_passed_on(gate: LocalGate, last: bytes) -> None:
    """It is told of once, see loop.EDGE."""

    def turns_until(condition: Callable[[], bool]) -> None:
        while not condition():
            events = gate.loop._epoll.poll(20)
            assert events
            gate.loop._serve(events)

    gate.take(syn())
    held = held_of(gate)
    turns_until(lambda: held.open)
    server, _ = gate.listener.accept()
    server.sendall(last)
    server.close()
    turns_until(lambda: bool(held.seen & END))
    client = socket.create_connection(gate.listener.getsockname(), 20)
    near, _ = gate.listener.accept()
    targets = gate.targets_of(Accepted(), Accepted.peer)  # type: ignore[arg-type]
    relay = Relay(gate.loop, Limits(), near, targets, lambda relay, connected: None)
    relay.start()
    with client:
        assert client.recv(10) == last
        assert client.recv(10) == b""
    relay.abort()


def test_connection_nobody_waits_for_leads_nowhere(gate: LocalGate) -> None:
    assert gate.targets_of(Accepted(), Accepted.peer) == []  # type: ignore[arg-type]


def test_syn_that_begins_anew_takes_the_place_of_the_first(gate: LocalGate) -> None:
    gate.take(syn())
    gate.take(ANEW)
    gate.settle_all()
    assert gate.feedback.passed_on == [ANEW]
    assert gate.egress.asked == 1


def test_connection_never_completed_by_the_zone_is_given_up(gate: LocalGate) -> None:
    gate.take(syn())
    gate.settle_all()
    held = held_of(gate)
    held.tick(time.monotonic() + Limits().accept_timeout_s - 1)
    assert gate._held
    held.tick(time.monotonic() + Limits().accept_timeout_s + 1)
    assert not gate._held
    assert held.far.fileno() < 0
    assert not gate.loop.urgent and not gate.loop._watched


def test_what_is_no_syn_is_counted_and_forgotten(gate: LocalGate) -> None:
    for packet in (b"", b"E", echo(), syn(flags=3), syn()[:-1]):
        gate.take(packet)
    assert gate.traffic.counts["malformed"] == 5
    assert (gate.egress.asked, gate._held) == (0, {})
