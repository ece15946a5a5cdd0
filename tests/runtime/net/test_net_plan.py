"""The text of a network's plan."""

from __future__ import annotations

import pytest

from runtime.net import plan, rules
from runtime.net.addresses import plan_addresses
from runtime.net.errors import NetworkFault

ADDRESSES = plan_addresses(3)

GOLDEN_IP = """\
link set lo mtu 65575 up
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
    text = rules.describe("nginx", ADDRESSES, 1500, [("0.0.0.0", 8080, 80)])
    assert "netns zw-nginx" in text
    assert "0.0.0.0:8080 -> 80" in text
    assert f"{GOLDEN_IP}\n{GOLDEN_ROUTES}\n" in text
