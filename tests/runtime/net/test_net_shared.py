"""Zones in one network: who reaches whom, who may call itself what, who comes and goes."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from support.networld import HOST4, OUTSIDE4, World
from support.packets import icmp, ip, plain_sum, pseudo
from support.sharedworld import Neighbour, SharedNetwork, abandon, again, pid_of, reaches

from pipeline.bundle.model import Port
from runtime.errors import RuntimeFault
from runtime.net import netns
from runtime.net.addresses import GATEWAY_MAC
from runtime.net.errors import NetworkFault
from runtime.net.network import ZoneNetwork, teardown

pytestmark = pytest.mark.root

ETH_P_ALL = 3


@pytest.fixture
def shared(world: World) -> SharedNetwork:
    return SharedNetwork(world)


@pytest.fixture
def pair(shared: SharedNetwork) -> tuple[Neighbour, Neighbour]:
    """Two zones that serve their names on port 80."""
    web, db = shared.zone("web", 2), shared.zone("db", 3)
    for zone in (web, db):
        serve_name(shared.world, zone)
    return web, db


def serve_name(world: World, zone: Neighbour) -> None:
    for address in ("0.0.0.0", "::"):
        options = "echo 1 > /proc/sys/net/ipv6/bindv6only"
        world.shell(zone.namespace, options)
        world.serve(zone.namespace, address, 80, lambda connection: connection.sendall(zone.name.encode()))


# -- traffic -----------------------------------------------------------------------------------------------------------


def test_zones_of_one_network_reach_each_other_in_both_families(pair: tuple[Neighbour, Neighbour]) -> None:
    web, db = pair
    assert reaches(web, db.addresses.zone4) == reaches(web, db.addresses.zone6) == b"db"
    assert reaches(db, web.addresses.zone4) == reaches(db, web.addresses.zone6) == b"web"
    # Over the bridge: the engine has nothing to do with it.
    assert [zone.network.counters()["accepted"] for zone in pair] == [0, 0]


def test_zones_of_one_network_ping_each_other_and_fragments_pass(
    world: World, pair: tuple[Neighbour, Neighbour]
) -> None:
    web, db = pair
    for address in (db.addresses.zone4, db.addresses.zone6):
        world.shell(web.namespace, f"ping -c 1 -W 30 {address}")
        world.shell(web.namespace, f"ping -c 1 -W 30 -s 4000 {address}")


def test_each_zone_reaches_the_outside_and_is_counted_alone(world: World, pair: tuple[Neighbour, Neighbour]) -> None:
    web, db = pair
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    assert reaches(web, OUTSIDE4, 8080) == b"hi"
    assert reaches(web, OUTSIDE4, 8080) == b"hi"
    assert reaches(db, OUTSIDE4, 8080) == b"hi"
    assert [zone.network.counters()["accepted"] for zone in pair] == [2, 1]
    assert [zone.network.counters()["faults"] for zone in pair] == [0, 0]


def test_flows_are_listed_for_the_zone_they_are_of(world: World, pair: tuple[Neighbour, Neighbour]) -> None:
    web, db = pair
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.recv(1))
    with db.inside(lambda: socket.create_connection((OUTSIDE4, 8080), 30)) as connection:
        port = connection.getsockname()[1]
        world.wait_until(lambda: [row.state for row in db.network.flows()] == ["open"])
        (row,) = db.network.flows()
        assert row.zone_side == f"{db.addresses.zone4}:{port}"
        assert web.network.flows() == []


def test_published_ports_lead_to_their_own_zones(world: World, pair: tuple[Neighbour, Neighbour]) -> None:
    ports = []
    for zone in pair:
        ((_, port),) = world.on_host(lambda zone=zone: zone.network.publish([Port(HOST4, 0, 80)]))
        ports.append(port)

    def ask(port: int) -> bytes:
        with world.of(world.outside, lambda: socket.create_connection((HOST4, port), 30)) as connection:
            return connection.recv(100)

    assert [ask(port) for port in ports] == [b"web", b"db"]


def test_zone_does_not_reach_another_network(world: World, shared: SharedNetwork) -> None:
    world.up()
    world.serve(world.zone, "0.0.0.0", 80, lambda connection: connection.sendall(b"private"))
    web = shared.zone("web", 2)
    assert reaches(web, world.addresses.zone4) is None
    assert web.network.counters()["denied"] == 1


# -- isolation ---------------------------------------------------------------------------------------------------------


def test_isolated_zone_reaches_the_gateway_and_outside_but_no_zone_and_none_reaches_it(
    world: World, shared: SharedNetwork
) -> None:
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    open_zone, alone = shared.zone("open", 2), shared.zone("alone", 3, isolated=True)
    other = shared.zone("other", 4, isolated=True)
    for zone in (open_zone, alone, other):
        serve_name(world, zone)
    for one, another in ((alone, other), (other, alone), (alone, open_zone), (open_zone, alone)):
        assert reaches(one, another.addresses.zone4, timeout_s=0.5) is None
        assert reaches(one, another.addresses.zone6, timeout_s=0.5) is None
    for one, another in ((alone, open_zone), (open_zone, alone)):
        wire = Wire(one, another)
        try:
            assert wire.stops(HONEST["IPv4"](one, another)), "not one way either"
            assert wire.stops(HONEST["ARP"](one, another))
        finally:
            wire.close()
    assert reaches(alone, OUTSIDE4, 8080) == b"hi"
    world.shell(alone.namespace, f"ping -c 1 -W 30 {alone.addresses.gateway4}")


# -- who says what -----------------------------------------------------------------------------------------------------


class Wire:
    """Raw frames from one zone, and what another zone's interface gets."""

    def __init__(self, sender: Neighbour, receiver: Neighbour) -> None:
        self.sends = sender.inside(lambda: raw_socket("eth0"))
        self.gets = receiver.inside(lambda: raw_socket("eth0"))

    def passes(self, frame: bytes, timeout_s: float = 30.0) -> bool:
        """Does this frame get there?"""
        self.sends.send(frame)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self.gets.settimeout(left)
            try:
                if self.gets.recv(2000)[: len(frame)] == frame:
                    return True
            except TimeoutError:
                break
        return False

    def stops(self, frame: bytes) -> bool:
        """Does it not?"""
        return not self.passes(frame, 0.25)

    def close(self) -> None:
        self.sends.close()
        self.gets.close()


def raw_socket(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind((device, ETH_P_ALL))
    return made


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    return b"".join((mac(destination), mac(source), kind.to_bytes(2, "big"), payload))


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def udp(source: str, destination: str) -> bytes:
    """A datagram to port 9 of nothing in particular."""
    ends = packed(source), packed(destination)
    head = struct.pack("!HHHH", 9999, 9, 12, 0) + b"data"
    value = plain_sum(pseudo(*ends, len(head), 17) + head)
    return ip(*ends, 17, head[:6] + struct.pack("!H", value) + head[8:])


def arp(sender_mac: str, sender: str, target: str, operation: int = 2) -> bytes:
    fields = (1, 0x0800, 6, 4, operation, mac(sender_mac), packed(sender), bytes(6), packed(target))
    return struct.pack("!HHBBH6s4s6s4s", *fields)


def discovery(kind: int, source: str, destination: str, target: str, option: bytes, *, hops: int = 255) -> bytes:
    """A neighbour solicitation (135) or advertisement (136)."""
    ends = packed(source), packed(destination)
    body = bytes(4) + packed(target) + option
    return ip(*ends, 58, icmp(kind, 0, body, *ends), hops=hops)


def says(kind: int, address: str) -> bytes:
    """The option with a source's (1) or a target's (2) MAC."""
    return bytes([kind, 1]) + mac(address)


@pytest.fixture
def wire(pair: tuple[Neighbour, Neighbour]) -> Iterator[Wire]:
    made = Wire(*pair)
    yield made
    made.close()


Frame = Callable[[Neighbour, Neighbour], bytes]
IP, ARP, IP6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
STRANGE_MAC = "00:16:3e:4b:09:77"


def to(kind: int, payload: bytes, web: Neighbour, db: Neighbour, *, source: str = "") -> bytes:
    return frame(source or web.addresses.zone_mac, db.addresses.zone_mac, kind, payload)


HONEST: dict[str, Frame] = {
    "IPv4": lambda w, d: to(IP, udp(w.addresses.zone4, d.addresses.zone4), w, d),
    "IPv6": lambda w, d: to(IP6, udp(w.addresses.zone6, d.addresses.zone6), w, d),
    "ARP": lambda w, d: to(ARP, arp(w.addresses.zone_mac, w.addresses.zone4, d.addresses.zone4), w, d),
    "advertisement": lambda w, d: to(
        IP6,
        discovery(
            136, w.addresses.zone6, d.addresses.zone6, w.addresses.zone6, says(2, w.addresses.zone_mac)
        ), w, d,
    ),
    "solicitation": lambda w, d: to(
        IP6,
        discovery(
            135, w.addresses.zone_link_local, d.addresses.zone6, d.addresses.zone6, says(1, w.addresses.zone_mac)
        ), w, d,
    ),
}  # fmt: skip
SPOOFED: dict[str, Frame] = {
    "a strange MAC": lambda w, d: to(IP, udp(w.addresses.zone4, d.addresses.zone4), w, d, source=STRANGE_MAC),
    "the gateway's MAC": lambda w, d: to(IP, udp(w.addresses.zone4, d.addresses.zone4), w, d, source=GATEWAY_MAC),
    "a strange IPv4": lambda w, d: to(IP, udp("10.75.9.77", d.addresses.zone4), w, d),
    "the gateway's IPv4": lambda w, d: to(IP, udp(w.addresses.gateway4, d.addresses.zone4), w, d),
    "an outside IPv4": lambda w, d: to(IP, udp(OUTSIDE4, d.addresses.zone4), w, d),
    "a strange IPv6": lambda w, d: to(IP6, udp("fd5a:6f6e:6577:9::77", d.addresses.zone6), w, d),
    "the gateway's link-local": lambda w, d: to(IP6, udp("fe80::1", d.addresses.zone6), w, d),
    "the gateway's ARP": lambda w, d: to(ARP, arp(w.addresses.zone_mac, w.addresses.gateway4, d.addresses.zone4), w, d),
    "ARP with a strange MAC": lambda w, d: to(ARP, arp(STRANGE_MAC, w.addresses.zone4, d.addresses.zone4), w, d),
    "an advertisement of the gateway": lambda w, d: to(
        IP6,
        discovery(
            136, w.addresses.zone6, d.addresses.zone6, w.addresses.gateway6, says(2, w.addresses.zone_mac)
        ), w, d,
    ),
    "an advertisement of the gateway without option": lambda w, d: to(
        IP6, discovery(136, w.addresses.zone6, d.addresses.zone6, w.addresses.gateway6, b""), w, d
    ),
    "an advertisement with a strange MAC": lambda w, d: to(
        IP6,
        discovery(136, w.addresses.zone6, d.addresses.zone6, w.addresses.zone6, says(2, STRANGE_MAC)), w, d,
    ),
    "a solicitation with a strange MAC": lambda w, d: to(
        IP6,
        discovery(135, w.addresses.zone6, d.addresses.zone6, d.addresses.zone6, says(1, STRANGE_MAC)), w, d,
    ),
    "a solicitation with two options": lambda w, d: to(
        IP6,
        discovery(
            135, w.addresses.zone6, d.addresses.zone6, d.addresses.zone6,
            says(1, w.addresses.zone_mac) + says(1, STRANGE_MAC),
        ), w, d,
    ),
    "a router's advertisement": lambda w, d: to(
        IP6, discovery(134, w.addresses.zone_link_local, d.addresses.zone6, "::", b""), w, d
    ),
    "a router's advertisement of the zone's address": lambda w, d: to(
        IP6, discovery(134, w.addresses.zone6, d.addresses.zone6, "::", b""), w, d
    ),
    "a redirect": lambda w, d: to(
        IP6, discovery(137, w.addresses.zone6, d.addresses.zone6, d.addresses.zone6, bytes(16)), w, d
    ),
    "an extension header": lambda w, d: to(
        IP6, ip(packed(w.addresses.zone6), packed(d.addresses.zone6), 0, bytes([17, 0, 1, 4, 0, 0, 0, 0])), w, d
    ),
    "a VLAN": lambda w, d: to(VLAN, b"\0\x07\x08\0" + udp(w.addresses.zone4, d.addresses.zone4), w, d),
    "VLAN 0": lambda w, d: to(VLAN, b"\0\0\x08\0" + udp(w.addresses.zone4, d.addresses.zone4), w, d),
    "a broadcast": lambda w, d: frame(
        w.addresses.zone_mac, "ff:ff:ff:ff:ff:ff", IP, udp(w.addresses.zone4, "255.255.255.255")
    ),
    "a multicast": lambda w, d: frame(
        w.addresses.zone_mac, "33:33:00:00:00:01", IP6, udp(w.addresses.zone6, "ff02::1")
    ),
    "another protocol": lambda w, d: to(0x88CC, bytes(46), w, d),
}  # fmt: skip


def test_zone_speaks_with_its_own_addresses_and_no_others(wire: Wire, pair: tuple[Neighbour, Neighbour]) -> None:
    lost = [name for name, make in HONEST.items() if not wire.passes(make(*pair))]
    passed = [name for name, make in SPOOFED.items() if not wire.stops(make(*pair))]
    assert (lost, passed) == ([], [])


def test_zone_with_anothers_addresses_and_mac_is_not_heard(world: World, shared: SharedNetwork) -> None:
    """All it says fits together, and to another port: that of a third zone."""
    web, db, thief = shared.zone("web", 2), shared.zone("db", 3), shared.zone("thief", 4)
    serve_name(world, db)
    wire = Wire(thief, db)
    stolen = udp(web.addresses.zone4, db.addresses.zone4)
    try:
        assert wire.stops(to(IP, stolen, web, db))
        assert wire.passes(to(IP, udp(thief.addresses.zone4, db.addresses.zone4), thief, db))
    finally:
        wire.close()
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    world.ip(thief.namespace, f"link set eth0 address {web.addresses.zone_mac}")
    assert reaches(thief, OUTSIDE4, 8080, timeout_s=0.5) is None
    assert reaches(web, OUTSIDE4, 8080) == b"hi"


def test_third_zone_gets_nothing_of_what_two_say(shared: SharedNetwork) -> None:
    web, db, third = shared.zone("web", 2), shared.zone("db", 3), shared.zone("third", 4)
    wire = Wire(web, third)
    try:
        assert wire.stops(to(IP, udp(web.addresses.zone4, db.addresses.zone4), web, db))
        stranger = frame(web.addresses.zone_mac, STRANGE_MAC, IP, udp(web.addresses.zone4, db.addresses.zone4))
        assert wire.stops(stranger), "a MAC that nobody has"
    finally:
        wire.close()


# -- coming and going --------------------------------------------------------------------------------------------------


def test_zone_that_leaves_leaves_the_others_as_they_are(world: World, pair: tuple[Neighbour, Neighbour]) -> None:
    web, db = pair
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(connection.recv(9) or b"end"))
    with web.inside(lambda: socket.create_connection((OUTSIDE4, 8080), 30)) as talk:
        ((_, port),) = world.on_host(lambda: db.network.publish([Port(HOST4, 0, 80)]))
        engine = web.network.engine
        assert engine is not None and engine.zones() == ["db", "web"]
        db.network.destroy()
        db.network.destroy()
        assert engine.zones() == ["web"]
        with pytest.raises(ConnectionRefusedError):
            world.of(world.outside, lambda: socket.create_connection((HOST4, port), 30))
        assert reaches(web, db.addresses.zone4, timeout_s=0.3) is None
        assert reaches(db, OUTSIDE4, 8080, timeout_s=0.3) is None, "its port is nobody's"
        talk.sendall(b"on")
        assert talk.recv(9) == b"on"
    kinds = [record["kind"] for record in db.records]
    assert kinds == ["net.member", "net.vif", "net.listener"]


def test_zone_whose_vif_went_with_its_domain_leaves_like_any_other(
    world: World, shared: SharedNetwork, pair: tuple[Neighbour, Neighbour]
) -> None:
    web, db = pair
    world.ip(shared.segment.netns, f"link del {web.vif}")
    web.network.destroy()
    assert list(shared.segment.zones) == ["db"]
    assert db.network.engine is not None and db.network.engine.zones() == ["db"]


def test_address_of_a_zone_that_left_is_the_next_ones(world: World, shared: SharedNetwork) -> None:
    first = shared.zone("first", 2)
    first.network.destroy()
    netns.delete(first.namespace)
    world.wait_until(lambda: first.vif not in world.shell(shared.segment.netns, "ip -o link"))
    second = shared.zone("second", 2)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    assert reaches(second, OUTSIDE4, 8080) == b"hi"


def test_name_that_is_in_already_is_refused_and_its_zone_goes_on(world: World, shared: SharedNetwork) -> None:
    web = shared.zone("web", 2)
    again = ZoneNetwork("web", shared.zone("other", 3).addresses, 1500, web.network._record, segment=shared.segment)
    with pytest.raises(NetworkFault, match="zone web: expected it not in the network of network"):
        world.on_host(again.create)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    assert reaches(web, OUTSIDE4, 8080) == b"hi"


def test_zone_whose_vif_does_not_come_is_out_again(
    world: World, pair: tuple[Neighbour, Neighbour], shared: SharedNetwork
) -> None:
    late = Neighbour(shared, "late", 4, {})
    world.on_host(late.network.create)
    with pytest.raises(NetworkFault, match=r"interface vif104\.0"):
        world.on_host(lambda: late.network.attach(late.vif))
    assert sorted(shared.segment.zones) == ["db", "web"]
    assert reaches(pair[0], pair[1].addresses.zone4) == b"db"


def test_shared_network_does_not_touch_the_host(world: World) -> None:
    before = world.state_of_host()
    shared = SharedNetwork(world)
    for name, host, limit in (("one", 2, 8_000_000), ("two", 3, 0)):
        shared.zone(name, host, bandwidth_bit_s=limit, egress=("allow 127.0.0.1 80",))
    assert world.state_of_host() == before


def test_nothing_is_left_of_a_network_that_is_destroyed(world: World, shared: SharedNetwork) -> None:
    before = world.state_of_host()
    pid = pid_of(shared)
    web = shared.zone("web", 2)
    web.network.destroy()
    shared.segment.destroy()
    shared.segment.destroy()
    assert not netns.path_of(shared.segment.netns).exists()
    assert not os.path.exists(f"/proc/{pid}")
    assert list((world.directory / "run").glob("*")) == []
    assert world.state_of_host() == before


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_dead_engine_is_replaced_for_all_its_zones(
    world: World, shared: SharedNetwork, pair: tuple[Neighbour, Neighbour]
) -> None:
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    ((_, port),) = world.on_host(lambda: pair[1].network.publish([Port(HOST4, 0, 80)]))
    os.kill(pid_of(shared), signal.SIGKILL)
    world.wait_until(lambda: not shared.segment.alive())
    assert reaches(pair[0], pair[1].addresses.zone4) == b"db", "zone to zone needs no engine"
    world.on_host(shared.segment.revive)
    assert [reaches(zone, OUTSIDE4, 8080) for zone in pair] == [b"hi", b"hi"]
    with world.of(world.outside, lambda: socket.create_connection((HOST4, port), 30)) as connection:
        assert connection.recv(9) == b"db"


def test_next_zoned_adopts_the_network_and_then_its_zones(
    world: World, shared: SharedNetwork, pair: tuple[Neighbour, Neighbour]
) -> None:
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    gone = shared.zone("gone", 4)
    ((_, port),) = world.on_host(lambda: pair[1].network.publish([Port(HOST4, 0, 80)]))
    abandon(gone.network, *(zone.network for zone in pair))
    shared.segment = shared.new_segment()
    assert shared.segment.adopt(shared.records)
    for zone in pair:
        assert world.on_host(lambda zone=zone: again(shared, zone).adopt(zone.records))
    assert [item.port for item in pair[1].network.published()] == [port]
    shared.segment.forget_others()
    assert pair[0].network.engine is not None and pair[0].network.engine.zones() == ["db", "web"]
    assert [reaches(zone, OUTSIDE4, 8080) for zone in pair] == [b"hi", b"hi"]
    os.kill(pid_of(shared), signal.SIGKILL)
    world.wait_until(lambda: not shared.segment.alive())
    world.on_host(shared.segment.revive)
    assert [reaches(zone, OUTSIDE4, 8080) for zone in pair] == [b"hi", b"hi"]


def test_zone_that_the_engine_was_never_told_of_is_adopted_and_the_others_stay_as_they_are(
    world: World, shared: SharedNetwork, pair: tuple[Neighbour, Neighbour]
) -> None:
    late = Neighbour(shared, "late", 4, {})
    shared.plug(late)
    world.stack.callback(lambda: late.network.destroy())
    world.on_host(late.network.create)
    world.on_host(lambda: late.network.attach(late.vif))
    abandon(late.network, *(zone.network for zone in pair))
    shared.segment = shared.new_segment()
    assert shared.segment.adopt(shared.records)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    for zone in (late, *pair):
        assert world.on_host(lambda zone=zone: again(shared, zone).adopt(zone.records))
        assert [reaches(each, OUTSIDE4, 8080) for each in pair] == [b"hi", b"hi"]
    shared.segment.forget_others()
    assert [reaches(zone, OUTSIDE4, 8080) for zone in (late, *pair)] == [b"hi", b"hi", b"hi"]


def test_ledger_of_a_zone_alone_takes_it_out_of_the_engine(
    world: World, shared: SharedNetwork, pair: tuple[Neighbour, Neighbour]
) -> None:
    ((_, port),) = world.on_host(lambda: pair[1].network.publish([Port(HOST4, 0, 80)]))
    abandon(*(zone.network for zone in pair))
    teardown(pair[1].records)
    teardown(pair[1].records)
    assert pair[0].network.engine is not None and pair[0].network.engine.zones() == ["web"]
    with pytest.raises(ConnectionRefusedError):
        world.of(world.outside, lambda: socket.create_connection((HOST4, port), 30))
    assert netns.path_of(shared.segment.netns).exists()


def test_more_zones_than_there_is_room_for_are_refused(shared: SharedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.zone("web", 2)
    monkeypatch.setattr("runtime.net.segment.MOST_ZONES", 1)
    with pytest.raises(RuntimeFault, match="expected at most 1 zones, got one more"):
        shared.zone("db", 3)
