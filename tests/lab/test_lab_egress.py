"""Egress rules and bandwidth of a zone in real Xen, from the command line to the zone's own connect and its vif."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.labzones import wait_for
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

NAMED, OTHER, PORT = "198.51.100.7", "198.51.100.8", 8099
SERVER = f"""
import socket
listener = socket.create_server(("", {PORT}))
while True:
    listener.accept()[0].close()
"""


@pytest.fixture
def served(lab: Lab) -> Iterator[None]:
    """Two more addresses of dom0, and somebody who takes connections there."""
    addresses = " ".join(f"ip address add {address}/32 dev lo;" for address in (NAMED, OTHER))
    start = f"setsid python3 -c '{SERVER}' </dev/null >/dev/null 2>&1 & echo $! >/run/egress-server"
    assert lab.shell(f"{addresses} {start}")[0] == 0
    yield
    lab.shell(f"kill $(cat /run/egress-server); rm /run/egress-server; ip address del {NAMED}/32 dev lo")
    lab.shell(f"ip address del {OTHER}/32 dev lo")


@pytest.fixture(autouse=True)
def room(zone: ZoneCommand) -> None:
    """The one before is gone."""
    zone.remove_zones()


def reaches(zone: ZoneCommand, address: str) -> bool:
    """Is a connection of the zone's taken there? One that is closed is refused, and does not hang."""
    connect = f"timeout 20 bash -c '</dev/tcp/{address}/{PORT}'; echo $?"
    code = int(zone("exec", "ruled", "sh", "-c", connect))
    assert code in (0, 1), (code, zone.err)
    return code == 0


def kill_zoned(lab: Lab) -> None:
    """Kill it; returns when the next one serves."""
    before = int(lab.call("ping")["zoned"]["pid"])
    assert lab.shell(f"kill -9 {before}")[0] == 0

    def another() -> bool:
        found = lab.call("ping")["zoned"]
        return int(found["pid"]) not in (0, before) and found["state"] == "serving"

    wait_for(another, "new zoned", 120)


def test_zone_reaches_what_its_rules_name_and_nothing_else(zone: ZoneCommand, lab: Lab, served: None) -> None:
    rule = f"allow {NAMED} {PORT}"
    zone("run", "-d", "--name", "ruled", "-m", "128m", "--egress", rule, "recipe:nginx", "sleep", "1000")
    assert zone.json("inspect", "ruled")[0]["egress"] == [rule]
    assert reaches(zone, NAMED) and not reaches(zone, OTHER)
    zone("update", "--egress", f"allow {OTHER}", "--egress", "deny any", "ruled")
    assert reaches(zone, OTHER) and not reaches(zone, NAMED)
    kill_zoned(lab)
    assert zone.json("inspect", "ruled")[0]["egress"] == [f"allow {OTHER}", "deny any"]
    assert reaches(zone, OTHER) and not reaches(zone, NAMED)


def test_bandwidth_is_held_by_dom0_on_both_ways_of_the_vif(zone: ZoneCommand, lab: Lab) -> None:
    zone("run", "-d", "--name", "ruled", "-m", "128m", "--bandwidth", "8mbit", "recipe:nginx", "sleep", "1000")

    def buckets() -> list[str]:
        code, said = lab.shell("tc -n zw-ruled qdisc show")
        assert code == 0, said
        return sorted(line.split(" root ")[0] for line in said.splitlines() if " rate 8Mbit " in line)

    vif, upward = (line.split(" dev ")[1] for line in sorted(buckets(), key=lambda line: "limit2" in line))
    assert vif.startswith("vif") and upward == "limit2"
    zone("update", "--bandwidth", "none", "ruled")
    assert buckets() == []
