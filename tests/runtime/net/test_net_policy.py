"""The table of what a zone may reach."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from runtime.net.policy import decide

OPEN = [
    "1.1.1.1",
    "10.0.0.1",
    "10.74.255.255",
    "10.76.0.0",
    "192.168.1.1",
    "172.16.0.1",
    "203.0.113.5",
    "223.255.255.255",
    "169.253.255.255",
    "2606:4700::1111",
    "fd00::1",
    "fd5a:6f6e:6578::1",
    "fd00:ec2::253",
]
CLOSED = [
    "0.0.0.0",
    "0.255.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "10.75.0.1",
    "10.75.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:1.1.1.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:1::1",
    "2002:7f00:1::1",
    "fe80::1",
    "febf::1",
    "fec0::2",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd5a:6f6e:6577::1",
    "fd5a:6f6e:6577:ffff::2",
]


@pytest.mark.parametrize("text", OPEN)
def test_ordinary_destination_is_open(text: str) -> None:
    assert decide(ip_address(text), route="unicast").allowed


@pytest.mark.parametrize("text", CLOSED)
def test_special_destination_is_closed_whatever_its_route(text: str) -> None:
    for route in ("unicast", "local", None):
        verdict = decide(ip_address(text), route=route)
        assert not verdict.allowed
        assert verdict.reason


@pytest.mark.parametrize("route", ["local", "broadcast", "anycast", "multicast", "blackhole", "prohibit", "unknown"])
@pytest.mark.parametrize("text", ["192.168.1.10", "2001:db8::10"])
def test_only_unicast_routes_are_open(text: str, route: str) -> None:
    assert not decide(ip_address(text), route=route).allowed


def test_missing_route_is_left_to_the_connect_to_report() -> None:
    assert decide(ip_address("198.51.100.1"), route=None).allowed


def test_denied_network_closes_its_addresses_only() -> None:
    deny = (ip_network("10.0.2.0/24"), ip_network("2001:db8:5::/48"))
    assert not decide(ip_address("10.0.2.2"), route="unicast", deny=deny).allowed
    assert not decide(ip_address("2001:db8:5::1"), route="unicast", deny=deny).allowed
    assert decide(ip_address("10.0.3.2"), route="unicast", deny=deny).allowed
    assert decide(ip_address("2001:db8:6::1"), route="unicast", deny=deny).allowed
