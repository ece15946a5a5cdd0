"""Volumes in real zones: a squashfs file of the user's machine, and a block device of dom0."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import zoneparts
from support.labzones import forget, wait_for
from support.zonecommand import ZoneCommand, read_until

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, Volume
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.host import actions
from runtime.host.hosts import LabHost
from runtime.host.lab.lab import Lab

pytestmark = pytest.mark.xen

IMAGE = "recipe:nginx"
IN_DOM0 = "/run/volume.img"
SCRIPT = """
cat /data/file /made/disk/file
echo x > /data/other || echo the file cannot be written
echo x > /made/disk/other || echo the device cannot be written
grep -E ' (/data|/made/disk) ' /proc/self/mounts
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squashfs(tmp_path_factory.mktemp("volume"), "of the file\n")


def squashfs(directory: Path, text: str) -> Path:
    (directory / "tree").mkdir()
    (directory / "tree" / "file").write_text(text)
    return zoneparts.squashfs(directory / "tree", directory / "data.squashfs")


@pytest.fixture
def device(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """A block device of dom0; that it is a loop device is the test's own business."""
    data = base64.b64encode(squashfs(tmp_path, "of the device\n").read_bytes()).decode()
    take = f"base64 -d > {IN_DOM0} && d=$(losetup -f) && losetup $d {IN_DOM0} && echo $d"
    code, said = lab.shell(take, input=data)
    assert code == 0, said
    name = said.strip()
    try:
        yield name
    finally:
        code, said = lab.shell(f"losetup -d {name}; rm {IN_DOM0}")
        assert code == 0, said


def test_zone_reads_a_squashfs_file_and_a_block_device(zone: ZoneCommand, lab: Lab, file: Path, device: str) -> None:
    loops = lab.shell("losetup -a")[1]
    volumes = ("-v", f"{file}:/data", "-v", f"{device}:/made/disk:ro")
    said = zone("run", "--rm", "-m", "128m", *volumes, IMAGE, "sh", "-c", SCRIPT).splitlines()
    assert said[:2] == ["of the file", "of the device"]
    assert {"the file cannot be written", "the device cannot be written"} <= set(said)
    mounts = {line.split()[1]: line.split() for line in said if line.startswith("/dev/xvd")}
    assert (mounts["/data"][0], mounts["/made/disk"][0]) == ("/dev/xvdc", "/dev/xvdd")
    assert all(set(words[3].split(",")) >= {"ro", "nosuid", "nodev"} for words in mounts.values())
    wait_for(lambda: lab.shell("losetup -a")[1] == loops, "end of whatever the zone took")


@pytest.mark.soak
def test_device_has_one_zone_or_is_only_read(
    host: LabHost, store: Store, nginx: Bundle, zone: ZoneCommand, device: str
) -> None:
    held = dataclasses.replace(nginx, name="holds", ports=(), volumes=(Volume("/disk", "block", "/dev/nothing"),))
    try:
        with pytest.raises(Exception, match="volume /dev/nothing:/disk: expected a free block device"):
            boot(host, store, held)
        held = dataclasses.replace(held, volumes=(Volume("/disk", "block", device, readonly=True),))
        boot(host, store, held)
        assert zone("exec", "holds", "cat", "/disk/file") == "of the device\n"
        both = zone("run", "--rm", "-m", "128m", "-v", f"{device}:/disk:ro", IMAGE, "cat", "/disk/file")
        assert both == "of the device\n"
    finally:
        forget(host, "holds")
        store.untag("zones/holds")


def boot(host: LabHost, store: Store, bundle: Bundle) -> None:
    actions.boot_bundle(host, store, manifest.write(store, bundle), bundle, progress=Progress())


def test_file_that_is_not_there_is_told_before_anything_is_booted(zone: ZoneCommand, tmp_path: Path) -> None:
    before = zone.json("ps", "-a")
    zone("run", "--name", "missing", "-v", f"{tmp_path}/none.squashfs:/data", IMAGE, "true", code=125)
    assert b"none.squashfs: No such file or directory" in zone.err
    assert [entry["id"] for entry in zone.json("ps", "-a")] == [entry["id"] for entry in before]


def test_scratch_disk_takes_what_a_zone_writes_and_goes_with_it(zone: ZoneCommand, lab: Lab) -> None:
    """More is written than the zone has memory; it is there after a restart, and no more after the zone."""
    script = """
        test -e /kept && cat /kept && exec sleep 1000
        dd if=/dev/zero of=/big bs=1M count=150 && echo of the first start > /kept && sync && echo written
        exec sleep 1000
    """
    look = "ls /var/lib/zonewright/scratch 2>/dev/null; losetup -a"
    before = lab.shell(look)[1]
    zone("run", "-d", "--name", "writes", "-m", "128m", "--scratch", "300m", IMAGE, "sh", "-c", script)
    try:
        read_until(zone.start("logs", "-f", "writes"), b"written\n")
        (told,) = zone.json("inspect", "writes")
        (disk,) = [device for device in told["devices"] if device["purpose"] == "scratch"]
        assert (disk["name"], disk["source"], disk["readonly"]) == ("xvdc", "300 MiB that the host made", False)
        path = f"/var/lib/zonewright/scratch/{told['id']}/disk"
        code, said = lab.shell(f"stat -c '%s %b' {path}")
        assert code == 0, said
        size, blocks = map(int, said.split())
        assert size == 300 << 20 and 150 << 20 <= blocks * 512 < size
        zone("restart", "writes")
        zone("wait", "--until", "ready", "writes")
        assert zone("exec", "writes", "cat", "/kept") == "of the first start\n"
        rows = {row["what"]: row for row in zone.json("system", "df")}
        assert rows["scratch disks"]["count"] == 1 and int(rows["scratch disks"]["size_bytes"]) >= 150 << 20
        assert zone.json("system", "check")["findings"] == []
    finally:
        zone("rm", "-f", "writes")
    wait_for(lambda: lab.shell(look)[1] == before, "end of its scratch disk")


def test_scratch_disk_without_room_is_refused_before_there_is_a_zone(zone: ZoneCommand) -> None:
    zone("run", "--name", "huge", "--scratch", "16384g", IMAGE, "true", code=125)
    assert b"zone huge, scratch of 16777216 MiB: expected 16777216 MiB free in /var/lib/zonewright, got " in zone.err
    assert "huge" not in [entry["name"] for entry in zone.json("ps", "-a")]
