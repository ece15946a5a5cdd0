"""Egress rules as people write them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from pipeline.bundle.egress import BadRule, Rule, parse_rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("allow 192.0.2.0/24", Rule(True, ip_network("192.0.2.0/24"), 0, 65535)),
        ("deny 192.0.2.7 25", Rule(False, ip_network("192.0.2.7/32"), 25, 25)),
        ("  allow\t2001:db8::/32   443-444 ", Rule(True, ip_network("2001:db8::/32"), 443, 444)),
        ("deny any", Rule(False, None, 0, 65535)),
        ("deny any 1-65535", Rule(False, None, 1, 65535)),
        ("allow 192.0.2.7 53/udp", Rule(True, ip_network("192.0.2.7/32"), 53, 53, "udp")),
        ("allow any 8000-8999/tcp", Rule(True, None, 8000, 8999, "tcp")),
        ("deny any udp", Rule(False, None, 0, 65535, "udp")),
        ("deny 2001:db8::/32 icmp", Rule(False, ip_network("2001:db8::/32"), 0, 65535, "icmp")),
    ],
)
def test_rule_is_read(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "`allow|deny"),
        ("allow", "`allow|deny"),
        ("permit 192.0.2.0/24", "`allow|deny"),
        ("allow 192.0.2.0/24 443 tcp", "`allow|deny"),
        ("allow any" + " " * 92, "`allow|deny"),
        ("allow example.org", "any, an address, or a network"),
        ("allow 192.0.2.1/24", "without bits behind its prefix"),
        ("allow fe80::1%eth0", "any, an address, or a network"),
        ("allow any 0", "a port from 1 to 65535"),
        ("allow any 65536", "a port from 1 to 65535"),
        ("allow any 444-443", "the lower one first"),
        ("allow any 443/", "/tcp or /udp behind it"),
        ("allow any 443/sctp", "/tcp or /udp behind it"),
        ("allow any 443/icmp", "/tcp or /udp behind it"),
        ("allow any /tcp", "or tcp, udp, icmp"),
        ("allow any sctp", "or tcp, udp, icmp"),
        ("allow any 443-", "a port from 1 to 65535"),
        ("allow any ٤٤٣", "a port from 1 to 65535"),
    ],
)
def test_what_is_no_rule_is_said(text: str, expected: str) -> None:
    with pytest.raises(BadRule) as failure:
        parse_rule(text)
    assert expected in failure.value.expected and repr(text) in str(failure.value)
