"""Echo requests without a network: which answer is whose."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.packets import IDENTIFIER, answer, echo, ends

from runtime.net.addresses import LAST_HOST, ZONE_HOST, plan_addresses
from runtime.net.engine import packet
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.control import MAX_DESCRIPTORS
from runtime.net.engine.echo import Asked, Echoes, Pinger
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import INSIDE, MAX_PUBLISHED, Limits

BOTH = pytest.mark.parametrize("v6", [False, True])


class Feedback:
    """What the zone would be sent."""

    def __init__(self) -> None:
        self.errors: list[packet.Trouble] = []

    def error(self, family: int, head: bytes, trouble: packet.Trouble, sender: bytes | None = None) -> None:
        self.errors.append(trouble)


class Asking:
    """A zone that has asked one host, by request 77 of IDENTIFIER."""

    def __init__(self, stack: contextlib.ExitStack, v6: bool) -> None:
        self.feedback: Any = Feedback()
        outer = tuple(
            stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            for family in (socket.AF_INET, socket.AF_INET6)
        )
        pinger = Pinger(Loop(), outer, IDENTIFIER, wait_s=60.0)
        self.family = socket.AF_INET6 if v6 else socket.AF_INET
        self.echoes = Echoes(Traffic(Limits()), None, self.feedback, pinger, mtu=1500)  # type: ignore[arg-type]
        self.zone, self.far = ends(v6)

    def hears(self, received: bytes, destination: bytes) -> list[packet.Trouble]:
        """What the zone is told of an error, if the request was for that destination."""
        read = packet.read_answer(self.family, received, IDENTIFIER)
        assert read is not None
        asked = Asked(self.zone, destination, bytes(4), b"head", 0.0)
        self.echoes.answer(self.family, asked, read, self.far)
        errors: list[packet.Trouble] = self.feedback.errors
        return errors


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


class Quiet(socket.socket):
    """Sends nothing."""

    def sendmsg(self, *words: Any) -> int:
        return 0


def test_ping_without_an_answer_is_forgotten_after_a_minute(stack: contextlib.ExitStack) -> None:
    loop = Loop()
    families = (socket.AF_INET, socket.AF_INET6)
    outer: Any = tuple(stack.enter_context(Quiet(family, socket.SOCK_DGRAM)) for family in families)
    pinger = Pinger(loop, outer, IDENTIFIER, wait_s=60.0)
    for v6 in (False, True):
        read = packet.read_echo(echo(v6=v6))
        assert read is not None
        pinger.ask(read)
        loop.now += 10
    began = loop.now - 20
    assert pinger in loop.patient
    pinger.tick(began + 59)
    assert pinger.under_way == 2
    pinger.tick(began + 61)
    assert pinger.under_way == 1
    pinger.tick(began + 71)
    assert pinger.under_way == 0
    assert pinger not in loop.patient, "an idle network costs no CPU"


@BOTH
def test_error_about_another_programs_request_of_the_same_identifier_is_nobodys(
    stack: contextlib.ExitStack, v6: bool
) -> None:
    asking = Asking(stack, v6)
    trouble = (1, 0, 0) if v6 else (3, 1, 0)
    received = answer(v6=v6, trouble=trouble)
    assert asking.hears(received, asking.far[:-1] + b"\x63") == []
    assert asking.hears(received, asking.far) == [packet.Trouble(*trouble)]


def test_no_two_zones_of_a_host_ask_with_one_identifier() -> None:
    zones = [plan_addresses(index, host=host) for index in (0, 1, 7, 255) for host in range(ZONE_HOST, LAST_HOST + 1)]
    identifiers = {zone.echo_identifier for zone in zones}
    assert len(identifiers) == len(zones)
    assert max(identifiers) < 1 << 16


def test_all_sockets_of_a_zone_go_back_in_one_packet() -> None:
    assert len(INSIDE) + MAX_PUBLISHED <= MAX_DESCRIPTORS
