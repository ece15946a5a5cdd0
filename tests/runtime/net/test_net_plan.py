"""The text of a network's plan."""

from __future__ import annotations

import pytest

from runtime.net import plan
from runtime.net.addresses import plan_addresses
from runtime.net.errors import NetworkFault

ADDRESSES = plan_addresses(3)
DOORS = plan.Doors(1001, 1002, 1003, 1004)

GOLDEN_IP = """\
link set lo up
link add zw0 address 02:7a:77:00:00:01 mtu 1500 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set zw0 addrgenmode none
address add 10.75.3.1/24 dev zw0
address add fd5a:6f6e:6577:3::1/64 dev zw0 nodad
address add fe80::1/64 dev zw0 nodad
link set zw0 up"""
GOLDEN_ROUTES = """\
route replace 10.75.3.0/24 dev zw0 src 10.75.3.1 table local
route replace fd5a:6f6e:6577:3::/64 dev zw0 table local
route replace fe80::/64 dev zw0 table local
route replace local 0.0.0.0/0 dev lo table local
route replace local ::/0 dev lo table local"""


def test_ip_lines_are_these() -> None:
    assert "\n".join(plan.ip_lines(ADDRESSES, 1500)) == GOLDEN_IP
    assert "\n".join(plan.route_lines(ADDRESSES)) == GOLDEN_ROUTES


def test_every_chain_on_a_hook_says_its_policy_and_the_guards_is_drop() -> None:
    ruleset = plan.nft_ruleset(ADDRESSES, DOORS)
    hooks = [line.strip() for line in ruleset.splitlines() if "hook" in line]
    assert len(hooks) == 3
    assert all("policy" in line for line in hooks)
    assert "policy drop" in next(line for line in hooks if "ingress" in line)
    assert "policy drop" in next(line for line in hooks if "forward" in line)
    assert "policy drop" in next(line for line in hooks if "prerouting" in line)


def test_every_way_past_the_guard_names_the_zones_own_addresses_first() -> None:
    ruleset = plan.nft_ruleset(ADDRESSES, DOORS)
    for chain, own in (("zone_ip4", ADDRESSES.zone4), ("zone_ip6", ADDRESSES.zone6)):
        body = ruleset.split(f"chain {chain} {{")[1].split("}\n chain")[0].splitlines()
        spoof = next(number for number, line in enumerate(body) if f"saddr != {own} counter drop" in line)
        for line in body[:spoof]:
            assert "accept" not in line or ADDRESSES.zone_link_local in line
        assert "drop" in [line.strip() for line in body]


def test_engine_ports_are_where_tproxy_leads() -> None:
    ruleset = plan.nft_ruleset(ADDRESSES, DOORS)
    assert "tproxy ip to 127.0.0.1:1001 accept" in ruleset
    assert "tproxy ip6 to [::1]:1002 accept" in ruleset
    assert "udp tproxy ip to 127.0.0.1:1003 accept" in ruleset
    assert "udp tproxy ip6 to [::1]:1004 accept" in ruleset


def test_syn_of_the_zone_meets_its_end_before_anything_lets_it_in() -> None:
    ruleset = plan.nft_ruleset(ADDRESSES, DOORS)
    lines = [line.strip() for line in ruleset.split("chain prerouting {")[1].split("}\n chain")[0].splitlines()]
    end = lines.index("tcp flags & (syn | ack) == syn drop")
    ahead = [line for line in lines[:end] if ("accept" in line or "jump gateway" in line) and "policy" not in line]
    # To the gateway's own addresses, and neighbour discovery.
    assert ahead == [
        f"ip daddr {ADDRESSES.gateway4} jump gateway",
        f"ip6 daddr {ADDRESSES.gateway6} jump gateway",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
    ]
    gateway = ruleset.split("chain gateway {")[1].split("}\n chain")[0].split("\n")
    assert [line.strip() for line in gateway if line.strip()] == [
        "meta l4proto { tcp, udp } th dport != 53 return",
        "accept",
    ]
    assert "policy drop" in lines[1]


def test_nft_accepts_no_closing_brace_without_a_line_end_before_it() -> None:
    """nft 1.0.6 wants a newline or semicolon before a chain's brace; sets in one line are fine."""
    for line in plan.nft_ruleset(ADDRESSES, DOORS).splitlines():
        if line.strip() != "}":
            assert line.count("{") - line.count("}") in (0, 1)


def test_forwarding_is_off_everywhere() -> None:
    settings = dict(plan.early_sysctls())
    for family in ("ipv4", "ipv6"):
        assert settings[f"{family}/conf/all/forwarding"] == "0"
        assert settings[f"{family}/conf/default/forwarding"] == "0"
    assert settings["ipv4/conf/all/route_localnet"] == "0"
    assert settings["ipv6/conf/default/accept_ra"] == "0"


@pytest.mark.parametrize("mtu", [1279, 65001, 65520])
def test_mtu_that_no_vif_can_have_is_refused(mtu: int) -> None:
    with pytest.raises(NetworkFault, match="MTU from 1280 to 65000"):
        plan.check_mtu("nginx", mtu)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", ".", "x" * 129, "a b"])
def test_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(NetworkFault):
        plan.netns_name(name)


def test_description_names_the_namespace_and_the_ports() -> None:
    text = plan.describe("nginx", ADDRESSES, 1500, [("0.0.0.0", 8080, 80)])
    assert "netns zw-nginx" in text
    assert "0.0.0.0:8080 -> 80" in text
    assert f"{GOLDEN_IP}\n{GOLDEN_ROUTES}\n" in text
