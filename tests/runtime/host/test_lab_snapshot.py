"""Snapshots: what they depend on, and that a damaged one is noticed while it is read."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.host.lab import snapshot
from runtime.host.lab.errors import LabFailed, SnapshotDamaged
from runtime.host.lab.snapshot import Snapshots, snapshot_key

MEMORY = os.urandom(3_000_000)
PARTS: dict[str, Any] = {
    "dom0": {"xen": "sha256:1"},
    "code": "sha256:2",
    "qemu_version": "7.2.22",
    "argv": ["-m", "1024"],
    "accel": "tcg",
    "host": "",
}


class FakeQmp:
    """Writes a memory file as QEMU does, or does not."""

    def __init__(self, status: str = "completed") -> None:
        self.status, self.commands = status, list[str]()

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, fd: int | None = None) -> Any:
        self.commands.append(command)
        if fd is not None:
            os.write(fd, MEMORY)
        return {"status": self.status}


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    found = Snapshots(tmp_path / "snapshots")
    found.save(FakeQmp(), "key")  # type: ignore[arg-type]
    return found


def fed(snapshots: Snapshots, key: str = "key") -> bytes:
    reader, writer = os.pipe()
    parts: list[bytes] = []

    def read() -> None:
        while data := os.read(reader, 1 << 16):
            parts.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        snapshots.feed(key, writer)
    finally:
        os.close(writer)
        thread.join(120)
        os.close(reader)
    return b"".join(parts)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_part_decides_the_key(name: str) -> None:
    other = {"dom0": {"xen": "sha256:9"}, "argv": ["-m", "1025"]}.get(name, "another")
    assert snapshot_key(**PARTS) == snapshot_key(**PARTS)
    assert snapshot_key(**PARTS) != snapshot_key(**(PARTS | {name: other}))


def test_what_was_saved_is_fed_back(snapshots: Snapshots) -> None:
    assert snapshots.find("key") is not None
    assert fed(snapshots) == MEMORY


def test_the_guest_runs_on_after_a_save_that_failed_and_nothing_is_published(tmp_path: Path) -> None:
    qmp, found = FakeQmp("failed"), Snapshots(tmp_path)
    with pytest.raises(LabFailed, match="expected QEMU to save it, got state failed"):
        found.save(qmp, "key")  # type: ignore[arg-type]
    assert qmp.commands[-1] == "cont"
    assert found.find("key") is None
    assert list(tmp_path.iterdir()) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: (path.parent / "meta.json").write_text("{"),
        lambda path: (path.parent / "meta.json").write_text(json.dumps({"format": 0})),
        lambda path: path.unlink(),
    ],
)
def test_damage_of_any_kind_is_noticed(snapshots: Snapshots, damage: Callable[[Path], Any]) -> None:
    memory = snapshots.find("key")
    assert memory is not None
    damage(memory)
    with pytest.raises(SnapshotDamaged, match="the lab's snapshot key: expected what was saved"):
        fed(snapshots)


def test_a_qemu_that_stops_reading_is_damage_not_a_crash(snapshots: Snapshots) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(SnapshotDamaged):
        snapshots.feed("key", writer)
    os.close(writer)


def test_only_the_last_used_few_are_kept(snapshots: Snapshots) -> None:
    for number in range(snapshot.KEPT + 3):
        snapshots.save(FakeQmp(), f"key{number}")  # type: ignore[arg-type]
        os.utime(snapshots.directory / f"key{number}", (number, number))
    kept = sorted(path.name for path in snapshots.directory.iterdir())
    assert len(kept) == snapshot.KEPT
    assert f"key{snapshot.KEPT + 2}" in kept


def test_a_save_killed_halfway_is_overwritten_by_the_next(tmp_path: Path) -> None:
    found = Snapshots(tmp_path)
    (tmp_path / "key.partial").mkdir()
    (tmp_path / "key.partial" / "memory").write_bytes(b"half")
    found.save(FakeQmp(), "key")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    meta = json.loads((tmp_path / "key" / "meta.json").read_text())
    assert meta["sha256"] == hashlib.sha256(MEMORY).hexdigest()
