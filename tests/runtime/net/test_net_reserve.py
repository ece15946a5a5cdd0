"""Who keeps which addresses."""

from __future__ import annotations

import pytest

from runtime.net.errors import AddressesExhausted, AddressTaken, BadAddress
from runtime.net.plan import Doors, Place
from runtime.net.reserve import Reservation, Reservations, parse_static
from runtime.net.rules import nft_ruleset


def test_owner_keeps_its_addresses_until_they_are_released() -> None:
    table = Reservations()
    first, second = table.reserve("a"), table.reserve("b")
    assert (first.index, second.index) == (0, 1)
    assert table.reserve("a") == first
    table.release("a")
    table.release("a")
    assert table.of("a") is None
    assert table.reserve("c").addresses.zone4 == "10.75.0.2"
    assert table.of("b") == second


def test_rows_survive_a_restart() -> None:
    table = Reservations()
    table.reserve("a", address="10.75.9.77")
    table.reserve("b")
    again = Reservations(table.rows())
    assert again.rows() == table.rows() == (Reservation("b", 0), Reservation("a", 9, 77))
    assert again.reserve("c").index == 1


@pytest.mark.parametrize("address", ["10.75.7.9", "fd5a:6f6e:6577:7::9"])
def test_static_address_is_given_in_both_families(address: str) -> None:
    addresses = Reservations().reserve("a", address=address).addresses
    assert (addresses.zone4, addresses.zone6) == ("10.75.7.9", "fd5a:6f6e:6577:7::9")
    assert (addresses.gateway4, addresses.zone_mac) == ("10.75.7.1", "00:16:3e:4b:07:09")
    assert "ip saddr 10.75.7.9 goto from_zone4" in nft_ruleset(addresses, [Place(addresses, Doors(1, 2, 3, 4))])


def test_static_address_in_anothers_network_is_refused_with_whose_it_is() -> None:
    table = Reservations()
    table.reserve("a", address="10.75.7.9")
    with pytest.raises(AddressTaken, match="expected its network free, got a has it"):
        table.reserve("b", address="10.75.7.10")
    with pytest.raises(AddressTaken, match=r"addresses of a: expected 10\.75\.7\.10, got it has others"):
        table.reserve("a", address="10.75.7.10")
    assert table.reserve("a", address="10.75.7.9").index == 7


@pytest.mark.parametrize(
    "text", ["", "x", "192.0.2.1", "10.75.3.0", "10.75.3.1", "10.75.3.255", "10.76.0.2", "fe80::1",
             "fd5a:6f6e:6577:1::1", "fd5a:6f6e:6577:1:1::2", "fd5a:6f6e:6577:100::2", "10.75.3.2/24"],
)  # fmt: skip
def test_address_no_zone_can_have_is_refused(text: str) -> None:
    with pytest.raises(BadAddress, match=r"an address of 10\.75\.0\.0/16"):
        parse_static(text)


def test_full_pool_is_said() -> None:
    table = Reservations(Reservation(str(index), index) for index in range(256))
    with pytest.raises(AddressesExhausted):
        table.reserve("one more")
