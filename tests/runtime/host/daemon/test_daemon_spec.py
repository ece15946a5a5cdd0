"""From a request to what the zone's init is told."""

from __future__ import annotations

from pipeline.bundle.model import Bundle, Process, Volume
from pipeline.oci import Descriptor, Digest
from runtime.host.daemon.model import BootRequest
from runtime.host.daemon.spec import launch_of
from runtime.init.container import mountspec
from runtime.net.addresses import ZoneAddresses

BLOB = Descriptor("application/octet-stream", Digest.of(b""), 0)
ADDRESSES = ZoneAddresses(1, "10.75.0.2", "10.75.0.1", 16, "fd00::2", "fd00::1", 64, "02:00:00:00:00:02", "02::1")


def extra(*volumes: Volume, stdin_open: bool = False) -> dict[str, object]:
    bundle = Bundle("web", BLOB, "6", (BLOB,), (), BLOB, Process(("/x",), ()), volumes=volumes)
    return launch_of(BootRequest(bundle, stdin_open=stdin_open), ADDRESSES).extra


def test_volumes_are_mounts_the_zones_container_runtime_takes() -> None:
    made = extra(Volume("/scratch", size_mib=64), Volume("/fixed", readonly=True), stdin_open=True)
    assert made["stdin_open"] is True
    scratch, fixed = made["container"]["mounts"]  # type: ignore[index]
    assert scratch == {
        "destination": "/scratch",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1777", "size=64m"],
    }
    assert fixed["options"] == ["nosuid", "nodev", "mode=1777", "ro"]
    for mount in (scratch, fixed):
        assert mountspec.check(mount, "mounts")["destination"] == mount["destination"]


def test_most_zones_have_nothing_more() -> None:
    assert extra() == {}
