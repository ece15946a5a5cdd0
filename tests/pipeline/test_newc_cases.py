"""Case 93 of the corpus: archives other programs write and read. The booting kernel is in test_init_qemu."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from support.tools import needs

from pipeline import newc

TRAILER = [newc.file("TRAILER!!!", b"not the end"), newc.file("z", b"seen")]
LINKS = [newc.Entry(name, stat.S_IFREG | 0o640, b"D" * 1001, hardlink="one") for name in ("a", "b", "c")]


def by_libarchive(data: bytes) -> dict[str, tuple[int, bytes]]:
    import libarchive

    with libarchive.memory_reader(data) as entries:
        return {entry.pathname.removeprefix("./"): (entry.mode, b"".join(entry.get_blocks())) for entry in entries}


@needs("cpio")
def test_case_93_a_file_called_trailer_is_a_file_for_gnu_cpio_and_libarchive(tmp_path: Path) -> None:
    data = newc.archive(TRAILER)
    subprocess.run(["cpio", "-idm"], input=data, cwd=tmp_path, check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"TRAILER!!!": b"not the end", "z": b"seen"}
    seen = by_libarchive(data)
    assert {name: content for name, (_, content) in seen.items()} == {"TRAILER!!!": b"not the end", "z": b"seen"}


@needs("cpio")
def test_case_93_hardlinks_with_their_data_last_are_read(tmp_path: Path) -> None:
    """GNU cpio writes the data with the last name."""
    (tmp_path / "a").write_bytes(b"D" * 1001)
    for name in ("b", "c"):
        os.link(tmp_path / "a", tmp_path / name)
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc"], input=b"a\nb\nc\n", cwd=tmp_path, check=True, capture_output=True
    )
    has_data = [b"D" * 1001 in part for part in done.stdout.split(newc.MAGIC)[1:4]]
    assert has_data == [False, False, True]
    assert {entry.path: entry.data for entry in newc.read(done.stdout)} == dict.fromkeys("abc", b"D" * 1001)


@needs("cpio")
def test_case_93_hardlinks_with_their_data_first_are_read_by_others(tmp_path: Path) -> None:
    data = newc.archive(LINKS)
    assert data.count(b"D" * 1001) == 1
    assert [(entry.path, entry.data) for entry in newc.read(data)] == [(name, b"D" * 1001) for name in "abc"]
    subprocess.run(["cpio", "-idm"], input=data, cwd=tmp_path, check=True, capture_output=True)
    assert {(tmp_path / name).read_bytes() for name in "abc"} == {b"D" * 1001}
    assert (tmp_path / "a").stat().st_nlink == 3
    assert set(by_libarchive(data)) == {"a", "b", "c"}


def test_case_93_a_file_of_four_gib_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(newc.BadArchive, match="less than 4 GiB, got 4294967296 bytes"):
        newc.archive([newc.file("huge", tmp_path / "huge")])


@needs("cpio")
@pytest.mark.parametrize("length", range(1, 9))
def test_case_93_every_alignment_is_read_by_others(length: int) -> None:
    data = newc.archive([newc.file("n" * length, b"y" * (9 - length)), newc.file("z", b"end")])
    assert len(data) % 4 == 0
    listed = subprocess.run(["cpio", "-tn", "--quiet"], input=data, check=True, capture_output=True).stdout.split()
    assert listed == [b"n" * length, b"z"]
    assert by_libarchive(data)["z"][1] == b"end"
