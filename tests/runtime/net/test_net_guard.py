"""The guard at a vif's own MAC, which a bridge takes for its own, as it does the gateway's."""

from __future__ import annotations

import socket
import struct

import pytest
from support.networld import World
from support.packets import icmp, ip
from support.sharedworld import Neighbour, SharedNetwork

from runtime.net.addresses import GATEWAY_MAC
from runtime.net.engine.packet import udp_quote

pytestmark = pytest.mark.root

VIF_MAC = "fe:ff:ff:ff:ff:ff"  # of each of netback's vifs
TIMESTAMP, ECHO, ECHO_REPLY = 13, 8, 0


@pytest.fixture
def shared(world: World) -> SharedNetwork:
    return SharedNetwork(world)


@pytest.fixture
def pair(world: World, shared: SharedNetwork) -> tuple[Neighbour, Neighbour]:
    """Two zones that do not reach each other, at vifs as netback makes them."""
    web, db = shared.zone("web", 2), shared.zone("db", 3, isolated=True)
    for zone in (web, db):
        world.ip(shared.segment.netns, f"link set {zone.vif} address {VIF_MAC}")
    return web, db


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def frame(zone: Neighbour, to: str, packet: bytes) -> bytes:
    macs = bytes.fromhex((to + zone.addresses.zone_mac).replace(":", ""))
    return macs + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0") + packet


def wire(zone: Neighbour) -> socket.socket:
    """Its interface: sends frames, and gets those of IPv4 that come."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        made.bind(("eth0", 0x0800))
        made.settimeout(10)
        return made

    made: socket.socket = zone.inside(make)
    return made


@pytest.mark.parametrize("v6", [False, True])
def test_zone_sets_no_path_mtu_towards_another_by_its_vifs_mac(
    world: World, shared: SharedNetwork, pair: tuple[Neighbour, Neighbour], v6: bool
) -> None:
    """It says, of a datagram of the gateway's name server to the other zone, that it was too big."""
    web, db = (zone.addresses for zone in pair)
    if v6:
        kind, code, protocol, mtu = 2, 0, 58, 1280
        own, other, gateway = web.zone6, db.zone6, web.gateway6
    else:
        kind, code, protocol, mtu = 3, 4, 1, 600
        own, other, gateway = web.zone4, db.zone4, web.gateway4
    quoted = udp_quote(packed(gateway) + packed(other) + struct.pack("!HH", 53, 40000), 1400)
    ends = packed(own), packed(gateway)
    said = ip(*ends, protocol, icmp(kind, code, struct.pack("!I", mtu) + quoted, *ends))
    with wire(pair[0]) as sends:
        for mac in (GATEWAY_MAC, VIF_MAC):
            sends.send(frame(pair[0], mac, said))
    world.shell(pair[0].namespace, f"ping -c 1 -W 5 {gateway}")  # what came before it has been heard, or never will
    assert f"mtu {mtu}" not in world.shell(shared.segment.netns, f"ip route get {other}")


def test_vifs_mac_is_no_second_door_to_this_hosts_kernel(pair: tuple[Neighbour, Neighbour]) -> None:
    web = pair[0].addresses
    ends = packed(web.zone4), packed(web.gateway4)

    def ask(to: str, kind: int, number: int) -> bytes:
        return frame(pair[0], to, ip(*ends, 1, icmp(kind, 0, struct.pack("!HH", number, 0) + bytes(12), *ends)))

    with wire(pair[0]) as both:
        for question in ((VIF_MAC, TIMESTAMP, 1), (VIF_MAC, ECHO, 2), (GATEWAY_MAC, TIMESTAMP, 3)):
            both.send(ask(*question))
        both.send(ask(GATEWAY_MAC, ECHO, 4))
        answers: list[tuple[int, int]] = []
        while not answers or answers[-1][1] != 4:
            came = both.recv(2000)
            if came[23] == 1:
                answers.append((came[34], int.from_bytes(came[38:40], "big")))
    assert answers == [(ECHO_REPLY, 4)]
