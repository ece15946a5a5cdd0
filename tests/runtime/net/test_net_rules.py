"""The text of a network's rules."""

from __future__ import annotations

import re

import pytest

from runtime.net.addresses import GATEWAY_MAC, plan_addresses
from runtime.net.plan import Doors, Place
from runtime.net.rules import nft_ruleset

WEB, DB = plan_addresses(3), plan_addresses(3, host=3)
PLACES = [Place(WEB, Doors(1001, 1002, 1003, 1004)), Place(DB, Doors(2001, 2002, 2003, 2004))]


def chain(ruleset: str, table: str, name: str) -> list[str]:
    """The rules of a chain, without the line of its hook."""
    body = ruleset.split(f"table {table} {{")[1].split(f" chain {name} {{")[1].split("\n }\n")[0]
    return [line.strip() for line in body.splitlines() if line and "hook" not in line]


@pytest.mark.parametrize("places", [PLACES, []])
def test_every_chain_on_a_hook_says_its_policy_and_what_comes_in_is_dropped(places: list[Place]) -> None:
    hooks = [line.strip() for line in nft_ruleset(WEB, places).splitlines() if "hook" in line]
    assert len(hooks) == 5
    assert all("policy" in line for line in hooks)
    assert all("policy drop" in line for line in hooks if "prerouting" in line)
    assert "policy drop" in next(line for line in hooks if "hook forward" in line and hooks.index(line) > 1)


@pytest.mark.parametrize("place", PLACES)
def test_every_way_past_the_guard_names_the_zones_own_addresses_first(place: Place) -> None:
    zone = place.addresses
    rules = chain(nft_ruleset(WEB, PLACES), "bridge guard", f"zone_{zone.host}")
    assert rules[0] == f"ether saddr != {zone.zone_mac} goto refused_{zone.host}"
    assert rules[-1] == f"goto refused_{zone.host}"
    own = {zone.zone4, zone.zone6, zone.zone_link_local}
    for rule in rules[1:-1]:
        assert re.search(r"accept$|jump from_zone[46]$|jump discover_\d+$", rule)
        named = set(re.findall(r"10\.75\.\d+\.\d+|f[de][0-9a-f]{2}:[0-9a-f:]*", rule))
        assert named and named <= own, rule


def test_a_zone_is_told_by_its_port() -> None:
    rules = chain(nft_ruleset(WEB, PLACES), "bridge guard", "prerouting")
    assert rules[-1] == "meta iifgroup vmap { 2 : goto zone_2, 3 : goto zone_3 }"
    assert "accept" not in " ".join(rules)


@pytest.mark.parametrize(("name", "verdict"), [("from_zone4", "accept"), ("from_zone6", "goto to_zone6")])
def test_what_is_neither_for_a_zone_nor_for_the_gateways_mac_is_refused(name: str, verdict: str) -> None:
    rules = chain(nft_ruleset(WEB, PLACES), "bridge guard", name)
    assert rules[:3] == [
        "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 return",
        f"ether daddr & ff:ff:ff:ff:ff:00 == 00:16:3e:4b:03:00 {verdict}",
        f"ether daddr != {GATEWAY_MAC} return",
    ]
    assert rules[-1] == "return"


def test_nobody_gets_past_the_guard_of_a_network_without_zones() -> None:
    ruleset = nft_ruleset(WEB, [])
    assert "vmap" not in ruleset
    assert chain(ruleset, "bridge guard", "prerouting") == ["ether type != { ip, ip6, arp } drop"]


def test_isolated_zones_are_kept_apart_both_ways() -> None:
    apart = [PLACES[0], PLACES[1]._replace(isolated=True)]
    forward = chain(nft_ruleset(WEB, apart), "bridge guard", "forward")
    assert forward == ["meta iifgroup { 3 } drop", "meta oifgroup { 3 } drop"]
    assert chain(nft_ruleset(WEB, PLACES), "bridge guard", "forward") == []


def test_engine_ports_are_where_tproxy_leads_for_each_zone() -> None:
    ruleset = nft_ruleset(WEB, PLACES)
    for number, base in ((2, 1000), (3, 2000)):
        rules = chain(ruleset, "inet divert", f"zone_{number}")
        ports = [int(re.findall(r"tproxy ip6? to \S+:(\d+) accept", rule)[0]) for rule in rules]
        assert ports == [base + 1, base + 2, base + 3, base + 4]
    assert chain(ruleset, "inet divert", "zones") == [
        "ip saddr vmap { 10.75.3.2 : goto zone_2, 10.75.3.3 : goto zone_3 }",
        "ip6 saddr vmap { fd5a:6f6e:6577:3::2 : goto zone_2, fd5a:6f6e:6577:3::3 : goto zone_3 }",
        "drop",
    ]


def test_syn_of_the_zone_meets_its_end_before_anything_lets_it_in() -> None:
    rules = chain(nft_ruleset(WEB, PLACES), "inet divert", "prerouting")
    end = rules.index("tcp flags & (syn | ack) == syn drop")
    # What is sent again; to the gateway's own addresses; neighbour discovery.
    assert [rule for rule in rules[:end] if re.search("accept|goto|jump", rule)] == [
        'iifname "lo" meta l4proto { tcp, udp } goto zones',
        f'iifname "lo" ip daddr {WEB.gateway4} icmp type echo-request accept',
        f'iifname "lo" ip6 daddr {WEB.gateway6} icmpv6 type echo-request accept',
        f"ip daddr {WEB.gateway4} jump gateway",
        f"ip6 daddr {WEB.gateway6} jump gateway",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
    ]
    assert chain(nft_ruleset(WEB, PLACES), "inet divert", "gateway") == [
        "meta l4proto { tcp, udp } th dport 53 goto zones",
        "meta l4proto { tcp, udp } return",
        "accept",
    ]


def test_fragment_of_a_zone_meets_its_end_before_the_kernel_puts_any_together() -> None:
    ruleset = nft_ruleset(WEB, PLACES)
    (hook,) = (line for line in ruleset.splitlines() if "priority -450" in line)
    assert hook.strip() == "type filter hook prerouting priority -450; policy drop;"
    assert chain(ruleset, "inet divert", "fragments") == [
        'iifname != "zw0" accept',
        "ip frag-off & 0x3fff == 0 accept",
        "ip6 nexthdr != ipv6-frag accept",
    ]


def test_no_datagram_of_the_zone_is_let_in_before_tproxy_has_seen_it() -> None:
    rules = chain(nft_ruleset(WEB, PLACES), "inet divert", "prerouting")
    assert [rule for rule in rules if rule.startswith("meta l4proto udp")] == [
        "meta l4proto udp jump zones",
        "meta l4proto udp socket wildcard 0 accept",
    ]


def test_nft_accepts_no_closing_brace_without_a_line_end_before_it() -> None:
    """nft 1.0.6 wants a newline or semicolon before a chain's brace; sets in one line are fine."""
    for line in nft_ruleset(WEB, PLACES).splitlines():
        if line.strip() != "}":
            assert line.count("{") - line.count("}") in (0, 1)
