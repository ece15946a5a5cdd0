"""The address pools are the host's to choose: read, clashes told, kept while networks are there."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.networld import OUTSIDE4, World, digest_then_echo, receive_all

from runtime.net import pool
from runtime.net.addresses import allocate_index, parse_static, plan_addresses
from runtime.net.engine.inflow import has_a_name
from runtime.net.errors import AddressesExhausted, BadAddress, BadPools
from runtime.net.hostpools import Route, clashes, read_pools, read_routes, settle
from runtime.net.policy import decide
from runtime.net.pool import DEFAULT, parse_pools

OTHER = parse_pools("172.30.8.0/22", "fd00:1:2::/62")


@pytest.fixture
def other() -> Iterator[None]:
    pool.use(OTHER)
    yield
    pool.use(DEFAULT)


def test_addresses_are_of_the_hosts_pools(other: None) -> None:
    planned = plan_addresses(3, host=9)
    assert (planned.zone4, planned.gateway4, planned.zone6) == ("172.30.11.9", "172.30.11.1", "fd00:1:2:3::9")
    assert parse_static("172.30.11.9") == parse_static("fd00:1:2:3::9") == (3, 9)
    with pytest.raises(AddressesExhausted, match=r"172\.30\.8\.0/22.*all 4 used"):
        allocate_index(range(4))
    with pytest.raises(BadAddress, match=r"an address of 172\.30\.8\.0/22 or fd00:1:2::/62"):
        parse_static("10.75.3.9")


def test_note_of_the_pools_is_whole_at_any_moment(tmp_path: Path) -> None:
    """A zoned that is killed as it writes one is followed by others that have to read it."""
    note = tmp_path / "pools"
    settle(OTHER, note, networks=False)
    with note.open() as before:
        settle(DEFAULT, note, networks=False)
        assert before.read().strip() == str(OTHER)
    assert note.read_text().strip() == str(DEFAULT)
    assert list(tmp_path.iterdir()) == [note]


def test_other_networks_are_closed_wherever_the_pools_are(other: None) -> None:
    for closed in ("172.30.9.2", "fd00:1:2:1::2"):
        assert decide(ip_address(closed), route="unicast").reason == "another zone network"
        assert not has_a_name(closed)
    for opened in ("10.75.1.2", "172.30.12.1", "fd5a:6f6e:6577::2"):
        assert decide(ip_address(opened), route="unicast").allowed
        assert has_a_name(opened)
    pool.use(DEFAULT)
    assert not decide(ip_address("10.75.1.2"), route="unicast").allowed
    assert decide(ip_address("172.30.9.2"), route="unicast").allowed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DEFAULT),
        ('pool4 = "172.30.8.0/22"', parse_pools("172.30.8.0/22", str(DEFAULT.v6))),
        ('pool4 = "172.30.8.0/22"\npool6 = "fd00:1:2::/62"', OTHER),
    ],
)
def test_file_names_the_pools(tmp_path: Path, text: str, expected: pool.Pools) -> None:
    assert read_pools(tmp_path / "none.toml") == DEFAULT
    (tmp_path / "network.toml").write_text(text)
    assert read_pools(tmp_path / "network.toml") == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('pool4 = "10.0.0.0/8"', r"prefix from /16 to /24.*got '10\.0\.0\.0/8'"),
        ('pool4 = "172.30.8.1/22"', r"got '172\.30\.8\.1/22'"),
        ('pool4 = "127.0.0.0/16"', r"got '127\.0\.0\.0/16'"),
        ('pool4 = "fd00::/48"', "expected an IPv4 network"),
        ('pool6 = "fe80::/48"', "expected an IPv6 network with a prefix from /48 to /64"),
        ('pool6 = "::ffff:0:0/96"', "expected an IPv6 network"),
        ("pool4 = 7", "got '7'"),
        ('pool = "10.1.0.0/16"', "expected pool4, pool6, got pool"),
        ("pool4 =", "expected a TOML file"),
    ],
)
def test_file_that_says_something_else_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "network.toml"
    path.write_text(text)
    with pytest.raises(BadPools, match=sentence) as caught:
        read_pools(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_networks_keep_their_pools(tmp_path: Path) -> None:
    note = tmp_path / "pools"
    with pytest.raises(
        BadPools, match=r"expected 10\.75\.0\.0/16 .* of which networks are there, got 172\.30\.8\.0/22"
    ):
        settle(OTHER, note, networks=True)  # made before pools were noted
    settle(OTHER, note, networks=False)
    settle(OTHER, note, networks=True)
    with pytest.raises(BadPools, match=r"expected 172\.30\.8\.0/22"):
        settle(DEFAULT, note, networks=True)
    settle(DEFAULT, note, networks=False)
    settle(DEFAULT, note, networks=True)


def test_clash_is_whatever_overlaps() -> None:
    routes = [
        Route(ip_network(text), "eth0")
        for text in ("10.75.3.0/24", "10.0.0.0/8", "10.76.0.0/16", "fd5a:6f6e:6577:1::/64", "2001:db8::/32")
    ]
    assert list(clashes(DEFAULT, routes)) == [
        ("10.75.0.0/16", "10.75.3.0/24 on eth0"),
        ("10.75.0.0/16", "10.0.0.0/8 on eth0"),
        ("fd5a:6f6e:6577::/48", "fd5a:6f6e:6577:1::/64 on eth0"),
    ]


@pytest.mark.root
def test_routes_and_addresses_of_a_host_are_found(world: World) -> None:
    world.ip(
        world.host,
        "address add 10.75.9.9/32 dev up0",
        f"route add 10.75.64.0/18 via {OUTSIDE4}",
        "route add fd5a:6f6e:6577:5::/64 dev up0",
    )
    found = world.on_host(lambda: read_routes(Path("/proc/thread-self/net")))
    assert not [route for route in found if route.device == "lo" or not route.network.prefixlen]
    assert set(clashes(DEFAULT, found)) == {
        ("10.75.0.0/16", "10.75.9.9/32 on this host"),
        ("10.75.0.0/16", "10.75.64.0/18 on up0"),
        ("fd5a:6f6e:6577::/48", "fd5a:6f6e:6577:5::/64 on up0"),
    }
    assert Route(ip_network("203.0.113.0/24"), "up0") in found
    assert not list(clashes(OTHER, found))


@pytest.mark.root
def test_zone_of_other_pools_is_served(world: World, other: None) -> None:
    """The engine is told of them: what is in its own pool is another network's, and closed."""
    world.addresses = planned = plan_addresses(1)
    world.network = world.new_network()
    world.ip(
        world.zone,
        f"link set eth0 address {planned.zone_mac}",
        "address flush dev eth0",
        f"address add {planned.zone4}/{planned.prefix4} dev eth0",
        f"route replace default via {planned.gateway4}",
    )
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    network = world.up()
    with world.connect(OUTSIDE4, port) as connection:
        connection.sendall(b"other")
        connection.shutdown(1)
        assert receive_all(connection)[32:] == b"other"
    with pytest.raises(ConnectionRefusedError):
        world.connect("172.30.8.2", port)
    counters = network.counters()
    assert (counters["accepted"], counters["denied"]) == (1, 1)
