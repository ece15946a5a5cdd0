"""Small inputs that want to become large: each ends at a limit, by name, in bounded memory, leaving nothing.

Packed whole by a child whose memory is measured; a child that does not end is killed and fails the test.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard
from support.sparse import sparse_0_1
from support.tars import BLOCK, Member, header, image_of, number, sha256, tar_bytes, write_layout

PROJECT = Path(__file__).resolve().parents[3]
GIB, MIB = 1 << 30, 1 << 20
ZSTD_BLOCK_BYTES = 128 << 10
END_S = 300

PACK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pipeline.config import load_config
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.pack import pack_image
from pipeline.store import Store
work = Path(sys.argv[2])
try:
    pack_image(sys.argv[3], work / "out" / "image", env=Env(Store(work / "store"), config=load_config(work / "config")))
    said, hint = "accepted", ""
except PipelineError as error:
    said, hint = str(error), error.hint
# Not ru_maxrss: that of a child begins with what its parent had when it was forked.
peak_kib = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([said, hint, int(peak_kib) // 1024]))
"""


def packed(work: Path, blob: bytes, *, tar: bytes = b"", config: str = "") -> tuple[str, str, int]:
    """(what was said, the error's hint, MiB of memory) of packing an image whose one layer is this blob.

    tar: what the blob inflates to, where anybody gets as far as to ask.
    """
    image = image_of(tar)
    manifest = json.loads(image.manifest)
    manifest["layers"][0] |= {"digest": sha256(blob), "size": len(blob)}
    image.blobs[sha256(blob)] = blob
    image.manifest = json.dumps(manifest).encode()
    layout = write_layout(work / "layout", {"t": image})
    (work / "out").mkdir()
    (work / "config").write_text(config)
    argv = [sys.executable, "-c", PACK, str(PROJECT), str(work), f"oci:{layout}:t"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=END_S)
    assert done.returncode == 0, done.stderr
    assert os.listdir(work / "out") == os.listdir(work / "store" / "tmp") == []
    said, hint, memory_mib = json.loads(done.stdout)
    return said, hint, memory_mib


def big_file(size: int) -> bytes:
    """The header of a file of that many bytes."""
    return header(Member("zeros", raw={"size": number(size, 12)}))


def gzip_of_repeated(head: bytes, chunk: bytes, times: int) -> bytes:
    """A gzip of `head` and a chunk many times over, made without compressing it each time; its trailer is wrong."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(chunk) + deflate.flush(zlib.Z_FULL_FLUSH)
    return bytes.fromhex("1f8b0800000000000003") + first + again * times + deflate.flush() + bytes(8)


def zstd_of_zeros(head: bytes, size: int) -> bytes:
    """A zstd frame of `head` in a raw block, then zeros in blocks of four bytes each (RFC 8878, 3.1.1.2)."""
    raw = (len(head) << 3).to_bytes(3, "little") + head
    zeros = (ZSTD_BLOCK_BYTES << 3 | 2).to_bytes(3, "little") + b"\0"
    return zstandard.FRAME_HEADER + b"\0\x58" + raw + zeros * (size // ZSTD_BLOCK_BYTES)


def test_case_82_gzip_of_ten_gib_ends_at_the_ratio(tmp_path: Path) -> None:
    bomb = gzip_of_repeated(big_file(10 * GIB), bytes(MIB), 10 * GIB // MIB)
    assert len(bomb) < 11 * MIB
    said, hint, memory_mib = packed(tmp_path, bomb)
    assert f"at most {250 * len(bomb)} bytes when inflated, got more" in said
    assert hint == "ratio or ratio_free_bytes under [limits] of the config file raises the limit"
    assert memory_mib < 80


def test_case_82_zstd_of_ten_gib_ends_at_what_any_layer_may_have(tmp_path: Path) -> None:
    bomb = zstd_of_zeros(big_file(10 * GIB), 10 * GIB)
    assert len(bomb) < 400 << 10
    said, _, memory_mib = packed(tmp_path, bomb)
    assert f"at most {256 * MIB} bytes when inflated, got more" in said
    assert memory_mib < 80


def test_case_82_gzip_in_gzip_is_inflated_once(tmp_path: Path) -> None:
    inner = gzip_of_repeated(big_file(10 * GIB), bytes(MIB), 1000)
    said, _, memory_mib = packed(tmp_path, gzip.compress(inner, mtime=0))
    assert "tar entry at byte 0: expected" in said
    assert memory_mib < 80


def test_sparse_files_that_add_up_to_half_a_tebibyte_end_at_the_size_of_an_image(tmp_path: Path) -> None:
    members = [sparse_0_1([(0, 1)], 60 * GIB, b"x")[:-1024].replace(b"name=s\n", b"name=%d\n" % n) for n in range(9)]
    tar = tar_bytes(members)
    said, hint, memory_mib = packed(tmp_path, gzip.compress(tar, mtime=0), tar=tar)
    assert f"the merged image: expected at most {128 * GIB} bytes, got more" in said
    assert hint.startswith("image_bytes under")
    assert memory_mib < 80


def _headers(count: int, *, new: int) -> Iterator[bytes]:
    """Headers of empty files; every `new`-th has a name of its own, which is what keeps them from compressing away."""
    same = header(Member("same"))
    for index in range(count):
        yield header(Member(os.urandom(30).hex())) if index % new == 0 else same


def test_case_77_ten_million_entries_end_at_their_number(tmp_path: Path) -> None:
    """5 GB of headers in a blob of 94 MB: the ratio alone would let them pass."""
    chunk = b"".join(_headers(2048, new=6))
    bomb = gzip_of_repeated(b"", chunk, 10_000_000 * BLOCK // len(chunk))
    assert 250 * len(bomb) > 10_000_000 * BLOCK
    said, hint, memory_mib = packed(tmp_path, bomb, config="[limits]\nentries = 200_000\n")
    assert "expected at most 200000 entries, got more" in said
    assert hint == "entries under [limits] of the config file raises the limit"
    assert memory_mib < 130


def test_entries_with_long_names_end_at_their_metadata(tmp_path: Path) -> None:
    """Each name of 4,000 bytes, a thousandth of that compressed: 128 MiB of names are the most that is kept."""
    one = tar_bytes([Member("n" * 250 + "/" + "m" * 3700)], end=b"")
    bomb = gzip_of_repeated(b"", one * 64, 1600)
    said, hint, memory_mib = packed(tmp_path, bomb, config="[limits]\nratio = 10_000\n")
    assert f"expected at most {128 * MIB} bytes of names, link targets, xattrs, sparse maps, got more" in said
    assert hint.startswith("metadata_bytes under")
    assert memory_mib < 230
