"""Egress rules and bandwidth of a zone in real Xen, from the command line to the zone's own connect and its vif."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.dom0server import NAMED, OTHER, PORT, reaches, serving
from support.labzones import kill_zoned
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

RULE = f"allow {NAMED} {PORT}"


@pytest.fixture
def served(lab: Lab) -> Iterator[None]:
    with serving(lab):
        yield


@pytest.fixture(scope="module")
def ruled(zone: ZoneCommand) -> str:
    """A zone with a rule and a bandwidth."""
    options = ("-m", "128m", "--egress", RULE, "--bandwidth", "8mbit")
    assert zone("run", "-d", "--name", "ruled", *options, "recipe:nginx", "sleep", "1000") == "ruled\n"
    return "ruled"


@pytest.mark.usefixtures("ruled", "served")
def test_zone_reaches_what_its_rules_name_and_nothing_else(zone: ZoneCommand, lab: Lab) -> None:
    assert zone.json("inspect", "ruled")[0]["egress"] == [RULE]
    assert reaches(zone, "ruled", NAMED) and not reaches(zone, "ruled", OTHER)
    zone("update", "--egress", f"allow {OTHER}", "--egress", "deny any", "ruled")
    assert reaches(zone, "ruled", OTHER) and not reaches(zone, "ruled", NAMED)
    kill_zoned(lab)
    assert zone.json("inspect", "ruled")[0]["egress"] == [f"allow {OTHER}", "deny any"]
    assert reaches(zone, "ruled", OTHER) and not reaches(zone, "ruled", NAMED)


@pytest.mark.usefixtures("ruled")
def test_bandwidth_is_held_by_dom0_on_both_ways_of_the_vif(zone: ZoneCommand, lab: Lab) -> None:
    def buckets() -> list[str]:
        code, said = lab.shell("tc -n zw-ruled qdisc show")
        assert code == 0, said
        return sorted(line.split(" root ")[0] for line in said.splitlines() if " rate 8Mbit " in line)

    vif, upward = (line.split(" dev ")[1] for line in sorted(buckets(), key=lambda line: "limit2" in line))
    assert vif.startswith("vif") and upward == "limit2"
    zone("update", "--bandwidth", "none", "ruled")
    assert buckets() == []
