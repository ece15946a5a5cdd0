"""Unpacking as a stage: what it keeps, what it verifies, what it never does."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard
from support.tars import Image, Member, image_of, sha256, tar_bytes, tar_of, write_layout
from support.unpacking import entries, tree, unpacked

from pipeline import fetch, unpack
from pipeline.env import Env
from pipeline.errors import DigestMismatch, PipelineError, StoreDamaged
from pipeline.inflate import BadCompression, inflated
from pipeline.layers import Layer, LayerPass, Spools
from pipeline.limits import Limits
from pipeline.rootfs import NoSuchFile
from pipeline.store import Store
from pipeline.tree import Kind

TAR = tar_of(
    {"etc/": None, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "etc/group": b"root:x:0:\n", "big": b"b" * 300_000}
)


def with_blob(image: Image, number: int, blob: bytes) -> Image:
    """The image with other bytes as one of its layers, honestly named."""
    manifest = json.loads(image.manifest)
    manifest["layers"][number] |= {"digest": sha256(blob), "size": len(blob)}
    return Image(json.dumps(manifest).encode(), image.config, image.blobs | {sha256(blob): blob})


def run(image: Image, tmp_path: Path, **options: object) -> tuple[unpack.UnpackResult, Env]:
    layout = write_layout(tmp_path / "layout", {"t": image})
    env = Env(Store(tmp_path / "store"))
    fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)
    return unpack.run(unpack.UnpackParams(fetched, **options), env), env  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_tree_document_does_not_depend_on_the_compression(compression: str, tmp_path: Path) -> None:
    plain, _ = unpacked(tmp_path / "plain", [TAR, tar_of({"x": b"1"})])
    result, _ = run(image_of(TAR, tar_of({"x": b"1"}), compression=compression), tmp_path / "other")
    assert (result.tree, result.entries, result.size_bytes) == (plain.tree, plain.entries, plain.size_bytes)


def test_accounts_are_kept_as_blobs(tmp_path: Path) -> None:
    result, env = unpacked(tmp_path, [TAR])
    assert result.passwd is not None and result.group is not None
    assert env.store.read(result.passwd.digest) == b"root:x:0:0::/:/bin/sh\n"
    assert env.store.read(result.group.digest) == b"root:x:0:\n"


@pytest.mark.parametrize("passwd", ["-> /proc/self/environ", Member("", kind=b"6"), b"x" * ((1 << 20) + 1)])
def test_accounts_that_are_no_small_files_are_left_out(passwd: object, tmp_path: Path) -> None:
    result, _ = unpacked(tmp_path, [tar_of({"etc/passwd": passwd})])
    assert (result.passwd, result.group) == (None, None)


def test_accounts_behind_symlinks_of_the_image_are_found(tmp_path: Path) -> None:
    layer = tar_of({"etc": "-> /real/etc", "real/etc/passwd": "-> ../p", "real/p": b"root\n"})
    result, env = unpacked(tmp_path, [layer])
    assert result.passwd is not None
    assert env.store.read(result.passwd.digest) == b"root\n"


def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The diff_id of every layer that is inflated from here on."""
    begun: list[str] = []
    original = LayerPass.__init__

    def recorded(self: LayerPass, layer: Layer, *rest: Any, **options: Any) -> None:
        begun.append(str(layer.diff_id))
        original(self, layer, *rest, **options)

    monkeypatch.setattr(LayerPass, "__init__", recorded)
    return begun


def test_second_image_with_the_same_layer_does_not_read_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tar_of({"base": b"1"})
    run(image_of(base), tmp_path)
    opened = passes(monkeypatch)
    layout = write_layout(tmp_path / "second", {"t": image_of(base, tar_of({"top": b"2"}), compression="zstd")})
    env = Env(Store(tmp_path / "store"))
    result = unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}"), env)), env)
    assert opened == [sha256(tar_of({"top": b"2"}))]
    assert tree(result, env) == {"base": "f 1", "top": "f 2"}


def test_nothing_is_left_in_the_store_but_blobs_and_results(tmp_path: Path) -> None:
    _, env = unpacked(tmp_path, [TAR])
    assert os.listdir(env.store.tmp) == []


def test_layer_that_is_not_its_diff_id_is_refused(tmp_path: Path) -> None:
    image = image_of(TAR)
    blob = gzip.compress(tar_of({"other": b"1"}), mtime=0)
    with pytest.raises(DigestMismatch, match=f"expected diff_id {sha256(TAR)}"):
        run(with_blob(image, 0, blob), tmp_path)


def test_blob_altered_between_fetch_and_unpack_is_named(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image_of(TAR)})
    env = Env(Store(tmp_path / "store"))
    fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)
    path = env.store.path(fetched.layers[0].digest)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:100] + bytes([data[100] ^ 4]) + data[101:])
    with pytest.raises(StoreDamaged, match=str(fetched.layers[0].digest)):
        unpack.run(unpack.UnpackParams(fetched), env)


def test_one_file_is_read_by_path_through_links(tmp_path: Path) -> None:
    layer = tar_of({"k/image": b"kernel", "boot": "-> /k", "h": "=> k/image", "loop": "-> loop"})
    result, env = unpacked(tmp_path, [layer])
    with Spools(env.store) as spools:
        rootfs = unpack.open_rootfs(env.store, result, spools)
        for path in ("/k/image", "boot/image", "h", "/boot/../k/./image", "../k/image"):
            assert rootfs.read(path) == b"kernel"
        assert env.store.read(rootfs.store_file("/boot/image", media_type="x/y").digest) == b"kernel"
        for path in ("none", "k", "loop", "k/image/x"):
            with pytest.raises(NoSuchFile, match="expected a file"):
                rootfs.read(path)
        with pytest.raises(NoSuchFile, match="at most 3 bytes"):
            rootfs.read("k/image", limit_bytes=3)


# -- compression -------------------------------------------------------------------------------------------------------


class Source:
    """Bytes in short reads."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self._data, self._step = data, step

    def read(self, size: int, /) -> bytes:
        step = min(size, self._step)
        out, self._data = self._data[:step], self._data[step:]
        return out


def plain(data: bytes, *, limit_bytes: int = 1 << 30) -> bytes:
    return b"".join(inflated(Source(data), limit_bytes=limit_bytes, subject="layer"))


RAW = os.urandom(5000) + bytes(200_000)
GZIP = gzip.compress(RAW, mtime=0)
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(RAW)
SKIPPABLE = b"\x5f\x2a\x4d\x18\x04\x00\x00\x00skip"


def zstd_window(log: int) -> bytes:
    """RAW in a frame that wants a window of that size."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(RAW) + compressor.flush()


def zstd_raw(*, dictionary_id: bytes) -> bytes:
    """The first 999 bytes of RAW in one raw block, with or without a dictionary's id (RFC 8878, 3.1.1)."""
    head = bytes([3 if dictionary_id else 0, 0x50]) + dictionary_id
    return zstandard.FRAME_HEADER + head + (999 << 3 | 1).to_bytes(3, "little") + RAW[:999]


GOOD = {
    "gzip": (GZIP, RAW),
    "case_80/1: gzip of several members": (GZIP + GZIP, RAW + RAW),
    "gzip in many full pieces": (gzip.compress(bytes(5 << 20), mtime=0), bytes(5 << 20)),
    "zstd in many full pieces": (zstandard.ZstdCompressor().compress(bytes(5 << 20)), bytes(5 << 20)),
    "case_80/2: gzip with zero padding": (GZIP + bytes(5000), RAW),
    "zstd": (ZSTD, RAW),
    "case_83/1: zstd of several frames": (ZSTD + ZSTD, RAW + RAW),
    "case_83/2: zstd with skippable frames": (SKIPPABLE + ZSTD + SKIPPABLE, RAW),
    "zstd raw block": (zstd_raw(dictionary_id=b""), RAW[:999]),
    "case_83/3: zstd with a window of 64 MiB": (zstd_window(26), RAW),
    "plain": (RAW, RAW),
}
BAD = {
    "case_81/1: gzip cut in the data": GZIP[:-2000],
    "case_81/2: gzip cut in the trailer": GZIP[:-3],
    "case_81/3: gzip with a wrong CRC": GZIP[:-8] + bytes([GZIP[-8] ^ 1]) + GZIP[-7:],
    "case_81/4: gzip with a wrong size": GZIP[:-4] + bytes([GZIP[-4] ^ 1]) + GZIP[-3:],
    "case_80/1: gzip with bytes after it": GZIP + b"junk",
    "case_80/2: gzip with bytes after its padding": GZIP + bytes(3000) + b"j",
    "case_81/5: zstd cut in the data": ZSTD[:-2000],
    "zstd cut in the checksum": ZSTD[:-1],
    "zstd cut in the last block": ZSTD[:-6],
    "zstd cut in the header": ZSTD[:6],
    "case_81/6: zstd with a wrong checksum": ZSTD[:-1] + bytes([ZSTD[-1] ^ 1]),
    "zstd with bytes after it": ZSTD + b"junk",
    "case_83/1: zstd with a window over 128 MiB": bytes.fromhex("28b52ffd00c8") + b"\x01\x00\x00",
    "case_83/2: zstd with a dictionary": zstd_raw(dictionary_id=b"\x78\x56\x34\x12"),
    "xz": b"\xfd7zXZ\0" + bytes(100),
    "nothing": b"",
}


@pytest.mark.parametrize("name", GOOD)
def test_compressed_bytes_come_out(name: str) -> None:
    data, expected = GOOD[name]
    assert plain(data) == expected


@pytest.mark.parametrize("name", BAD)
def test_broken_compression_is_refused(name: str) -> None:
    with pytest.raises(BadCompression):
        plain(BAD[name])


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_bomb_ends_at_the_limit(kind: str, tmp_path: Path) -> None:
    zeros = bytes(1 << 20)
    bomb = gzip.compress(zeros * 64, mtime=0) if kind == "gzip" else zstandard.ZstdCompressor().compress(zeros * 64)
    with pytest.raises(BadCompression, match="at most 3000000 bytes when inflated"):
        plain(bomb, limit_bytes=3_000_000)
    tar = tar_bytes([Member("zeros", zeros * 8)])
    with pytest.raises(BadCompression, match="when inflated"):
        run(image_of(tar, compression=kind), tmp_path, limits=Limits(ratio=10, ratio_free_bytes=1 << 20))


# -- a second opinion --------------------------------------------------------------------------------------------------


def test_umoci_agrees_on_the_merged_tree(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("umoci keeps owners only as root")
    if not any(os.access(f"{place}/umoci", os.X_OK) for place in ("/usr/bin", "/usr/local/bin")):
        pytest.skip("umoci is not installed")
    lower = tar_of(
        {"./": Member("", kind=b"5", mode=0o755, mtime=5), "a/": None, "a/x": b"x" * 70_000, "a/y": b"y", "k": "=> a/x"}
        | {"lib": "-> usr/lib", "usr/lib/": None, "usr/lib/l": b"1", "own": Member("", b"o", uid=70_000, mode=0o4755)}
        | {"op/": None, "op/old": b"1", "gone/": None, "gone/deep/x": b"1", "f": b"1", "d/": None, "d/x": b"1"}
        | {"fifo": Member("", kind=b"6"), "dev": Member("", kind=b"3", device=(1, 3)), "n" * 200: b"long"}
    )
    upper = tar_of(
        {"op/": None, "op/.wh..wh..opq": b"", "op/new": b"2", ".wh.gone": b"", "lib/m": b"2", "a/.wh.x": b""}
        | {"f/": None, "f/x": b"2", "d": b"2", "z": "=> a/y"}
    )
    layout = write_layout(tmp_path / "layout", {"t": image_of(lower, upper)})
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:t", bundle], check=True, capture_output=True)
    env = Env(Store(tmp_path / "store"))
    result = unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)), env)
    ours = {}
    found = entries(result, env)
    with Spools(env.store) as spools:
        rootfs = unpack.open_rootfs(env.store, result, spools)
        for path, entry in found.items():
            node = found[entry.target] if entry.kind is Kind.HARDLINK else entry
            digest = hashlib.sha256(rootfs.read(path)).hexdigest() if node.kind is Kind.FILE else ""
            target = node.target.decode() if node.kind is Kind.SYMLINK else ""
            ours[path.decode()] = (node.kind.value, node.mode, node.uid, node.gid, digest, target)
    theirs = {}
    root = bundle / "rootfs"
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        kind = {0o4: "d", 0o10: "f", 0o12: "l", 0o1: "p", 0o2: "c"}[status.st_mode >> 12]
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "f" else ""
        name = "" if path == root else str(path.relative_to(root))
        target = os.readlink(path) if kind == "l" else ""
        theirs[name] = (kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, digest, target)
    assert ours == theirs


def test_any_damage_to_a_layer_is_a_typed_error(tmp_path: Path) -> None:
    """Every byte of a small layer changed: never another exception than ours."""
    from pipeline.unpack.merge import Merge
    from pipeline.unpack.tar import TarReader

    tar = tar_of({"d/": None, "d/" + "n" * 120: b"1", "l": "-> x", "x": Member("", b"2", pax=[("uid", "7")])})
    accepted = 0
    for at in range(len(tar) - 1024):
        change = (1, 0x80, 0xFF)[at % 3]
        damaged = tar[:at] + bytes([tar[at] ^ change]) + tar[at + 1 :]
        block = at // 512 * 512
        if tar[block + 257 : block + 262] == b"ustar":  # make the checksum right again, to get past it
            header = bytearray(damaged[block : block + 512])
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            damaged = damaged[:block] + bytes(header) + damaged[block + 512 :]
        try:
            reader = TarReader(Limits(), subject="layer")
            reader.feed(damaged)
            reader.finish()
            merge = Merge()
            merge.add(reader.entries, subject="layer")
            list(merge.entries())
            accepted += 1
        except PipelineError:
            pass
    assert accepted > 0
