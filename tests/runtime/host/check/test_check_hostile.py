"""A zone that writes garbage wherever it may: what the host reads of it stays bounded, and the zone can be ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.backends import FakeBlkback
from support.checking import CheckedHost, checked_host, small_plan

from runtime.boot import hotplug, resize
from runtime.boot.model import Disk
from runtime.host.check.look_xen import look_at_xenstore
from runtime.host.check.model import Found

HOME = "/local/domain/1"
VALUES = {
    "empty": b"",
    "long": b"x" * 4096,
    "binary": bytes(range(256)),
    "path": b"../../../0/backend",
    "huge": b"9" * 4000,
    "negative": b"-1",
    "number": b"18446744073709551616",
    "control": b"\x1b[2J\r\n\0",
}
MINE = [
    "zone/state/phase", "zone/state/timings", "zone/state/exit", "device/vbd/51712/state", "device/vbd/51712/backend",
    "device/vbd/51712/ring-ref", "device/vif/0/state", "device/vif/0/backend-id", "device/vif/0/tx-ring-ref",
    "device/console/1/state", "data/x", "control/shutdown", "error/device/vbd/51712/error", "attr/x", "drivers/0",
]  # fmt: skip


class Zone:
    """A running zone whose guest writes what it likes."""

    def __init__(self, host: CheckedHost) -> None:
        self.host, self.ledger = host, host.ledgers.create("web")
        self.domain = host.build(self.ledger, small_plan(host.directory))
        self.blkback = FakeBlkback(host.xenstored)

    def write(self, name: str, value: bytes) -> None:
        self.host.xenstored.put(f"{HOME}/{name}", value, (b"n1",))

    def findings(self) -> list[str]:
        return [str(finding) for finding in self.host.check().findings]

    def end(self) -> None:
        self.domain.destroy()
        (self.host.run / "console.log").unlink()
        self.ledger.close()
        self.blkback.close()


@pytest.fixture
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    with checked_host(tmp_path, "nothing of this machine", monkeypatch) as host:
        zone = Zone(host)
        yield zone
        zone.end()
        assert zone.findings() == []
        assert host.xenstored.below(HOME) == []


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_of_a_hostile_zone_do_no_harm(zone: Zone, value: bytes) -> None:
    for name in MINE:
        zone.write(name, value)
    state = zone.domain.state()
    for text in (state.phase, state.exit):
        assert len(text) <= 1024 and text.isprintable()
    assert all(seconds >= 0 for seconds in (state.timings or {}).values())
    domain = zone.domain
    asked = resize.set_memory(domain.hypervisor, domain.xenstore, domain.domid, domain.uuid, 32, least_mib=16)
    assert asked.memory_mib == 32
    hotplug.plug_disk(domain, Disk("xvdc", "/dev/loop7"), zone.ledger.record, timeout_s=60)
    assert zone.findings() == []
    hotplug.unplug_disk(domain, "xvdc", zone.ledger.record, timeout_s=60)
    assert zone.findings() == []


@pytest.mark.parametrize("directory", ["device", "device/vbd", "device/made-up", "zone/state", "data"])
def test_more_names_than_xenstored_can_list_are_told_and_hide_nothing_else(zone: Zone, directory: str) -> None:
    for number in range(900):
        zone.host.xenstored.put(f"{HOME}/{directory}/{'n' * 20}{number}", b"", (b"n1",))
    zone.host.xenstore.write("/local/domain/0/backend/vif/12/0/state", "6")
    report = zone.host.check()
    assert [finding.kind for finding in report.findings if "vif/12" in finding.what] == ["xenstore"]
    if directory in ("device", "device/vbd"):
        assert any("front ends of domain 1" in sentence for sentence in report.unseen)
    zone.host.xenstore.remove("/local/domain/0/backend/vif/12")
    assert zone.domain.state().phase == ""


@pytest.mark.parametrize("name", ["..", "-1", "51712x", "9" * 30, "٣", "0x10", "51712 ", "+1"])
def test_names_that_are_no_devices_are_none(zone: Zone, name: str) -> None:
    zone.write(f"device/vbd/{name}", b"")
    found = Found()
    look_at_xenstore(zone.host.xenstore, found)
    assert {device.number for device in found.frontends if device.kind == "vbd"} == {"51712", "51728"}


def test_zone_that_removes_its_half_of_a_device_is_named(zone: Zone) -> None:
    zone.host.xenstored.remove(f"{HOME}/device/vbd/51712")
    (finding,) = zone.findings()
    assert "zone web has lost its half of a device" in finding
