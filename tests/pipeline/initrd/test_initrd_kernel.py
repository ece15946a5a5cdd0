"""Kernel images: made-up ones, damaged ones, and the child that reads them."""

import gzip
import lzma
import os
import random
import struct
import subprocess
import sys

import pytest
import zstandard

from pipeline.initrd import extract as extraction
from pipeline.initrd import kernelelf, lz4
from pipeline.initrd.errors import BadKernel
from pipeline.recipe import PROJECT
from pipeline.store import Store


def note(kind: int, desc: bytes = bytes(8), owner: bytes = b"Xen\0") -> bytes:
    padded = owner + bytes(-len(owner) % 4) + desc + bytes(-len(desc) % 4)
    return struct.pack("<III", len(owner), len(desc), kind) + padded


def elf(notes: bytes = note(1) + note(3), *, machine: int = 62, filler: int = 100_000) -> bytes:
    """A kernel of one PT_LOAD and one PT_NOTE."""
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    start = 64 + 2 * 56
    body = random.Random(1).randbytes(filler // 2) + bytes(filler // 2)
    load = struct.pack("<IIQQQQQQ", 1, 5, start + len(notes), 0, 0, len(body), len(body), 4096)
    noted = struct.pack("<IIQQQQQQ", 4, 4, start, 0, 0, len(notes), len(notes), 4)
    return header + load + noted + notes + body


def bz(payload: bytes, *, length: int | None = None, offset: int = 0x2CC, version: int = 0x20F) -> bytes:
    """A bzImage around a payload, laid out as Debian's are."""
    head = bytearray(40 * 512 + offset)
    head[0x1F1] = 39
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, offset, len(payload) if length is None else length)
    return bytes(head) + payload + b"tail"


def sized(data: bytes, size: int) -> bytes:
    return data + size.to_bytes(4, "little")


def lz4_legacy(data: bytes) -> bytes:
    """The legacy frame with blocks of literals only. Source: lz4_Frame_format.md, "Legacy frame"."""
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        part = data[at : at + (8 << 20)]
        rest = len(part) - 15
        block = b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + part
        out += len(block).to_bytes(4, "little") + block
    return out


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


KERNEL = elf()
FORMS = {
    "gzip": lambda: bz(gzip.compress(KERNEL, mtime=0)),
    "xz": lambda: bz(sized(lzma.compress(KERNEL, check=lzma.CHECK_CRC32), len(KERNEL))),
    "zstd": lambda: bz(sized(zstd(KERNEL), len(KERNEL))),
    "lz4": lambda: bz(sized(lz4_legacy(KERNEL), len(KERNEL))),
    "uncompressed payload": lambda: bz(sized(KERNEL, len(KERNEL))),
    "plain ELF": lambda: KERNEL,
}


def extract(image: bytes, tmp_path) -> bytes:
    store = Store(tmp_path / "store")
    (tmp_path / "image").write_bytes(image)
    with store.writer() as out:
        extraction.extract_path(tmp_path / "image", out, subject="k")
        return store.read(out.commit().digest)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_kernel_is_read_by_the_child(form, tmp_path):
    assert extract(FORMS[form](), tmp_path) == KERNEL


def test_a_kernel_larger_than_one_lz4_block_is_whole():
    big = elf(filler=20 << 20)
    assert kernelelf.kernel_elf(bz(sized(lz4_legacy(big), len(big))), subject="k") == big


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "expected a bzImage or an x86-64 ELF file"),
        (b"MZ" + bytes(5000), "expected a bzImage"),
        (bz(b"\x89PNG" + bytes(20) + b"\1\1\0\0"), "expected gzip, xz, zstd or lz4 compression"),
        (bz(sized(lzma.compress(KERNEL)[:-50], len(KERNEL))), "expected"),
        (bz(sized(lzma.compress(KERNEL), len(KERNEL) - 1)), "bytes of unpacked kernel, got more"),
        (bz(sized(lzma.compress(KERNEL), len(KERNEL) + 1)), "bytes of unpacked kernel"),
        (bz(sized(lzma.compress(KERNEL), (256 << 20) + 1)), "at most 256 MiB"),
        (bz(sized(lzma.compress(KERNEL), 0)), "at most 256 MiB, got 0 bytes"),
        (bz(gzip.compress(KERNEL), length=1 << 30), "expected a payload inside its"),
        (bz(gzip.compress(KERNEL), length=3), "expected a payload inside its"),
        (bz(b"")[:0x207], "got a file of 519 bytes"),
        (bz(gzip.compress(KERNEL), version=0x200), "boot protocol 2.08 or newer, got 2.00"),
        (elf(note(1)), "it has no Xen PV virtual base note"),
        (elf(b""), "it has no Xen PV entry note (it must be built with CONFIG_XEN_PV)"),
        (elf(note(1, owner=b"GNU\0") + note(3)), "it has no Xen PV entry note"),
        (elf(machine=183), "expected a kernel for x86-64, got ELF machine 183"),
        (elf(struct.pack("<III", 4, 1 << 31, 1) + b"Xen\0"), "expected whole ELF notes"),
    ],
)
def test_a_bad_kernel_is_refused_in_a_sentence(image, words, tmp_path):
    with pytest.raises(BadKernel) as caught:
        extract(image, tmp_path)
    assert words in str(caught.value)
    assert not list((tmp_path / "store" / "blobs" / "sha256").iterdir())


@pytest.mark.parametrize("seed", range(400))
def test_altered_headers_end_in_an_error_or_a_kernel(seed):
    rng = random.Random(seed)
    image = bytearray(bz(sized(KERNEL[:4000], 4000)) if seed % 2 else KERNEL[:4000])
    fields = (
        [0x1F1, 0x206, 0x248, 0x24C, 40 * 512 + 0x2CC]
        if seed % 2
        else [16, 18, 32, 54, 56, 64, 72, 96, 120, 128, 152, 176, 180, 184]
    )
    for at in rng.sample(fields, 2):
        image[at : at + 4] = rng.choice(
            [b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", rng.randbytes(4)]
        )
    try:
        kernelelf.kernel_elf(bytes(image), subject="k")
    except BadKernel:
        pass


@pytest.mark.parametrize("form", FORMS)
def test_truncation_is_noticed(form):
    image = FORMS[form]()
    for cut in (9, 512, len(image) // 2):
        with pytest.raises(BadKernel):
            kernelelf.kernel_elf(image[:-cut], subject="k")


def test_a_bomb_ends_at_its_own_claim():
    bomb = gzip.compress(bytes(300 << 20), 9)
    with pytest.raises(BadKernel, match="at most 256 MiB"):
        kernelelf.kernel_elf(bz(bomb), subject="k")


CONFINED = """
import os, resource, socket, sys
from pipeline.initrd import bzimage
bzimage.confine()
result = []
for name, attempt in {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "socket": lambda: socket.socket(socket.AF_INET),
    "fork": os.fork if os.getuid() != 0 else lambda: None,
    "grow": lambda: bytearray(2 << 30),
}.items():
    try:
        attempt()
        result.append(name + " allowed")
    except (OSError, MemoryError) as error:
        result.append(name + " refused")
sys.stdout.write(",".join(result) + f",uid {os.getuid()},groups {len(os.getgroups()) if os.getuid() == 65534 else 0}")
"""


def test_the_child_can_open_nothing_start_nothing_and_not_grow():
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, text=True, cwd=PROJECT, check=True)
    uid = 65534 if os.geteuid() == 0 else os.getuid()
    assert done.stdout == f"open refused,socket refused,fork refused,grow refused,uid {uid},groups 0"


def test_what_the_child_sends_is_not_believed(tmp_path, monkeypatch):
    liar = tmp_path / "python"
    liar.write_text("#!/bin/sh\nprintf 'no ELF at all'\n")
    liar.chmod(0o755)
    monkeypatch.setattr(extraction.sys, "executable", str(liar))
    with pytest.raises(BadKernel, match="expected an ELF kernel"):
        extract(KERNEL, tmp_path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -9 $$", "unpacking was ended by SIGKILL"),
        ("echo Traceback >&2; echo boom >&2; exit 1", "got boom"),
        ("exit 1", "no reason"),
    ],
)
def test_a_child_that_dies_is_an_error(script, words, tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setattr(extraction.sys, "executable", str(broken))
    with pytest.raises(BadKernel, match=words):
        extract(KERNEL, tmp_path)


def test_liblz4_unpacks_as_libarchive_does(monkeypatch: pytest.MonkeyPatch) -> None:
    data = lz4_legacy(bytes(range(256)) * 40_000)  # more than one block
    by_libarchive = lz4.unpacker()(data, 1 << 30)
    lz4.unpacker.cache_clear()
    monkeypatch.setitem(sys.modules, "libarchive", None)  # an import of it fails
    try:
        unpack = lz4.unpacker()
        assert unpack(data, 1 << 30) == by_libarchive
        assert unpack(data + data, 1 << 30) == by_libarchive * 2
        assert len(unpack(data, 100)) <= lz4.BLOCK_BYTES
        for damaged in (data[:-1], data[:8] + b"\x0f\0\0" + data[11:]):
            with pytest.raises(ValueError, match="block"):
                unpack(damaged, 1 << 30)
    finally:
        lz4.unpacker.cache_clear()
