"""Fragments put together, without a network: what becomes of which pieces, and what waits meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.packets import corpus, damaged, echo, ends, piece, pieces

from runtime.net.engine import packet
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.fragments import Gatherer, read_piece
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import Limits

BOTH = pytest.mark.parametrize("v6", [False, True])
LIMITS = Limits(fragments_bytes=100_000)


class Gathering:
    """A zone's, and what has become whole: requests to the outside, and packets that are sent on `lo`."""

    def __init__(self, gateways: tuple[bytes, ...] = ()) -> None:
        self.loop, self.traffic = Loop(), Traffic(LIMITS)
        self.asked: list[packet.Echo | None] = []
        self.sent: list[tuple[bytes, str]] = []
        here: Any = self
        self.gatherer = Gatherer(self.loop, self.traffic, here, here, gateways)

    def consider(self, asked: packet.Echo | None) -> None:
        self.asked.append(asked and asked._replace(head=b""))

    def send(self, family: int, whole: bytes, destination: str) -> None:
        self.sent.append((whole, destination))

    def take(self, *parts: bytes) -> Gathering:
        for each in parts:
            self.gatherer.take(each)
        return self

    @property
    def rests(self) -> bool:
        """Is nothing left?"""
        return not self.gatherer._waiting and not self.gatherer.held_bytes and not self.loop.urgent


def whole_request(v6: bool, size: int) -> bytes:
    """What pieces(v6=v6, size=size) are together."""
    return echo(v6=v6, data=random.Random(size).randbytes(size), hops=5)


def read(whole: bytes) -> packet.Echo:
    """What is asked by it, but for the headers that an error would quote: those are others."""
    asked = packet.read_echo(whole)
    assert asked is not None
    return asked._replace(head=b"", gathered=True)


@BOTH
@pytest.mark.parametrize("size", [41, 100, 4000, 65000])
def test_request_is_whole_in_whatever_order_its_pieces_come(v6: bool, size: int) -> None:
    for seed in range(5):
        parts = pieces(v6=v6, size=size, step=48 if size < 4000 else 1448)
        random.Random(seed).shuffle(parts)
        made = Gathering().take(*parts[:-1])
        assert not made.asked and not made.rests
        assert made.take(parts[-1]).asked == [read(whole_request(v6, size))]
        assert made.rests and not any(made.traffic.counts.values())


@BOTH
def test_pieces_of_several_packets_do_not_mix(v6: bool) -> None:
    parts = [each for among in zip(*(pieces(v6=v6, number=n) for n in (1, 2, 3)), strict=True) for each in among]
    made = Gathering().take(*parts)
    assert made.asked == [read(whole_request(v6, 100))] * 3 and made.rests


@BOTH
def test_request_to_the_gateway_and_datagrams_go_on_as_whole_packets(v6: bool) -> None:
    _, far = ends(v6)
    whole, start = whole_request(v6, 100), 40 if v6 else 20
    ((sent, destination),) = Gathering(gateways=(far,)).take(*pieces(v6=v6)).sent
    assert read(sent) == read(whole) and destination == packet._text(far)
    as_udp = bytearray(whole)
    as_udp[6 if v6 else 9] = packet.UDP
    ((sent, destination),) = Gathering().take(*(piece(bytes(as_udp), at, at + 64) for at in (0, 64))).sent
    assert (sent[start:], destination) == (whole[start:], packet._text(far))
    assert sent[7 if v6 else 8] == 5, "it has the hops of its first piece"


@BOTH
def test_piece_that_comes_twice_is_taken_once(v6: bool) -> None:
    first, *others = pieces(v6=v6)
    assert Gathering().take(first, first, *others).asked == [read(whole_request(v6, 100))]


@BOTH
@pytest.mark.parametrize(
    "cuts",
    [
        [(0, 48, True), (40, 96, True), (96, 108, False)],
        [(0, 96, True), (48, 108, False)],
        [(0, 48, True), (0, 40, True)],
        [(48, 108, False), (48, 100, False)],
        [(96, 108, False), (48, 100, False)],
        [(48, 96, False), (96, 104, True)],
    ],
)
def test_pieces_that_overlap_or_do_not_fit_are_no_packet(v6: bool, cuts: list[tuple[int, int, bool]]) -> None:
    whole = echo(v6=v6, data=bytes(100))
    made = Gathering().take(*(piece(whole, at, end, more=more) for at, end, more in cuts))
    assert not made.asked and made.traffic.counts["malformed"] == 1


def moved(fragment: bytes, place: int) -> bytes:
    """A last piece that says it belongs there."""
    head = bytearray(fragment)
    if fragment[0] >> 4 == 6:
        head[42:44] = place.to_bytes(2, "big")
    else:
        head[6:8], head[10:12] = (place >> 3).to_bytes(2, "big"), bytes(2)
        head[10:12] = packet.checksum(bytes(head[:20])).to_bytes(2, "big")
    return bytes(head)


@BOTH
def test_what_is_no_piece_is_none(v6: bool) -> None:
    whole, (first, *_) = echo(v6=v6, data=bytes(100)), pieces(v6=v6)
    assert read_piece(first) is not None
    assert read_piece(whole) is None
    assert all(read_piece(first[:size]) is None for size in range(len(first)))
    assert read_piece(piece(whole, 0, 47, more=True)) is None, "not in eights"
    assert read_piece(piece(whole, 8, 8, more=True)) is None, "nothing in it"
    of_tcp = bytearray(whole)
    of_tcp[6 if v6 else 9] = packet.TCP
    assert read_piece(piece(bytes(of_tcp), 0, 48)) is None
    last = piece(whole, 0, 48, more=False)
    assert read_piece(moved(last, 0xFF80)) is not None
    assert read_piece(moved(last, 0xFFF8)) is None, "no packet is longer than 65,535"


@BOTH
def test_oldest_gives_way_and_what_waits_is_bounded(v6: bool) -> None:
    made = Gathering()
    for number in range(1, 1000):
        made.take(pieces(v6=v6, size=3000, step=1448, number=number)[0])
        assert made.gatherer.held_bytes <= LIMITS.fragments_bytes
    assert made.traffic.counts["limited"] == 999 - len(made.gatherer._waiting) > 900
    assert made.take(*pieces(v6=v6, number=5000)).asked == [read(whole_request(v6, 100))]
    made.gatherer.close()
    assert made.rests


@BOTH
def test_tiny_pieces_of_one_packet_are_bounded_as_well(v6: bool) -> None:
    whole, made = echo(v6=v6, data=bytes(60000)), Gathering()
    for at in range(0, 48000, 16):
        made.take(piece(whole, at, at + 8))
        assert made.gatherer.held_bytes <= LIMITS.fragments_bytes
    assert made.traffic.counts["limited"] > 5


@BOTH
def test_packet_that_does_not_become_whole_is_forgotten(v6: bool) -> None:
    made = Gathering().take(pieces(v6=v6)[0])
    made.gatherer.tick(made.loop.now + LIMITS.fragments_wait_s - 0.1)
    assert not made.rests
    made.gatherer.tick(made.loop.now + LIMITS.fragments_wait_s)
    assert made.rests


@pytest.mark.parametrize("rounds", [20_000, pytest.param(2_000_000, marks=pytest.mark.soak)])
def test_fuzz_damaged_pieces_are_bounded_and_raise_nothing(rounds: int) -> None:
    dice, made = random.Random(rounds), Gathering()
    parts = [*corpus(), *(each for v6 in (False, True) for n in range(1, 9) for each in pieces(v6=v6, number=n))]
    for number in range(rounds):
        data = dice.choice(parts)
        made.take(damaged(data, dice) if number % 3 else data)
        assert 0 <= made.gatherer.held_bytes <= LIMITS.fragments_bytes
        assert made.gatherer.held_bytes == sum(each.held_bytes for each in made.gatherer._waiting.values())
    assert made.traffic.counts["malformed"] > rounds // 10
    assert len(made.asked) > rounds // 100
