"""The format erofs: mkfs.erofs on the merged tree as a tar, called so that equal trees give equal images.

mkfs.erofs before 1.8 reads no tar, or not all of one; trees are never laid out on disk here, so it is refused.
"""

from __future__ import annotations

import re
import struct

from pipeline import tool
from pipeline.feed import Pipe, run_fed
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.rootfs import Rootfs
from pipeline.squash.form import Form
from pipeline.squash.paxtar import write_archive
from pipeline.squashfs import BadCompressionName, SquashFailed, library_version
from pipeline.store import Store

MEDIA_TYPE = "application/vnd.zonewright.rootfs.v1.erofs"
TAKES = "none, zstd-1 to zstd-22, small, gzip or lz4"
VERSION_MIN = (1, 8)
SUPERBLOCK = struct.Struct("<1024xI")
MAGIC = 0xE0F5E1E2
FIXED_UUID = "00000000-0000-0000-0000-000000000000"
_PRESETS = {
    "none": [],
    "small": ["-zzstd,level=9", "-C1048576"],
    "gzip": ["-zdeflate,level=6"],
    "lz4": ["-zlz4hc"],
}
_LIBRARIES = {"zstd": ("libzstd.so.1", "ZSTD_versionString"), "lz4hc": ("liblz4.so.1", "LZ4_versionString")}


def form(compression: str) -> Form:
    """compression: "zstd-1" to "zstd-22" ("": zstd-3), "small" (zstd-9 in clusters of 1 MiB), "gzip", "lz4", "none".

    Raises:  BadCompressionName.
    """
    options = _options(compression or "zstd-3")

    def write(store: Store, rootfs: Rootfs, progress: Progress, total_bytes: int) -> Descriptor:
        return _write(store, rootfs, progress, total_bytes, options)

    return Form({"format": "erofs", "options": options}, lambda: _versions(options), write)


def _options(name: str) -> list[str]:
    match = re.fullmatch(r"zstd-([1-9]|1[0-9]|2[0-2])", name)
    if match:
        return [f"-zzstd,level={match[1]}"]
    if name not in _PRESETS:
        raise BadCompressionName(f"compression {name!r}", expected=f"{TAKES} for erofs", got="another")
    return _PRESETS[name]


def _compressor(options: list[str]) -> str:
    return options[0].removeprefix("-z").partition(",")[0] if options else ""


def mkfs() -> tuple[str, str]:
    """Path and version of a mkfs.erofs that can. Raises ToolMissing."""
    program = tool.find("mkfs.erofs", package="erofs-utils, 1.8 or newer")
    said = tool.run([program, "--version"], timeout_s=20).decode(errors="replace")
    match = re.search(r"\b(\d+)\.(\d+)(\.\d+)?", said)
    if match is None or (int(match[1]), int(match[2])) < VERSION_MIN:
        raise tool.ToolMissing(
            f"program {program}",
            expected="version 1.8 or newer, which makes an erofs of a tar",
            got=match[0] if match else "no version",
            hint="--format squashfs needs none; Debian 13 has 1.8",
        )
    return program, match[0]


def _versions(options: list[str]) -> dict[str, str]:
    versions = {"mkfs.erofs": mkfs()[1]}
    if library := _LIBRARIES.get(_compressor(options)):
        versions[library[0].partition(".")[0]] = library_version(*library)
    return versions


def _write(store: Store, rootfs: Rootfs, progress: Progress, total_bytes: int, options: list[str]) -> Descriptor:
    inodes = 0

    def feed(pipe: Pipe) -> None:
        nonlocal inodes
        inodes = write_archive(rootfs, pipe.write, progress, total_bytes)

    with store.scratch() as scratch:
        out = scratch / "image.erofs"
        # The time of building and the UUID would differ each run; times of files are those of the tar.
        words = [mkfs()[0], "-d1", "--tar=f", "-T0", "--mkfs-time", "-U", FIXED_UUID, *options, str(out)]
        with open(scratch / "stderr", "w+b") as stderr:
            run_fed(words, feed, stderr, subject="mkfs.erofs", env={"TMPDIR": str(scratch)})
        with open(out, "rb") as image:
            (magic,) = SUPERBLOCK.unpack(image.read(SUPERBLOCK.size))
            image.seek(1024 + 16)
            (count,) = struct.unpack("<Q", image.read(8))
        if magic != MAGIC or count != inodes:
            raise SquashFailed("mkfs.erofs", expected=f"an erofs of {inodes} inodes", got=f"{magic:#x} with {count}")
        return store.put_file(out, MEDIA_TYPE)
