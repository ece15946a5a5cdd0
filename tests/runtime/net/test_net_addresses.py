"""Addresses follow from the index alone."""

from __future__ import annotations

import pickle
from ipaddress import ip_address, ip_interface

import pytest

from runtime.net.addresses import POOL_SIZE, allocate_index, plan_addresses
from runtime.net.errors import AddressesExhausted
from runtime.net.pool import POOL4, POOL6


def test_known_index_gives_these_addresses() -> None:
    planned = plan_addresses(3)
    assert (planned.zone4, planned.gateway4, planned.prefix4) == ("10.75.3.2", "10.75.3.1", 24)
    assert (planned.zone6, planned.gateway6, planned.prefix6) == ("fd5a:6f6e:6577:3::2", "fd5a:6f6e:6577:3::1", 64)
    assert (planned.zone_mac, planned.gateway_mac) == ("00:16:3e:4b:03:02", "02:7a:77:00:00:01")
    assert planned.zone_link_local == "fe80::216:3eff:fe4b:302"


def test_networks_lie_in_their_pools_and_share_nothing_but_the_gateways_mac() -> None:
    plans = [plan_addresses(index) for index in range(POOL_SIZE)]
    for planned in plans:
        assert ip_address(planned.zone4) in POOL4
        assert ip_address(planned.zone6) in POOL6
    assert len({ip_interface(f"{p.zone4}/{p.prefix4}").network for p in plans}) == POOL_SIZE
    assert len({ip_interface(f"{p.zone6}/{p.prefix6}").network for p in plans}) == POOL_SIZE
    assert len({planned.zone_mac for planned in plans}) == POOL_SIZE
    assert len({planned.gateway_mac for planned in plans}) == 1


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
