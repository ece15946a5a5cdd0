from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.tools import require

from pipeline.build.layer import tar_bytes, write_layer
from pipeline.build.roottree import Entry, Root, difference, excluded, read_root
from pipeline.store import Store
from pipeline.tarstream import pax_record

EPOCH = 1_700_000_000


def file(path: str, data: bytes = b"", **more: object) -> Entry:
    entry = Entry(
        path,
        tarfile.REGTYPE,
        0o644,
        EPOCH,
        size_bytes=len(data),
        digest=hashlib.sha256(data).hexdigest(),
        content=data,
    )
    return replace(entry, **more)  # type: ignore[arg-type]


def directory(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, tarfile.DIRTYPE, mode, EPOCH)


def root(*entries: Entry) -> Root:
    return {entry.path: entry for entry in entries}


def changes(lower: Mapping[str, Entry], upper: Mapping[str, Entry]) -> list[str]:
    return [entry.path for entry in difference(lower, upper, epoch=EPOCH)]


def test_unchanged_entries_stay_in_their_layer() -> None:
    tree = root(directory("etc"), file("etc/a", b"1"))
    assert changes(tree, tree | root(file("etc/b", b"2"))) == ["etc/b"]


@pytest.mark.parametrize(
    "other",
    [
        file("a", b"2"),
        file("a", b"1", mode=0o600),
        file("a", b"1", uid=5),
        file("a", b"1", mtime=EPOCH + 1),
        file("a", b"1", xattrs=(("user.x", b"y"),)),
    ],
    ids=["bytes", "mode", "owner", "mtime", "xattr"],
)
def test_every_kind_of_change_is_a_change(other: Entry) -> None:
    assert changes(root(file("a", b"1")), root(other)) == ["a"]


def test_where_the_bytes_lie_is_no_change() -> None:
    assert changes(root(file("a", b"1")), root(file("a", b"1", tar=Path("other.tar"), offset=512))) == []


def test_what_is_gone_leaves_a_whiteout() -> None:
    lower = root(directory("etc"), file("etc/a"), file("top"))
    assert changes(lower, root(directory("etc"))) == [".wh.top", "etc/.wh.a"]


def test_a_directory_that_is_gone_leaves_one_whiteout() -> None:
    lower = root(directory("d"), directory("d/e"), file("d/e/a"), file("d/b"))
    assert changes(lower, {}) == [".wh.d"]


def test_a_file_in_place_of_a_directory_needs_no_whiteouts() -> None:
    assert changes(root(directory("d"), file("d/a")), root(file("d"))) == ["d"]


def test_a_directory_in_place_of_a_file_brings_its_children() -> None:
    assert changes(root(file("d")), root(directory("d"), file("d/a"))) == ["d", "d/a"]


def test_a_new_hardlink_brings_all_names_of_its_file() -> None:
    lower = root(file("a", b"1"))
    group = ("a", "b")
    upper = root(file("a", b"1", group=group), file("b", b"1", group=group))
    assert changes(lower, upper) == ["a", "b"]


def test_parents_come_before_children_and_siblings_by_name_bytes() -> None:
    tree = root(file("a-b"), file("a/x"), directory("a"), file("é"), file("a.b"), file("Z"))
    assert changes({}, tree) == ["Z", "a", "a/x", "a-b", "a.b", "é"]


def test_patterns_cover_what_lies_below_a_match() -> None:
    match = excluded(["/usr/share/doc/*", "/usr/lib/*/perl-base"]).match
    assert match("/usr/share/doc/a/b")
    assert match("/usr/lib/x86/perl-base/x.pm")
    assert not match("/usr/share/doc")
    assert not match("/usr/lib/x86/perl-base2")
    assert not excluded([]).match("/anything")


HARD = [
    directory("d", 0o1777),
    file("d/a", b"data" * 500, group=("d/a", "d/z")),
    file("d/z", b"data" * 500, group=("d/a", "d/z")),
    file("empty"),
    file("l" * 120, b"long name"),
    Entry("link", tarfile.SYMTYPE, 0o777, EPOCH, linkname="/" + "t" * 150),
    file("setuid", b"x", mode=0o4755, uid=3_000_000, gid=7),
    Entry("tty", tarfile.CHRTYPE, 0o620, EPOCH, device=(4, 300)),
    file("xattr", b"x", xattrs=(("security.capability", b"\x01\x00\x00\x02\xff\n"),)),
    file("ümlaut", b"u"),
]


def test_other_readers_read_our_records() -> None:
    data = b"".join(tar_bytes(HARD))
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        members = {member.name: member for member in archive}
        assert list(members) == [entry.path for entry in HARD]
        assert archive.extractfile("d/a").read() == b"data" * 500  # type: ignore[union-attr]
    assert members["d/z"].islnk()
    assert members["d/z"].linkname == "d/a"
    assert members["link"].linkname == "/" + "t" * 150
    assert (members["setuid"].uid, members["setuid"].gid, members["setuid"].mode) == (3_000_000, 7, 0o4755)
    assert (members["tty"].devmajor, members["tty"].devminor) == (4, 300)
    assert members["d"].mode == 0o1777
    assert "SCHILY.xattr.security.capability" in members["xattr"].pax_headers


def test_gnu_tar_reads_our_records(tmp_path: Path) -> None:
    require("tar")
    (tmp_path / "l.tar").write_bytes(b"".join(tar_bytes(HARD)))
    ran = subprocess.run(
        ["tar", "--numeric-owner", "--xattrs", "-tvf", tmp_path / "l.tar"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/bin:/bin"},
        text=True,
    )
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == len(HARD)
    assert re.search(r"^-rwsr-xr-x\s+3000000/7\s", ran.stdout, re.MULTILINE), ran.stdout
    assert "link to d/a" in ran.stdout


def test_a_pax_record_counts_its_own_length() -> None:
    for size in (1, 90, 91, 92, 93, 94, 95, 989, 990, 991, 992):
        record = pax_record(b"path", b"x" * size)
        assert int(record.split(b" ")[0]) == len(record)


def test_a_root_survives_tar_and_back(tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(b"".join(tar_bytes(HARD)))
    again = read_root(tmp_path / "l.tar")
    assert again == root(*HARD)
    assert b"".join(tar_bytes(again[entry.path] for entry in HARD)) == (tmp_path / "l.tar").read_bytes()


def test_leftovers_of_the_building_host_are_dropped(tmp_path: Path) -> None:
    entries = [directory("dev"), file("dev/null"), directory("etc"), file("etc/hostname", b"host"), file("etc/passwd")]
    (tmp_path / "l.tar").write_bytes(b"".join(tar_bytes(entries)))
    assert sorted(read_root(tmp_path / "l.tar", exclude=["/etc/pass*"])) == ["dev", "etc"]


def test_two_stores_get_the_same_layer_and_its_diff_id(tmp_path: Path) -> None:
    first, second = (write_layer(Store(tmp_path / name), HARD) for name in "ab")
    assert first == second
    blob = Store(tmp_path / "a").read(first.descriptor.digest)
    assert hashlib.sha256(gzip.decompress(blob)).hexdigest() == first.diff_id.hex
    assert blob[4:8] == bytes(4)  # the time in the gzip header
    assert blob[3] == 0  # no file name in it
