"""Formats besides squashfs: what is in them by independent readers, and that bytes depend on the content alone."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from support import debtree, facts
from support.facts import Facts
from support.mounts import mounted
from support.tars import Member, image_of, tar_of, write_layout
from support.unpacking import unpacked

from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.squash.errors import UnknownFormat
from pipeline.squash.formats import FORMATS, form_of
from pipeline.squash.paxtar import records
from pipeline.squashfs import BadCompressionName
from pipeline.store import Store
from pipeline.tool import ToolMissing
from pipeline.tree import Entry, Kind

CAPABILITY = ("SCHILY.xattr.security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
ROOT = Member("", kind=b"5", mode=0o755, mtime=1_600_000_000)
LOWER = {
    "./": ROOT,
    "a/": None,
    "a/x": b"x" * 70_000,
    "a/gone": b"1",
    "bin": "-> usr/bin",
    "usr/bin/tool": Member("", hashlib.shake_256(b"noise").digest(200_000), mode=0o6755, mtime=1_600_000_001),
    "usr/bin/alias": "=> usr/bin/tool",
    "cap": Member("", b"c", pax=[CAPABILITY, ("SCHILY.xattr.trusted.t", b"\0\xff=\n")]),
    "owned": Member("", b"o", uid=3_000_000_000, gid=70_000, mtime=2**32 - 1),
    "sub": Member("", b"", pax=[("mtime", "1600000000.123456789")]),
    "empty": b"",
    "zeros": bytes(300_000),
    "é" * 127: b"255 bytes",
    "/".join(["deep" * 20] * 14): b"deep",
    "new\nline\\ :": b"1",
    "absolute": "-> /" + "t" * 180,
    b"latin-\xe9": b"1",
    b"long" * 30 + b"\xff": b"2",
    "c": Member("", kind=b"3", device=(1, 3), mode=0o666),
    "b": Member("", kind=b"4", device=(259, 1048575)),
    "p": Member("", kind=b"6", mode=0o600),
}
UPPER = {"a/.wh.gone": b"", "z": "=> usr/bin/tool"}
LAYERS = (tar_of(LOWER), tar_of(UPPER))


def packed(tmp_path: Path, format: str, compression: str = "", *, layers: tuple[bytes, ...] = LAYERS) -> Path:
    layout = write_layout(tmp_path / "layout", {"t": image_of(*layers)})
    out = layout.parent / f"image.{format}"
    pack_image(f"oci:{layout}:t", out, env=Env(Store(tmp_path / "store")), format=format, compression=compression)
    return out


def ours(tmp_path: Path) -> Facts:
    return facts.of_tree(*unpacked(tmp_path / "ours", LAYERS))


# -- tar ---------------------------------------------------------------------------------------------------------------


def by_gnu_tar(path: Path, tmp_path: Path) -> Facts:
    (tmp_path / "out").mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--warning=no-timestamp"]
    done = subprocess.run(["tar", *options, "-xpf", path, "-C", tmp_path / "out"], check=True, capture_output=True)
    assert done.stderr.replace(b"tar: Ignoring unknown extended header keyword 'hdrcharset'\n", b"") == b""
    return facts.of_directory(tmp_path / "out")


def by_libarchive(path: Path, tmp_path: Path) -> Facts:
    """bsdtar is libarchive's own program; its library extracts here, as root with everything it knows."""
    import libarchive
    from libarchive import extract

    (tmp_path / "out").mkdir()
    everything = extract.EXTRACT_OWNER | extract.EXTRACT_PERM | extract.EXTRACT_TIME | extract.EXTRACT_XATTR
    here = os.getcwd()
    os.chdir(tmp_path / "out")
    try:
        libarchive.extract_file(str(path), everything)
    finally:
        os.chdir(here)
    found = facts.of_directory(tmp_path / "out")
    # The directory it extracts into keeps its own time, with tars of any maker.
    return found | {b"": replace(found[b""], mtime_ns=ROOT.mtime * 10**9)}


def by_us(path: Path, tmp_path: Path) -> Facts:
    return facts.of_tree(*unpacked(tmp_path / "again", [path.read_bytes()], strict=True))


READERS: dict[str, Callable[[Path, Path], Facts]] = {
    "GNU tar": by_gnu_tar,
    "libarchive": by_libarchive,
    "our own, strictly": by_us,
}


@pytest.mark.root
@pytest.mark.parametrize("reader", READERS)
def test_tar_is_extracted_to_our_tree_by(reader: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners, devices and trusted xattrs of an extracted tree need root")
    assert READERS[reader](packed(tmp_path, "tar"), tmp_path) == ours(tmp_path)


def test_tar_is_listed_alike_by_python(tmp_path: Path) -> None:
    kinds = {
        tarfile.DIRTYPE: "d",
        tarfile.SYMTYPE: "l",
        tarfile.CHRTYPE: "c",
        tarfile.BLKTYPE: "b",
        tarfile.FIFOTYPE: "p",
    }
    found, expected = {}, ours(tmp_path)
    with tarfile.open(packed(tmp_path, "tar")) as tar:
        for info in tar:
            name = info.name.encode("utf-8", "surrogateescape").removeprefix(b".")
            if info.type == tarfile.LNKTYPE:
                assert info.linkname.encode() in expected[name].names
                continue
            found[name] = (kinds.get(info.type, "f"), info.mode, info.uid, info.gid, info.size)
    assert all(
        (fact.kind, fact.mode, fact.uid, fact.gid) == found[path][:4]
        for path, fact in expected.items()
        if path in found
    )
    assert set(expected) - set(found) == {b"usr/bin/tool", b"z"}
    assert list(found) == sorted(found, key=lambda path: path.split(b"/"))


@pytest.mark.parametrize("compression", ["gzip", "zstd-3", "zstd-19"])
def test_compressed_tar_inflates_to_the_plain_one(compression: str, tmp_path: Path) -> None:
    plain = packed(tmp_path / "plain", "tar").read_bytes()
    data = packed(tmp_path / "other", "tar", compression).read_bytes()
    if compression == "gzip":
        assert gzip.decompress(data) == plain
        assert data[4:8] == bytes(4), "no time in the header"
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(data) == plain
    assert len(data) < len(plain) // 2


@pytest.mark.parametrize("mtime_ns", [0, 1, -1, -(10**9), -1_250_000_000, 8**11 * 10**9, 2**62])
def test_any_time_survives_a_tar(mtime_ns: int) -> None:
    from pipeline.limits import Limits
    from pipeline.unpack.tar import TarReader

    reader = TarReader(Limits(), subject="tar")
    reader.feed(records(Entry(b"a", Kind.FILE, mtime_ns=mtime_ns)))
    assert reader.entries[0].mtime_ns == mtime_ns


def test_file_over_eight_gib_has_its_size_in_a_record() -> None:
    head = records(Entry(b"a", Kind.FILE, size_bytes=8 << 30))
    assert b"19 size=8589934592\n" in head
    assert tarfile.TarInfo.frombuf(head[-512:], "utf-8", "strict").size == 0


# -- erofs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def erofs_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """mkfs.erofs and fsck.erofs that can: this machine's, else Debian 13's from their packages."""
    try:
        form_of("erofs", "lz4").tools()
    except ToolMissing:
        root = debtree.unpacked("erofs", "erofs-utils")
        for name in ("mkfs.erofs", "fsck.erofs"):
            debtree.shim(tmp_path / "bin", name, debtree.command(root, f"usr/bin/{name}"))
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.network
@pytest.mark.root
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_erofs_is_mounted_as_our_tree(compression: str, erofs_tools: Path, tmp_path: Path) -> None:
    image = packed(tmp_path, "erofs", compression)
    with mounted(tmp_path / "mnt", "erofs", image, "ro,loop") as root:
        assert facts.of_directory(root) == ours(tmp_path)


@pytest.mark.network
@pytest.mark.root
@pytest.mark.parametrize("compression", ["", "zstd-9", "small", "gzip", "lz4"])
def test_erofs_is_extracted_to_our_tree(compression: str, erofs_tools: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners, devices and trusted xattrs of an extracted tree need root")
    fsck = shutil.which("fsck.erofs")
    assert fsck
    image = packed(tmp_path, "erofs", compression)
    subprocess.run([fsck, f"--extract={tmp_path / 'out'}", "--xattrs", image], check=True, capture_output=True)
    expected = ours(tmp_path)
    # It sets the owner after the xattrs, and Linux then takes the capability away; the mounted image has it.
    lost = tuple(item for item in expected[b"cap"].xattrs if item[0] != b"security.capability")
    assert facts.of_directory(tmp_path / "out") == expected | {b"cap": replace(expected[b"cap"], xattrs=lost)}


@pytest.mark.network
def test_equal_content_is_an_equal_erofs(erofs_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = {key: LOWER[key] for key in reversed(LOWER) if key != "usr/bin/alias"}
    split = (tar_of({"a/gone": b"1", "a/": None}), tar_of(backwards), tar_of(UPPER | {"usr/bin/alias": "=> z"}))
    digests = set()
    for number, layers in enumerate((LAYERS, split)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(number + 5))
        monkeypatch.setenv("TZ", ("UTC", "Asia/Kathmandu")[number])
        digests.add(hashlib.sha256(packed(tmp_path / str(number), "erofs", layers=layers).read_bytes()).digest())
    assert len(digests) == 1


@pytest.mark.parametrize("said", ["mkfs.erofs 1.5", "mkfs.erofs (erofs-utils) 1.7.1", "nothing"])
def test_an_old_mkfs_erofs_is_one_sentence(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{debtree.shim(tmp_path / 'bin', 'mkfs.erofs', ['echo', said])}:{os.environ['PATH']}")
    with pytest.raises(ToolMissing, match=r"expected version 1\.8 or newer, which makes an erofs of a tar, got"):
        packed(tmp_path, "erofs")
    assert not (tmp_path / "image.erofs").exists()


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "compression", "expected"),
    [
        ("squashfs", "none", "zstd-1 to zstd-22, small, gzip or lz4"),
        ("squashfs", "xz", "zstd-1 to zstd-22, small, gzip or lz4"),
        ("tar", "small", "none, gzip or zstd-1 to zstd-22 for tar"),
        ("tar", "zstd-23", "none, gzip or zstd-1 to zstd-22 for tar"),
        ("erofs", "zstd", "none, zstd-1 to zstd-22, small, gzip or lz4 for erofs"),
    ],
)
def test_unknown_compression_says_what_the_format_takes(format: str, compression: str, expected: str) -> None:
    with pytest.raises(BadCompressionName, match=f"compression '{compression}': expected {re.escape(expected)}"):
        form_of(format, compression)


def test_unknown_format_says_which_there_are() -> None:
    with pytest.raises(UnknownFormat, match="format 'ext4': expected one of squashfs, erofs, tar"):
        form_of("ext4", "")


def test_small_is_zstd_9_in_blocks_of_a_mib() -> None:
    assert form_of("squashfs", "small").params == {
        "format": "squashfs",
        "compressor": "zstd",
        "options": "level=9",
        "block_bytes": 1 << 20,
    }
    assert form_of("erofs", "small").params["options"] == ["-zzstd,level=9", "-C1048576"]


def test_every_form_has_a_key_of_its_own() -> None:
    names = {"squashfs": ("", "zstd-9", "small", "gzip", "lz4"), "tar": ("", "gzip", "zstd-3", "zstd-4")}
    names["erofs"] = ("", "none", "zstd-9", "small", "gzip", "lz4")
    assert set(names) == set(FORMATS)
    keys = [repr(form_of(format, name).params) for format, compressions in names.items() for name in compressions]
    assert len(set(keys)) == len(keys)
