"""Disks given to a running domain and taken back, with a back end and a guest that do or do not follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.backends import FakeBlkback
from support.hypervisor import FakeXen
from support.xenstored import FakeXenstored

from runtime.boot import hotplug, nodes, teardown, vbd
from runtime.boot.domain import Domain
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import BadSpec, DeviceFault, DomainGone
from runtime.boot.model import Disk, DomainSpec, FileRange
from runtime.boot.xenstore import XenStore

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"
BACKEND = "/local/domain/0/backend/vbd/1"
XVDC = f"{BACKEND}/51744"


class Running:
    """A running domain of the fake Xen, its records, and a blkback that serves it."""

    def __init__(self, where: Path) -> None:
        self.xen, self.xenstored = FakeXen(), FakeXenstored(where)
        hypervisor, store = Hypervisor(self.xen), XenStore(self.xenstored.path, timeout_s=60)
        domid = hypervisor.create_domain(UUID, max_vcpus=1)
        store.apply(nodes.plan_domain_nodes(DomainSpec("web", UUID, FileRange("/k", 1)), domid))
        self.records: list[dict[str, Any]] = []
        self.domain = Domain(domid, UUID, "web", hypervisor, store, None, None, ())  # type: ignore[arg-type]
        self.blkback = FakeBlkback(self.xenstored)

    def record(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, "vdev": fields["vdev"]})

    def plug(self, vdev: str = "xvdc", *, readonly: bool = True, timeout_s: float = 5) -> None:
        disk = Disk(vdev, "/dev/loop7", readonly=readonly)
        hotplug.plug_disk(self.domain, disk, self.record, timeout_s=timeout_s)

    def unplug(self, vdev: str = "xvdc", *, timeout_s: float = 60, force: bool = False) -> None:
        hotplug.unplug_disk(self.domain, vdev, self.record, timeout_s=timeout_s, force=force)

    def nothing_left(self) -> bool:
        words = ("vbd/51744", "error/backend/vbd/1/51744")
        return not [path for path in self.xenstored.nodes if any(word in path for word in words)]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(vbd, "device_number", lambda device: (7, 7))
    made = Running(tmp_path)
    yield made
    made.blkback.close()
    made.domain.xenstore.close()
    made.xenstored.close()


@pytest.mark.parametrize(("readonly", "mode"), [(True, "r"), (False, "w")])
def test_disk_is_given_and_taken_back(running: Running, readonly: bool, mode: str) -> None:
    running.plug(readonly=readonly)
    assert running.xenstored.value(f"{XVDC}/state") == "4"
    assert running.xenstored.value(f"{XVDC}/mode") == mode
    assert running.xenstored.value(f"{XVDC}/physical-device") == "7:7"
    assert running.xenstored.value("/local/domain/1/device/vbd/51744/backend") == XVDC
    assert hotplug.disks_of(running.domain.xenstore, running.domain.domid) == {"xvdc": "/dev/loop7"}
    running.unplug()
    assert (XVDC, "6") in running.blkback.history
    assert running.nothing_left()
    assert [record["kind"] for record in running.records] == ["vbd", "vbd.gone"]
    running.unplug()
    assert len(running.records) == 2, "what is not there is not taken back again"


def test_record_precedes_the_disk(running: Running) -> None:
    seen: list[Any] = []
    disk = Disk("xvdc", "/dev/loop7")

    def record(kind: str, **fields: Any) -> None:
        seen.append((kind, running.xenstored.value(f"{XVDC}/state")))

    hotplug.plug_disk(running.domain, disk, record, timeout_s=60)
    hotplug.unplug_disk(running.domain, "xvdc", record, timeout_s=60)
    assert seen == [("vbd", None), ("vbd.gone", None)]


def test_name_that_is_taken_is_refused_and_its_disk_stays(running: Running) -> None:
    running.plug()
    with pytest.raises(BadSpec, match="zone web, disk xvdc: expected a free name"):
        running.plug()
    assert running.xenstored.value(f"{XVDC}/state") == "4"
    assert [record["kind"] for record in running.records] == ["vbd", "vbd", "vbd.gone"]


def test_seventeenth_disk_is_refused(running: Running) -> None:
    used: list[str] = []
    for _ in range(16):
        used.append(hotplug.free_vdev(used))
        running.plug(used[-1])
    assert (used[0], used[-1]) == ("xvda", "xvdp")
    with pytest.raises(BadSpec, match="expected at most 16, got one more"):
        hotplug.free_vdev(used)
    with pytest.raises(BadSpec, match="xvda to xvdp, 16 at most"):
        running.plug("xvdq")
    assert len(hotplug.disks_of(running.domain.xenstore, running.domain.domid)) == 16


def test_guest_that_never_takes_a_disk_leaves_nothing(running: Running) -> None:
    running.blkback.refuses.add("51744")
    with pytest.raises(DeviceFault, match="expected the zone to take it, got its back end is still initialising"):
        running.plug(timeout_s=0.05)
    assert running.nothing_left()
    assert [record["kind"] for record in running.records] == ["vbd", "vbd.gone"]


def test_back_end_that_fails_is_told_in_its_own_words_and_its_words_go_too(running: Running) -> None:
    running.blkback.fails["51744"] = "6 creating vbd structure"
    with pytest.raises(DeviceFault, match="6 creating vbd structure"):
        running.plug()
    assert running.nothing_left()
    running.blkback.fails.clear()
    running.plug()


def test_guest_that_keeps_a_disk_keeps_it_until_it_is_taken_by_force(running: Running) -> None:
    running.plug()
    running.blkback.stubborn.add("51744")
    with pytest.raises(DeviceFault, match="to give it back, got its back end is still closing") as caught:
        running.unplug(timeout_s=0.05)
    assert caught.value.temporary
    assert running.xenstored.value(f"{XVDC}/state") == "5"
    assert [record["kind"] for record in running.records] == ["vbd"]
    running.unplug(timeout_s=0.05, force=True)
    assert running.nothing_left()


def test_domain_that_dies_meanwhile_ends_the_wait(running: Running) -> None:
    running.blkback.refuses.add("51744")
    running.xen.domains[1].shutdown = 3
    with pytest.raises(DomainGone):
        running.plug(timeout_s=60)
    assert running.nothing_left()


def test_disk_is_not_written_into_the_tree_of_another_domain(running: Running) -> None:
    running.xenstored.put("/local/domain/1/zone/uuid", b"another")
    with pytest.raises(DomainGone):
        running.plug()
    assert running.nothing_left()
    assert [record["kind"] for record in running.records] == ["vbd", "vbd.gone"]


@pytest.mark.parametrize("value", [b"", b"x" * 4000, b"../../0/backend", b"\xff\x00\xfe", b"-1", b"4" * 4000])
def test_what_the_guest_writes_into_its_half_decides_nothing(running: Running, value: bytes) -> None:
    def scribble(path: str) -> None:
        for node in ("state", "backend", "backend-id", "virtual-device", "ring-ref"):
            running.xenstored.put(f"/local/domain/1/device/vbd/51744/{node}", value)

    running.blkback.before_connecting = scribble
    running.plug()
    running.unplug()
    assert running.nothing_left()


def test_wait_for_a_back_end_that_the_kernel_keeps_names_it(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices" / "vbd-1-51744").mkdir(parents=True)
    monkeypatch.setattr(teardown, "_BACKENDS", tmp_path / "devices")
    running.plug()
    with pytest.raises(DeviceFault, match="its back end vbd-1-51744 stays"):
        running.unplug(timeout_s=0.05)
    assert [record["kind"] for record in running.records] == ["vbd"]


def test_back_end_that_stayed_is_waited_for_by_who_tries_again(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes went with the first try; the kernel has the device until it says otherwise."""
    kept = tmp_path / "devices" / "vbd-1-51744"
    kept.mkdir(parents=True)
    monkeypatch.setattr(teardown, "_BACKENDS", tmp_path / "devices")
    running.plug()
    for _ in range(2):
        with pytest.raises(DeviceFault, match="its back end vbd-1-51744 stays"):
            running.unplug(timeout_s=0.05)
    running.xenstored.put("/local/domain/1/zone/uuid", b"another")
    running.unplug(timeout_s=0.05)  # it is the other's now
    running.xenstored.put("/local/domain/1/zone/uuid", UUID.encode())
    kept.rmdir()
    running.unplug()
    assert running.nothing_left()


@pytest.mark.parametrize("uuid", [b"", b"another"], ids=["gone", "another's"])
def test_disk_of_a_domain_that_has_gone_meanwhile_is_not_made_again(running: Running, uuid: bytes) -> None:
    running.plug()
    if uuid:
        running.xenstored.put("/local/domain/1/zone/uuid", uuid)
    else:
        for path in ("/local/domain/1", BACKEND):
            running.domain.xenstore.remove(path)
    before = running.xenstored.below("/local")
    running.unplug(force=True)
    assert running.xenstored.below("/local") == before
    assert running.xenstored.value(f"{XVDC}/state") == ("4" if uuid else None)


def test_nodes_that_blkback_writes_once_more_are_taken_away_with_its_device(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, probed = ["vbd-1-51744"], []

    def look(domid: int) -> list[str]:
        if not running.xenstored.below(XVDC) and not probed:
            probed.append(True)
            running.xenstored.put(f"{XVDC}/feature-discard", b"1")
        elif not running.xenstored.below(XVDC):
            there.clear()
        return list(there)

    monkeypatch.setattr(teardown, "backends", look)
    running.plug()
    running.unplug()
    assert probed
    assert running.nothing_left()
    assert [record["kind"] for record in running.records] == ["vbd", "vbd.gone"]


def test_plain_file_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, got in ((tmp_path / "file", "something else"), (tmp_path / "none", "No such file")):
        with pytest.raises(BadSpec, match=f"expected a block device, got {got}"):
            vbd.device_number(str(path))
