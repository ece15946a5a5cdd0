"""Block devices for zones: what is on them, and which are refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.host.blockdevices import MAGICS, DeviceUnfit, filesystem_of, look

HEAD_BYTES = 128 << 10


def head(*names: str) -> bytes:
    made = bytearray(HEAD_BYTES)
    for name in names:
        at, magic = MAGICS[name]
        made[at : at + len(magic)] = magic
    return bytes(made)


@pytest.mark.parametrize("name", MAGICS)
def test_each_file_system_is_known_by_its_own_magic_number(name: str) -> None:
    assert filesystem_of(head(name), "s") == name


def test_none_and_two_are_refused() -> None:
    for nothing in (b"", bytes(HEAD_BYTES), head("btrfs")[:65601]):
        with pytest.raises(DeviceUnfit, match=r"^s: expected one of squashfs.* on it, got none of them"):
            filesystem_of(nothing, "s")
    with pytest.raises(DeviceUnfit, match="got ext4 and btrfs"):
        filesystem_of(head("ext4", "btrfs"), "s")


@pytest.mark.parametrize("make", ["mkfs.ext4", "mkfs.ext2", "mkfs.xfs", "mkfs.btrfs"])
def test_magic_numbers_are_those_the_tools_write(tmp_path: Path, make: str) -> None:
    file = tmp_path / "disk"
    with open(file, "wb") as disk:
        disk.truncate(320 << 20)
    try:
        subprocess.run([make, str(file)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"no {make} here")
    expected = {"mkfs.ext2": "ext4"}.get(make, make.removeprefix("mkfs."))
    assert filesystem_of(file.read_bytes()[:HEAD_BYTES], "s") == expected


def test_what_is_no_device_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(head("ext4"))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    for source, got in [
        ("/dev/nothing-of-that-name", "No such file or directory"),
        (str(tmp_path / "file"), "something else"),
        (str(tmp_path / "link"), "something else"),
        (str(tmp_path / "fifo"), "something else"),
        ("/dev/null", "something else"),
        (str(tmp_path), "something else"),
    ]:
        with pytest.raises(DeviceUnfit, match=f"^volume x: expected a free block device of the zone's host, got {got}"):
            look(source, readonly=True, subject="volume x")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device over an ext4 file system."""
    file = tmp_path / "disk"
    with open(file, "wb") as disk:
        disk.truncate(16 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", file], check=True, capture_output=True)
        found = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device with ext4: {error}")
    try:
        yield found.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop devices")
def test_device_is_found_behind_symlinks_and_refused_while_it_is_mounted(device: str, tmp_path: Path) -> None:
    (tmp_path / "by-label").symlink_to(device)
    found = look(str(tmp_path / "by-label"), readonly=False, subject="volume x")
    status = os.stat(device)
    assert (str(found.path), found.filesystem, found.readonly) == (device, "ext4", False)
    assert found.number == (os.major(status.st_rdev), os.minor(status.st_rdev))
    assert look(device, readonly=True, subject="volume x").readonly
    (tmp_path / "here").mkdir()
    mounted = subprocess.run(["mount", "-o", "ro", device, tmp_path / "here"], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr}")
    try:
        with pytest.raises(DeviceUnfit, match="got one that this host uses itself"):
            look(device, readonly=True, subject="volume x")
    finally:
        subprocess.run(["umount", tmp_path / "here"], check=True)
