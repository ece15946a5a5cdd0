"""The file of a scratch disk: formatted, sparse, there whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.host import scratchdisk
from runtime.host.blockdevices import filesystem_of
from runtime.host.scratchdisk import ScratchUnfit, check, make

SIZE_MIB = 16
needs_tool = pytest.mark.skipif(
    shutil.which(scratchdisk.TOOL, path=scratchdisk.SEARCHED) is None, reason="needs mke2fs of e2fsprogs"
)


@needs_tool
@pytest.mark.parametrize("size_mib", [SIZE_MIB, 512, 8 << 10])
def test_disk_is_a_sparse_file_with_an_ext4_that_e2fsck_has_nothing_to_say_about(tmp_path: Path, size_mib: int) -> None:
    path = tmp_path / "zone" / "disk"
    make(path, size_mib, "zone web")
    status = path.stat()
    assert status.st_size == size_mib << 20 and status.st_blocks * 512 < 8 << 20
    assert (status.st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with open(path, "rb") as file:
        assert filesystem_of(file.read(128 << 10), "disk") == scratchdisk.FILESYSTEM
    subprocess.run(["/usr/sbin/e2fsck", "-f", "-n", path], check=True, capture_output=True)
    said = subprocess.run(["/usr/sbin/dumpe2fs", "-h", path], check=True, capture_output=True, text=True).stdout
    assert "has_journal" in said and "Reserved block count:     0\n" in said
    assert sorted(os.listdir(path.parent)) == ["disk"]


def test_disk_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"a zone's own")
    make(tmp_path / "disk", SIZE_MIB, "zone web")
    assert (tmp_path / "disk").read_bytes() == b"a zone's own"


def test_host_without_the_program_refuses_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratchdisk, "SEARCHED", str(tmp_path))
    for attempt in (lambda: check(tmp_path, 16, "zone web"), lambda: make(tmp_path / "disk", 16, "zone web")):
        with pytest.raises(ScratchUnfit) as caught:
            attempt()
        assert str(caught.value) == (
            f"zone web: expected mke2fs on the zone's host, to format it, got none in {tmp_path} (package e2fsprogs)"
        )
    assert os.listdir(tmp_path) == []


def test_host_without_room_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/sbin/mke2fs")
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=15 << 8, f_frsize=4096))
    with pytest.raises(ScratchUnfit, match=f"zone web: expected 16 MiB free in {tmp_path}, got 15 MiB"):
        make(tmp_path / "disk", SIZE_MIB, "zone web")


@pytest.mark.parametrize("script", ["echo no such device >&2; exit 3", "exec /bin/sleep 60"])
def test_format_that_fails_or_never_ends_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mke2fs").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "mke2fs").chmod(0o755)
    monkeypatch.setattr(scratchdisk, "SEARCHED", str(tmp_path / "bin"))
    monkeypatch.setattr(scratchdisk, "TIMEOUT_S", 0.2 if "sleep" in script else 60)
    said = "mke2fs to succeed, got code 3: no such device" if "echo" in script else "mke2fs to end"
    with pytest.raises(ScratchUnfit, match=said):
        make(tmp_path / "zone" / "disk", SIZE_MIB, "zone web")
    assert os.listdir(tmp_path / "zone") == []


def test_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "zone").touch()
    with pytest.raises(
        ScratchUnfit, match=r"zone web: expected a file of 16 MiB, got .*/zone/disk: (Not a|File exists)"
    ):
        make(tmp_path / "zone" / "disk", SIZE_MIB, "zone web")


@needs_tool
def test_what_a_killed_zoneds_program_still_writes_is_no_part_of_the_disk(tmp_path: Path) -> None:
    with open(tmp_path / "disk.new", "wb") as other:
        make(tmp_path / "disk", SIZE_MIB, "zone web")
        other.write(b"x" * 4096)
        other.flush()
        assert (tmp_path / "disk").read_bytes()[:4096] != b"x" * 4096
