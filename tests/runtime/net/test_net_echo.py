"""ICMP and ICMPv6 echo of a zone to the outside, for real."""

from __future__ import annotations

import os
import re
import socket

import pytest
from support.networld import BLACK_HOLE, BLACK_HOLE6, HOST4, OUTSIDE4, OUTSIDE6, World
from support.tools import require

from runtime.net.engine import packet
from runtime.net.engine.model import Limits

pytestmark = pytest.mark.root

BOTH = pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
FAR4, FAR6 = "192.0.2.9", "2001:db8:9::9"


def ping(world: World, address: str, *options: str, count: int = 1) -> str:
    """What ping says in the zone."""
    require("ping")
    command = ["ping", "-n", f"-c{count}", "-i0.05", "-W20", *options, address]
    return world.shell(world.zone, f"{' '.join(command)} 2>&1 || true")


def received(said: str) -> int:
    match = re.search(r"(\d+) received", said)
    assert match is not None, said
    return int(match[1])


def far_away(world: World, address: str) -> tuple[str, str]:
    """Have the network up and this address behind a router and a narrow link; the hops before it, as the zone sees."""
    zone = world.addresses
    gateway, router = (zone.gateway6, OUTSIDE6) if ":" in address else (zone.gateway4, OUTSIDE4)
    world.behind_a_narrow_link(address)
    world.ip(world.host, f"route add {address} via {router}")
    world.up()
    world.meet(address)
    return gateway, router


def is_too_far_for(hop: str, said: str) -> bool:
    return re.search(rf"From {hop} .*(exceeded|Hop limit)", said) is not None


@BOTH
@pytest.mark.parametrize("size", [8, 56, 1400])
def test_host_that_is_there_answers(world: World, address: str, size: int) -> None:
    network = world.up()
    world.meet()
    assert received(ping(world, address, f"-s{size}", count=5)) == 5
    counters = network.counters()
    assert (counters["echoes"], counters["malformed"], counters["faults"]) == (5, 0, 0)


@BOTH
@pytest.mark.parametrize("size", [1473, 3000, 20000, 60000])
def test_ping_larger_than_the_mtu_is_answered(world: World, address: str, size: int) -> None:
    """In fragments there and back, and as a whole where it is looked at."""
    network = world.up()
    world.meet()
    said = ping(world, address, f"-s{size}", count=3)
    assert received(said) == 3 and f"{size + 8} bytes from {address}" in said
    counters = network.counters()
    assert (counters["echoes"], counters["malformed"], counters["faults"]) == (3, 0, 0)


@pytest.mark.parametrize("which", ["gateway4", "gateway6"])
def test_ping_larger_than_the_mtu_to_the_gateway_is_the_kernels_to_answer(world: World, which: str) -> None:
    network = world.up()
    world.meet()
    assert received(ping(world, getattr(world.addresses, which), "-s3000")) == 1
    assert network.counters()["echoes"] == 0


@pytest.mark.parametrize("address", [HOST4, "fd00:ec2::254"])
def test_ping_larger_than_the_mtu_is_judged_as_any_other(world: World, address: str) -> None:
    network = world.up()
    said = ping(world, address, "-s3000")
    assert re.search(r"(Packet filtered|Administratively prohibited)", said), said
    assert (network.counters()["denied"], network.counters()["echoes"]) == (1, 0)


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_ping_larger_than_the_path_takes_goes_on_in_fragments_where_it_came_in_fragments(
    world: World, address: str
) -> None:
    far_away(world, address)
    assert received(ping(world, address, "-Mdo", "-s1400")) == 0, "the zone is told, and from here on sends fragments"
    assert received(ping(world, address, "-Mdont" if ":" not in address else "-Mwant", "-s1400", count=3)) >= 2


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_large_ping_says_how_many_hops_it_had_left(world: World, address: str) -> None:
    gateway, _ = far_away(world, address)
    assert is_too_far_for(gateway, ping(world, address, "-t1", "-s3000"))
    assert received(ping(world, address, "-t3", "-s3000", count=3)) >= 2


def test_unfinished_fragments_are_bounded_and_do_not_stay_for_long(world: World) -> None:
    network = world.up()
    names = ("ipv4/ipfrag", "netfilter/nf_conntrack_frag6")
    said = [world.shell(network.netns, f"cd /proc/sys/net; cat {name}_high_thresh {name}_time*") for name in names]
    assert [text.split() for text in said] == [[str(1 << 20), "10"]] * 2


def test_fragments_of_other_icmp_do_not_pass_the_guard(world: World) -> None:
    """A timestamp request and an echo reply, in two fragments each: the kernel would take them for itself."""
    network = world.up()
    zone, gateway = (socket.inet_aton(text) for text in (world.addresses.zone4, world.addresses.gateway4))
    with world.in_zone(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as raw:
        for kind in (13, 0):
            body = bytes([kind, 0, 0, 0]) + bytes(2000)
            message = body[:2] + packet.checksum(body).to_bytes(2, "big") + body[4:]
            for piece in packet.fragments(packet.ip_packet(zone, gateway, packet.ICMP, message), 1500, 7):
                raw.sendto(piece, (world.addresses.gateway4, 0))
    assert received(ping(world, world.addresses.gateway4)) == 1
    counted = world.shell(network.netns, "nstat -asz IcmpInMsgs IcmpInTimestamps IcmpInEchoReps IcmpInEchos")
    values = {line.split()[0]: int(line.split()[1]) for line in counted.splitlines() if line.startswith("Icmp")}
    assert (values["IcmpInTimestamps"], values["IcmpInEchoReps"], values["IcmpInEchos"]) == (0, 0, 1)


@BOTH
def test_two_pings_at_once_get_their_own_answers(world: World, address: str) -> None:
    require("ping")
    world.up()
    world.meet()
    one = f"ping -n -c20 -i0.02 -W20 {address}"
    said = world.shell(world.zone, f"{one} > {world.directory}/a & {one}; wait; cat {world.directory}/a")
    assert said.count("20 received") == 2
    assert "DUP" not in said


@pytest.mark.parametrize("hole", [BLACK_HOLE, BLACK_HOLE6])
def test_host_that_is_not_there_is_not_answered_for(world: World, hole: str) -> None:
    world.up()
    assert received(ping(world, hole, "-W1")) == 0


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_unreachable_of_the_host_comes_from_the_gateway(world: World, address: str) -> None:
    world.up()
    world.ip(world.host, "route del default")
    said = ping(world, address)
    gateway = world.addresses.gateway6 if ":" in address else world.addresses.gateway4
    assert re.search(rf"From {gateway} .*(Net Unreachable|No route)", said), said


@pytest.mark.parametrize(("address", "router"), [("192.0.2.77", "203.0.113.2"), ("2001:db8:77::1", OUTSIDE6)])
def test_unreachable_of_a_router_comes_from_the_router(world: World, address: str, router: str) -> None:
    world.shell(world.outside, "cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding")
    world.ip(world.host, f"route add ::/0 via {OUTSIDE6}")
    world.up()
    world.meet()
    said = ping(world, address)
    assert re.search(rf"From {router} .*(Net Unreachable|No route)", said), said


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_way_of_a_packet_is_seen_hop_by_hop(world: World, address: str) -> None:
    """As traceroute does: few hops, and who says that there were too few."""
    gateway, router = far_away(world, address)
    assert is_too_far_for(gateway, ping(world, address, "-t1"))
    assert is_too_far_for(router, ping(world, address, "-t2"))
    assert received(ping(world, address, "-t3")) == 1


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_path_mtu_of_a_router_reaches_the_zone(world: World, address: str) -> None:
    far_away(world, address)
    family = "-6 " if ":" in address else ""
    for _ in range(2):  # from the router; then the host's kernel knows it itself
        said = ping(world, address, "-Mdo", "-s1400")
        assert received(said) == 0
        assert "mtu 1300" in world.shell(world.zone, f"ip {family}route get {address}")
        world.shell(world.zone, f"ip {family}route flush cache")
    assert received(ping(world, address, "-Mdo", "-s1200")) == 1


@pytest.mark.parametrize("address", [HOST4, "10.75.8.2", "fd00:ec2::254"])
def test_closed_destination_is_prohibited(world: World, address: str) -> None:
    network = world.up()
    said = ping(world, address)
    assert received(said) == 0
    assert re.search(r"(Packet filtered|Administratively prohibited)", said), said
    assert network.counters()["denied"] == 1


@pytest.mark.parametrize(("address", "hole"), [(OUTSIDE4, BLACK_HOLE), (OUTSIDE6, BLACK_HOLE6)])
def test_flood_is_bounded_and_the_next_ping_passes(world: World, address: str, hole: str) -> None:
    world.network = world.new_network(limits=Limits(echoes=8))
    network = world.up()
    world.meet()
    ping(world, hole, "-f", "-W1", count=300)
    assert received(ping(world, address)) == 1
    assert network.counters()["faults"] == 0


def test_answers_to_other_programs_of_the_host_are_nobodys_business(world: World) -> None:
    """The engine's raw socket is the host's: its filter lets only the engine's own answers in."""
    require("ping")
    network = world.up()
    world.meet()
    assert network.engine is not None
    before = cpu_of(network.engine.pid)
    world.shell(world.host, f"ping -n -q -f -c3000 {OUTSIDE4}")
    assert cpu_of(network.engine.pid) - before <= 2


def cpu_of(pid: int) -> int:
    """Clock ticks a process has run: proc(5), stat fields 14 and 15."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_ping_works_again_after_the_engine_died(world: World) -> None:
    network = world.up()
    assert network.engine is not None
    os.kill(network.engine.pid, 9)
    world.wait_until(lambda: not network.alive())
    world.on_host(network.revive)
    assert received(ping(world, OUTSIDE4)) == 1
