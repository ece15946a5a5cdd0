"""The usual way from a registry to a squashfs, and the least two cores could do it in."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from place import cold
from process import Spent, spend

CORES = 2
CHUNK_BYTES = 256 << 10
LEVEL = 3
BLOCK_BYTES = 128 << 10


@dataclass(frozen=True)
class Usual:
    """One run of the usual way, step by step, and the size of what it made."""

    steps: dict[str, Spent]
    size_bytes: int


def usual_way(reference: str, scratch: Path) -> Usual:
    """`skopeo copy`, `umoci unpack`, `mksquashfs` at the level, block size and number of threads that ours has.

    Raises:  NotMeasured.
    """
    with cold(scratch) as work:
        layout, bundle, out = work / "layout", work / "bundle", work / "out.squashfs"
        words = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", reference, f"oci:{layout}:image"]
        copied = spend(*words)
        rootless = [] if os.getuid() == 0 else ["--rootless"]
        unpacked = spend("umoci", "unpack", *rootless, "--image", f"{layout}:image", bundle)
        words = ["mksquashfs", str(bundle / "rootfs"), str(out), "-noappend", "-quiet", "-no-progress"]
        words += ["-comp", "zstd", "-Xcompression-level", str(LEVEL), "-b", str(BLOCK_BYTES)]
        packed = spend(*words, "-processors", str(os.cpu_count()))
        steps = {"skopeo copy": copied, "umoci unpack": unpacked, "mksquashfs": packed}
        return Usual(steps, out.stat().st_size)


@dataclass(frozen=True)
class Limit:
    """CPU seconds of what cannot be left out: every byte inflated, hashed and compressed once."""

    inflate_s: float
    hashes_s: float
    compressor_s: float

    @property
    def wall_s(self) -> float:
        """With all of it spread evenly over two cores, and nothing else to do."""
        return (self.inflate_s + self.hashes_s + self.compressor_s) / CORES


def limit(layers: list[Path], tar: Path) -> Limit:
    """Measure the three.

    layers:  compressed blobs. tar: the merged tree, ready to be compressed; all of it is in the page cache.
    Raises:  NotMeasured.
    """
    counted = spend(sys.executable, __file__, tar, *layers)
    return Limit(*json.loads(counted.said))


def inflate_and_hash(layers: list[str]) -> tuple[float, float]:
    """CPU seconds for inflating layers with isal, and for the sha256 of their compressed and of their plain bytes."""
    from isal import isal_zlib

    inflating = hashing = 0
    clock = time.thread_time_ns
    for layer in layers:
        compressed, plain, inflater = hashlib.sha256(), hashlib.sha256(), isal_zlib.decompressobj(31)
        with open(layer, "rb", buffering=0) as file:
            while data := file.read(CHUNK_BYTES):
                start = clock()
                compressed.update(data)
                between = clock()
                inflated = inflater.decompress(data)
                after = clock()
                plain.update(inflated)
                hashing += clock() - after + between - start
                inflating += after - between
    return inflating / 1e9, hashing / 1e9


def compress(tar: str) -> float:
    """CPU seconds for compressing a file in blocks by the compressor that ours has, in as many threads as ours has."""
    import zstandard

    descriptor = os.open(tar, os.O_RDONLY)
    offsets = iter(range(0, os.fstat(descriptor).st_size, BLOCK_BYTES))
    spent: list[int] = []

    def work() -> None:
        compressor = zstandard.ZstdCompressor(level=LEVEL)
        start = time.thread_time_ns()
        for offset in offsets:
            compressor.compress(os.pread(descriptor, BLOCK_BYTES, offset))
        spent.append(time.thread_time_ns() - start)

    threads = [threading.Thread(target=work) for _ in range(CORES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(spent) / 1e9


if __name__ == "__main__":
    merged, *compressed_layers = sys.argv[1:]
    print(json.dumps([*inflate_and_hash(compressed_layers), compress(merged)]))
