"""Pings of a real zone, from its vif through dom0's rules and the engine, at any size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import zoneparts
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = pytest.mark.xen

IMAGE = "recipe:nginx"
NAMED = "198.51.100.9"
LOADER = "/tools/lib64/ld-linux-x86-64.so.2 --library-path /tools/lib/x86_64-linux-gnu /tools/bin/ping"


@pytest.fixture(scope="module", autouse=True)
def pings(lab: Lab, zone: ZoneCommand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A zone of this name that may ping an address of dom0's."""
    directory = tmp_path_factory.mktemp("tools")
    tools = zoneparts.squashfs(zoneparts.small_root(directory / "root", ["ping"]), directory / "tools.squashfs")
    rule = ("--egress", f"allow {NAMED} icmp")
    assert lab.shell(f"ip address add {NAMED}/32 dev lo")[0] == 0
    zone("run", "-d", "--name", "pings", "-m", "128m", "-v", f"{tools}:/tools", *rule, IMAGE)
    yield
    lab.shell(f"ip address del {NAMED}/32 dev lo")


@pytest.mark.parametrize("size", [56, 1472, 3000, 20000])
@pytest.mark.parametrize("gateway", [True, False])
def test_ping_of_any_size_is_answered(zone: ZoneCommand, size: int, gateway: bool) -> None:
    (one,) = zone.json("inspect", "pings")
    address = one["addresses"][0].rpartition(".")[0] + ".1" if gateway else NAMED
    said = zone("exec", "pings", "sh", "-c", f"{LOADER} -n -c3 -W5 -s{size} {address}")
    assert "3 received" in said and f"{size + 8} bytes from {address}" in said


def test_ping_that_no_rule_allows_is_prohibited(zone: ZoneCommand) -> None:
    zone("update", "--egress", f"allow {NAMED} tcp", "pings")
    said = zone("exec", "pings", "sh", "-c", f"{LOADER} -n -c1 -W5 -s3000 {NAMED} || true")
    assert "Packet filtered" in said
