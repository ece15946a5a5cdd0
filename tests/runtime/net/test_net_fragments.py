"""Fragments of zones in one network: what one leaves unfinished is not another's to wait for."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest
from support.networld import OUTSIDE4, OUTSIDE6, World
from support.packets import ip, plain_sum
from support.sharedworld import Neighbour, SharedNetwork

from runtime.net.addresses import GATEWAY_MAC

pytestmark = pytest.mark.root

BOTH = pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
UDP, FRAGMENT = 17, 44
PIECE = 1400
MANY = 3000


@pytest.fixture
def shared(world: World) -> SharedNetwork:
    return SharedNetwork(world)


@pytest.fixture
def pair(shared: SharedNetwork) -> tuple[Neighbour, Neighbour]:
    return shared.zone("greedy", 2), shared.zone("modest", 3)


def fragment(
    zone: Neighbour, far: str, identification: int, *, size: int = PIECE, at: int = 0, more: bool = True
) -> bytes:
    """A frame of a zone's with a part of a datagram."""
    addresses = zone.addresses
    v6 = ":" in far
    family = socket.AF_INET6 if v6 else socket.AF_INET
    ends = [socket.inet_pton(family, each) for each in (addresses.zone6 if v6 else addresses.zone4, far)]
    data = bytes(size)
    if v6:
        head = struct.pack("!BBHI", UDP, 0, at | more, identification)
        packet = ip(*ends, FRAGMENT, head + data)
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, identification, at >> 3 | more << 13, 64, UDP, 0)
        packet = with_sum(head + b"".join(ends)) + data
    macs = bytes.fromhex((GATEWAY_MAC + addresses.zone_mac).replace(":", ""))
    return macs + (b"\x86\xdd" if v6 else b"\x08\0") + packet


def with_sum(head: bytes) -> bytes:
    return head[:10] + struct.pack("!H", plain_sum(head)) + head[12:]


def send(zone: Neighbour, *frames: bytes) -> None:
    with zone.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as raw:
        raw.bind(("eth0", 0))
        for each in frames:
            raw.send(each)


def pings(world: World, zone: Neighbour, address: str, size: int) -> bool:
    answer = world.shell(zone.namespace, f"ping -c 1 -W 30 -s {size} {address} || true")
    return " 0% packet loss" in answer


Attack = Callable[[Neighbour, str, int], list[bytes]]


def others(far: str, number: int) -> str:
    """Another address of the outside's network."""
    return f"203.0.{number >> 8}.{number & 255}" if "." in far else f"2001:db8:1::{number:x}"


ATTACKS: dict[str, Attack] = {
    "first ones alone": lambda zone, far, number: [fragment(zone, far, number)],
    "last ones alone": lambda zone, far, number: [fragment(zone, far, number, at=8000, more=False)],
    "with a gap before the last": lambda zone, far, number: [
        fragment(zone, far, number),
        fragment(zone, far, number, at=8000, more=False),
    ],
    "of one number to many": lambda zone, far, number: [fragment(zone, others(far, number), 7)],
    "in many tiny pieces": lambda zone, far, number: [
        fragment(zone, far, many + number // 250, at=16 * (number % 250 + 1), size=8) for many in (100, 200)
    ],
    "between whole ones of the same number": lambda zone, far, number: [
        fragment(zone, others(far, number), number),
        fragment(zone, far, number),
        fragment(zone, far, number, at=PIECE, more=False),
    ],
}


@BOTH
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_fragments_that_one_zone_leaves_cost_another_nothing(
    world: World, pair: tuple[Neighbour, Neighbour], shared: SharedNetwork, address: str, attack: Attack
) -> None:
    greedy, modest = pair
    world.meet()

    def attacked() -> bool:
        """Once more where a busy machine's engine has lost too many of them to see what they are."""
        send(greedy, *(each for number in range(1, MANY) for each in attack(greedy, address, number)))
        counters = greedy.network.counters()
        return counters["limited"] + counters["malformed"] > 0

    world.wait_until(attacked)
    for size in (4000, 60000):
        assert pings(world, modest, address, size)
    assert greedy.network.counters()["faults"] == 0
    assert modest.network.counters()["limited"] == 0
    assert " 0\n" in world.shell(shared.segment.netns, "cat /proc/net/sockstat* | grep FRAG"), "nor is it the kernel's"
    assert pings(world, greedy, address, 60000), "what it leaves gives way to what it does not"


@BOTH
def test_packets_that_become_whole_are_as_many_as_a_zone_likes(
    world: World, pair: tuple[Neighbour, Neighbour], address: str
) -> None:
    greedy, _ = pair
    world.meet()
    # As fast as the answers come: those that an engine has yet to come to, on a busy machine, would fill its queue.
    answer = world.shell(greedy.namespace, f"ping -q -A -c 100 -W 30 -s 20000 {address}")
    assert " 0% packet loss" in answer
    assert greedy.network.counters()["limited"] == 0
