"""What of an entry's metadata is kept, and how the tar says it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.sparse import sparse_0_0, sparse_0_1, sparse_1_0
from support.tars import Member, extra, python_tar, record, tar_bytes, tar_of
from support.unpacking import entries, tree, unpacked

from pipeline.limits import Limits
from pipeline.tree import Entry, Kind
from pipeline.unpack.errors import BadLayer, LimitExceeded
from pipeline.unpack.merge import Merge
from pipeline.unpack.tar import TarReader


def read(tar: bytes, *, limits: Limits | None = None, step: int = 1 << 20) -> list[Entry]:
    reader = TarReader(limits or Limits(), subject="layer")
    for at in range(0, len(tar), step):
        reader.feed(tar[at : at + step])
    reader.finish()
    return reader.entries


def only(tar: bytes) -> Entry:
    (entry,) = read(tar)
    return entry


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 4096])
def test_entries_do_not_depend_on_how_the_bytes_come(step: int) -> None:
    tar = tar_of({"a/": None, "a/" + "n" * 150: b"x" * 700, "l": "-> " + "t" * 200, "e": b""})
    assert read(tar, step=step) == read(tar)


@pytest.mark.parametrize("uid", [0, 65534, 2**21, 2**31 - 1, 2**32 - 2])
def test_owner_of_any_size_is_kept(uid: int) -> None:
    entry = only(tar_bytes([Member("a", uid=uid, gid=uid)]))
    assert (entry.uid, entry.gid) == (uid, uid)
    entry = only(tar_bytes([Member("a", pax=[("uid", str(uid)), ("gid", str(uid))])]))
    assert (entry.uid, entry.gid) == (uid, uid)


@pytest.mark.parametrize(
    ("text", "mtime_ns"),
    [("1.5", 1_500_000_000), ("0", 0), ("-1.25", -1_250_000_000), ("9.1234567891", 9_123456789), ("5.", 5_000_000_000)],
)
def test_pax_time_is_kept_to_the_nanosecond(text: str, mtime_ns: int) -> None:
    assert only(tar_bytes([Member("a", pax=[("mtime", text)])])).mtime_ns == mtime_ns


def test_time_before_the_epoch_in_base_256() -> None:
    assert only(tar_bytes([Member("a", mtime=-31536000)])).mtime_ns == -31536000 * 10**9


def test_special_mode_bits_are_kept_and_type_bits_are_not() -> None:
    assert only(tar_bytes([Member("a", mode=0o107755)])).mode == 0o7755


def test_capabilities_and_empty_xattrs_are_kept_byte_for_byte() -> None:
    value = bytes(range(256))
    records = [
        (b"SCHILY.xattr.security.capability", value),
        (b"SCHILY.xattr.user.empty", b""),
        (b"SCHILY.xattr.user.a=b", b"c=d\n"),
    ]
    entry = only(tar_bytes([Member("a", pax=records)]))
    # A key ends at the first "=", for every reader.
    assert entry.xattrs == {b"security.capability": value, b"user.empty": b"", b"user.a": b"b=c=d\n"}


@pytest.mark.parametrize(
    "name", ["security.selinux", "security.ima", "trusted.overlay.opaque", "system.posix_acl_access", "com.apple.x"]
)
def test_xattrs_of_the_building_host_are_dropped_with_a_warning(name: str) -> None:
    reader = TarReader(Limits(), subject="layer")
    reader.feed(tar_bytes([Member("a", pax=[(f"SCHILY.xattr.{name}", "x")])]))
    assert reader.entries[0].xattrs == {}
    assert reader.warnings == {f"xattr dropped: {name}": 1}


def test_a_thousand_xattrs_are_kept() -> None:
    entry = only(tar_bytes([Member("a", pax=[(f"SCHILY.xattr.user.{n}", str(n)) for n in range(1000)])]))
    assert len(entry.xattrs) == 1000


def test_names_of_owners_are_ignored() -> None:
    entry = only(tar_bytes([Member("a", uid=7, pax=[("uname", "root"), ("gname", "root")])]))
    assert (entry.uid, entry.gid) == (7, 0)


@pytest.mark.parametrize("header_size", [b"00000000000\0", b"00000000777\0"])
def test_pax_size_outranks_the_header_and_counts_once(header_size: bytes) -> None:
    tar = tar_bytes(
        [
            Member("a", b"x" * 5, pax=[("size", "5")], raw={"size": header_size}),
            Member("b", b"y" * 3),
        ]
    )
    assert [(entry.path, entry.size_bytes) for entry in read(tar)] == [(b"a", 5), (b"b", 3)]


def test_global_header_with_a_comment_is_ignored() -> None:
    tar = tar_bytes([extra(b"g", record("comment", "0" * 40)), Member("a", b"1")])
    assert [entry.path for entry in read(tar)] == [b"a"]


def test_archive_without_an_end_mark_is_read() -> None:
    assert [entry.path for entry in read(tar_bytes([Member("a", b"1")], end=b""))] == [b"a"]
    assert [entry.path for entry in read(tar_bytes([Member("a", b"1")], end=bytes(512)))] == [b"a"]


def test_signed_checksum_of_historical_tars_is_read() -> None:
    member = Member(b"n\xe9")
    block = bytearray(tar_bytes([member])[:512])
    block[148:156] = b" " * 8
    signed = sum(byte - 256 if byte & 0x80 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    assert only(bytes(block) + bytes(1024)).path == b"n\xe9"


def test_ustar_prefix_is_joined_and_that_of_gnu_headers_is_not() -> None:
    assert only(tar_bytes([Member("name", raw={"prefix": b"dir/sub"})])).path == b"dir/sub/name"
    gnu = Member("name", raw={"prefix": b"12345670123\0", "magic": b"ustar  \0"})
    assert only(tar_bytes([gnu])).path == b"name"


def test_limit_on_a_file_counts_its_holes() -> None:
    tar = tar_bytes(
        [Member("a", pax=[("GNU.sparse.map", ""), ("GNU.sparse.size", str(1 << 62)), ("GNU.sparse.numblocks", "0")])]
    )
    with pytest.raises(LimitExceeded, match="a file of at most"):
        read(tar)


def test_root_keeps_its_metadata(tmp_path: Path) -> None:
    layers = [tar_of({"./": Member("", kind=b"5", mode=0o1777, uid=3, mtime=9), "a": b""}), tar_of({"b": b""})]
    root = entries(*unpacked(tmp_path, layers))[b""]
    assert (root.mode, root.uid, root.mtime_ns) == (0o1777, 3, 9 * 10**9)


def test_directory_over_directory_changes_its_metadata(tmp_path: Path) -> None:
    upper = tar_of({"d/": Member("", kind=b"5", mode=0o700, uid=9)})
    found = entries(*unpacked(tmp_path, [tar_of({"d/x": b"1"}), upper]))
    assert (found[b"d"].mode, found[b"d"].uid) == (0o700, 9)
    assert b"d/x" in found


def test_missing_parents_are_plain_directories(tmp_path: Path) -> None:
    parent = entries(*unpacked(tmp_path, [tar_of({"d/x": b"1"})]))[b"d"]
    assert (parent.kind, parent.mode, parent.uid, parent.gid, parent.mtime_ns) == (Kind.DIRECTORY, 0o755, 0, 0, 0)


def test_hardlink_header_changes_nothing_of_its_target(tmp_path: Path) -> None:
    link = Member("", kind=b"1", link="a", mode=0o777, uid=5, pax=[("SCHILY.xattr.user.x", "y")])
    found = entries(*unpacked(tmp_path, [tar_of({"a": b"1", "b": link})]))
    assert (found[b"a"].mode, found[b"a"].uid, found[b"a"].xattrs) == (0o644, 0, {})
    assert (found[b"b"].kind, found[b"b"].target) == (Kind.HARDLINK, b"a")


def test_whiteout_leaves_the_time_of_its_directory(tmp_path: Path) -> None:
    lower = tar_of({"d/": Member("", kind=b"5", mtime=5), "d/x": b""})
    assert entries(*unpacked(tmp_path, [lower, tar_of({"d/.wh.x": Member("", mtime=99)})]))[b"d"].mtime_ns == 5 * 10**9


def test_warnings_are_counted(tmp_path: Path) -> None:
    result, _ = unpacked(tmp_path, [tar_of({"../a": b"", ".wh.b": b"", ".wh..wh.aufs": b""})])
    assert result.warnings == {
        "leftover of AUFS skipped": 1,
        "path above the root, held at the root": 1,
        "whiteout of nothing": 1,
    }


def test_more_user_ids_than_squashfs_can_hold_are_refused() -> None:
    def merged(count: int) -> int:
        merge = Merge()
        merge.add([Entry(b"%d" % uid, Kind.FILE, uid=uid) for uid in range(count)], subject="layer")
        return sum(1 for _ in merge.entries())

    assert merged(65_535) == 65_536
    with pytest.raises(LimitExceeded, match="65535 user and group ids"):
        merged(65_536)


# -- sparse files ------------------------------------------------------------------------------------------------------


PIECES = [(1000, 3), (5000, 4), (9000, 0)]
EXPANDED = bytes(1000) + b"abc" + bytes(3997) + b"defg" + bytes(9000 - 5004)


@pytest.mark.parametrize("format", ["0.0", "0.1", "1.0"])
def test_pax_sparse_file_is_expanded(format: str, tmp_path: Path) -> None:
    tar = {
        "0.0": sparse_0_0(PIECES, 9000, b"abcdefg"),
        "0.1": sparse_0_1(PIECES, 9000, b"abcdefg"),
        "1.0": sparse_1_0(pieces=PIECES, real=9000, data=b"abcdefg"),
    }[format]
    assert tree(*unpacked(tmp_path, [tar])) == {"s": "f " + EXPANDED.decode()}


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_file_of_gnu_tar_is_expanded(format: str, tmp_path: Path) -> None:
    content = bytearray(4 << 20)
    for n in range(40):  # more pieces than one header, and one extension block, can hold
        content[n * 100_000 : n * 100_000 + 10] = b"data%06d" % n
    with open(tmp_path / "s", "wb") as file:
        for n in range(40):
            file.seek(n * 100_000)
            file.write(b"data%06d" % n)
        file.truncate(4 << 20)
    tar = subprocess.run(
        ["tar", f"--format={format}", "-S", "-C", tmp_path, "-cf", "-", "s"], check=True, capture_output=True
    )
    assert len(tar.stdout) < 1 << 20
    assert tree(*unpacked(tmp_path, [tar.stdout])) == {"s": "f " + content.decode()}


@pytest.mark.parametrize(
    ("pieces", "real", "data"),
    [
        ([(10, 5), (5, 2)], 100, b"abcdefg"),
        ([(0, 5), (3, 2)], 100, b"abcdefg"),
        ([(0, 5)], 4, b"abcde"),
        ([(0, 5)], 100, b"abcd"),
        ([(0, 5)], 100, b"abcdef"),
    ],
)
def test_sparse_map_that_cannot_be_is_refused(pieces: list[tuple[int, int]], real: int, data: bytes) -> None:
    for tar in (sparse_0_0(pieces, real, data), sparse_0_1(pieces, real, data)):
        with pytest.raises(BadLayer, match="sparse"):
            read(tar)
    with pytest.raises(BadLayer, match="sparse"):
        read(sparse_1_0(pieces=pieces, real=real, data=data))


@pytest.mark.parametrize(
    "text", [b"", b"x\n", b"2\n1\n2\n", b"1\n-1\n2\n", b"01\n1\n1\n", b"1\n0\n1\nx", b"99999999999\n"]
)
def test_sparse_map_that_is_no_map_is_refused(text: bytes) -> None:
    with pytest.raises((BadLayer, LimitExceeded)):
        read(sparse_1_0(pieces=[], real=10, data=b"x", text=text))


def test_sparse_map_longer_than_the_limit_is_refused_early() -> None:
    tar = sparse_1_0(pieces=[(n, 1) for n in range(2000)], real=10_000, data=b"x" * 2000)
    with pytest.raises(LimitExceeded, match="pieces of a file"):
        read(tar, limits=Limits(extents=1000))


# -- against the standard library as a second opinion ------------------------------------------------------------------


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes_is_read_alike(format: int) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name, kind, size in [
            ("d", tarfile.DIRTYPE, 0),
            ("d/" + "é" * 30, tarfile.REGTYPE, 1000),
            ("a/" * 40 + "f", tarfile.REGTYPE, 10),
            ("l", tarfile.SYMTYPE, 0),
            ("c", tarfile.CHRTYPE, 0),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime, info.uid, info.mode = kind, size, 1234567, 1000, 0o640
            info.linkname = "d/target" if kind == tarfile.SYMTYPE else ""
            info.devmajor, info.devminor = (1, 9) if kind == tarfile.CHRTYPE else (0, 0)
            tar.addfile(info, io.BytesIO(b"x" * size))

    data = python_tar(fill, format=format)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [
            (
                info.name.encode(),
                info.size,
                info.mode,
                info.uid,
                int(info.mtime),
                info.linkname.encode(),
                info.offset_data,
            )
            for info in tar
        ]
    found = [
        (
            entry.path.rstrip(b"/"),
            entry.size_bytes,
            entry.mode,
            entry.uid,
            entry.mtime_ns // 10**9,
            entry.target,
            entry.offset,
        )
        for entry in read(data)
    ]
    assert found == expected
