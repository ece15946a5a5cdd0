"""Addresses follow from the index alone."""

from __future__ import annotations

import pickle
from ipaddress import ip_address, ip_interface

import pytest

from runtime.net.addresses import allocate_index, parse_static, plan_addresses
from runtime.net.errors import AddressesExhausted, BadAddress
from runtime.net.pool import DEFAULT

POOL_SIZE = DEFAULT.networks


def test_known_index_gives_these_addresses() -> None:
    planned = plan_addresses(3)
    assert (planned.zone4, planned.gateway4, planned.prefix4) == ("10.75.3.2", "10.75.3.1", 24)
    assert (planned.zone6, planned.gateway6, planned.prefix6) == ("fd5a:6f6e:6577:3::2", "fd5a:6f6e:6577:3::1", 64)
    assert (planned.zone_mac, planned.gateway_mac) == ("00:16:3e:4b:03:02", "02:7a:77:00:00:01")
    assert planned.zone_link_local == "fe80::216:3eff:fe4b:302"


def test_networks_lie_in_their_pools_and_share_nothing_but_the_gateways_mac() -> None:
    plans = [plan_addresses(index) for index in range(POOL_SIZE)]
    for planned in plans:
        assert ip_address(planned.zone4) in DEFAULT.v4
        assert ip_address(planned.zone6) in DEFAULT.v6
    assert len({ip_interface(f"{p.zone4}/{p.prefix4}").network for p in plans}) == POOL_SIZE
    assert len({ip_interface(f"{p.zone6}/{p.prefix6}").network for p in plans}) == POOL_SIZE
    assert len({planned.zone_mac for planned in plans}) == POOL_SIZE
    assert len({planned.gateway_mac for planned in plans}) == 1


@pytest.mark.parametrize("host", [-1, 0, 1, 255, 256])
def test_zone_is_neither_its_networks_gateway_nor_its_own_or_broadcast_address(host: int) -> None:
    with pytest.raises(BadAddress, match=f"^host of zone network 3: expected from 2 to 254, got {host}$"):
        plan_addresses(3, host=host)


@pytest.mark.parametrize(("used", "free"), [((), 0), ((0, 1, 3), 2), ((1, 2), 0), (range(255), 255)])
def test_smallest_free_index_is_taken(used: tuple[int, ...], free: int) -> None:
    assert allocate_index(used) == free


def test_exhaustion_is_told_with_what_to_do() -> None:
    with pytest.raises(AddressesExhausted, match=r"10\.75\.0\.0/16.*all 256 used.*stop a zone") as caught:
        allocate_index(range(POOL_SIZE))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("index", [-1, POOL_SIZE])
def test_index_outside_the_pool_is_refused(index: int) -> None:
    with pytest.raises(AddressesExhausted):
        plan_addresses(index)


@pytest.mark.parametrize("address", ["10.75.7.9", "fd5a:6f6e:6577:7::9"])
def test_static_address_is_given_in_both_families(address: str) -> None:
    index, host = parse_static(address)
    addresses = plan_addresses(index, host=host)
    assert (addresses.zone4, addresses.zone6) == ("10.75.7.9", "fd5a:6f6e:6577:7::9")
    assert (addresses.gateway4, addresses.zone_mac) == ("10.75.7.1", "00:16:3e:4b:07:09")


@pytest.mark.parametrize(
    "text", ["", "x", "192.0.2.1", "10.75.3.0", "10.75.3.1", "10.75.3.255", "10.76.0.2", "fe80::1",
             "fd5a:6f6e:6577:1::1", "fd5a:6f6e:6577:1:1::2", "fd5a:6f6e:6577:100::2", "10.75.3.2/24"],
)  # fmt: skip
def test_address_no_zone_can_have_is_refused(text: str) -> None:
    with pytest.raises(BadAddress, match=r"an address of 10\.75\.0\.0/16"):
        parse_static(text)
