"""The table of what a zone may reach."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pipeline.bundle.egress import BadRule, parse_rule
from runtime.net.policy import check_rule, decide, may_open

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
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:1::1",
    "2002:7f00:1::1",
    "fe80::1",
    "febf::1",
    "fec0::2",
    "ff02::1",
    "fd00:ec2::23",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fd00:100::100:200",
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


def reaches(text: str, *rules: str, route: str = "unicast", port: int = 443, protocol: str = "tcp") -> bool:
    parsed = tuple(map(parse_rule, rules))
    return decide(ip_address(text), route=route, port=port, protocol=protocol, rules=parsed).allowed


def test_first_rule_that_matches_decides() -> None:
    rules = ("deny any 25", "allow 192.0.2.0/24 443-444", "deny 192.0.0.0/16", "deny 2001:db8::/32")
    assert reaches("192.0.2.7", *rules, port=444) and not reaches("192.0.2.7", *rules, port=445)
    assert not reaches("192.0.3.7", *rules) and reaches("198.51.100.1", *rules)
    assert not reaches("2001:db8::1", *rules) and reaches("2001:db9::1", *rules)
    assert not reaches("198.51.100.1", *rules, port=25) and not reaches("2001:db9::1", *rules, port=25)


def test_icmp_is_of_no_rule_with_ports() -> None:
    assert reaches("192.0.2.7", "deny any 1-65535", port=0) and not reaches("192.0.2.7", "deny any", port=0)


@pytest.mark.parametrize("text", ["192.0.2.7", "2001:db8::7"])
def test_rule_with_a_protocol_is_about_no_other(text: str) -> None:
    def open_to(*rules: str) -> set[str]:
        ports = {"tcp": 443, "udp": 443, "icmp": 0}
        return {name for name, port in ports.items() if reaches(text, *rules, port=port, protocol=name)}

    assert open_to("deny any 443/tcp") == {"udp", "icmp"}
    assert open_to("deny any 443/udp") == {"tcp", "icmp"}
    assert open_to("deny any udp") == {"tcp", "icmp"} and open_to("deny any icmp") == {"tcp", "udp"}
    assert open_to("allow any 443/udp", "deny any") == {"udp"} and open_to("allow any icmp", "deny any") == {"icmp"}
    assert open_to("deny any 444/tcp") == {"tcp", "udp", "icmp"} and open_to("deny any 443") == {"icmp"}


def test_closed_address_is_opened_by_the_rules_protocol_alone() -> None:
    rule = "allow 169.254.169.254 80/tcp"
    assert reaches("169.254.169.254", rule, port=80)
    assert not reaches("169.254.169.254", rule, port=80, protocol="udp")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("169.254.169.254", "allow 169.254.169.254 443"),
        ("169.254.7.7", "allow 169.254.0.0/16"),
        ("168.63.129.16", "allow 168.63.129.16/32"),
        ("fd00:ec2::254", "allow fd00:ec2::254"),
    ],
)
def test_what_is_closed_is_open_to_the_rule_that_names_it(text: str, rule: str) -> None:
    assert reaches(text, rule)
    assert not reaches(text, rule.replace("allow", "deny"), rule), "the first one decides here as well"
    for broad in ("allow any", "allow 0.0.0.0/0", "allow 168.0.0.0/7", "allow fd00::/8", "allow ::/0"):
        assert not reaches(text, broad)
        assert reaches(text, broad, rule), "a rule that does not name it is not about it"


def test_port_of_the_rule_is_all_that_is_opened() -> None:
    assert not reaches("169.254.169.254", "allow 169.254.169.254 80", port=443)
    assert not reaches("169.254.169.254", "allow 169.254.169.254 80", port=0)


@pytest.mark.parametrize("text", ["192.168.1.10", "2001:db8::10"])
def test_host_itself_is_open_to_the_rule_for_exactly_that_address(text: str) -> None:
    own = ip_network(text)
    around = own.supernet(new_prefix=own.max_prefixlen - 1)
    assert reaches(text, f"allow {text}", route="local")
    assert not reaches(text, f"allow {around}", "allow any", route="local")
    assert not reaches(text, f"allow {text}", route="broadcast")
    assert not reaches(text, f"deny {text}", f"allow {text}", route="local")


@pytest.mark.parametrize("text", ["127.0.0.1", "127.3.2.1", "::1"])
def test_loopback_is_open_to_the_rule_that_names_it(text: str) -> None:
    assert reaches(text, f"allow {text}", route="local")
    assert not reaches(text, "allow any", "allow ::/127", "allow 126.0.0.0/7", route="local")
    assert reaches(text, "allow 127.0.0.0/8", route="local") is (text != "::1")


def test_link_local_address_of_the_host_itself_is_not_opened_by_the_links_network() -> None:
    assert not reaches("169.254.9.9", "allow 169.254.0.0/16", route="local")
    assert reaches("169.254.9.9", "allow 169.254.9.9", route="local")


@pytest.mark.parametrize(
    "text",
    ["0.0.0.1", "224.0.0.1", "10.75.3.2", "::ffff:7f00:1", "::ffff:0:7f00:1", "64:ff9b::1", "fe80::1", "ff02::1"],
)
def test_some_addresses_no_rule_opens(text: str) -> None:
    rule = parse_rule(f"allow {text}")
    with pytest.raises(BadRule, match="what a rule can open, not"):
        check_rule(rule, f"allow {text}")
    assert not decide(ip_address(text), route="unicast", rules=(rule,)).allowed
    check_rule(parse_rule(f"deny {text}"), "")


def test_no_rule_opens_what_the_host_denies() -> None:
    deny, rules = (ip_network("10.0.2.0/24"),), (parse_rule("allow 10.0.2.2"),)
    assert not decide(ip_address("10.0.2.2"), route="unicast", deny=deny, rules=rules).allowed
    assert not decide(ip_address("10.0.2.2"), route="local", deny=deny, rules=rules).allowed


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("allow any", False),
        ("allow 0.0.0.0/0", False),
        ("allow 192.0.2.0/31", False),
        ("deny 169.254.169.254", False),
        ("allow 192.0.2.1", True),
        ("allow 169.254.0.0/17", True),
        ("allow 127.0.0.1 80", True),
    ],
)
def test_rules_that_may_open_what_is_closed_are_known(text: str, opens: bool) -> None:
    assert may_open(parse_rule(text)) is opens
