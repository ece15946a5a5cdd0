"""Kernel files as bytes: the payload of a bzImage, decompression with a bound, the Xen notes of an ELF kernel.

Runs in the unprivileged child only; nothing here trusts a number it has read.
Source:  Documentation/arch/x86/boot.rst of Linux; xen/include/public/elfnote.h; ELF-64 object file format.
"""

from __future__ import annotations

import contextlib
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator

from pipeline.initrd import lz4
from pipeline.initrd.errors import BadKernel

MAX_ELF_BYTES = 256 << 20
ELF64_LE = b"\x7fELF\x02\x01"
EM_X86_64 = 62
PT_NOTE = 4
XEN_ELFNOTE_ENTRY, XEN_ELFNOTE_VIRT_BASE = 1, 3
_SETUP_HEADER_BYTES = 0x250
_MAX_SEGMENTS = 128
_MAX_NOTES = 1024


def kernel_elf(image: bytes, *, subject: str) -> bytes:
    """The ELF file in a kernel image (bzImage or plain ELF), checked to be one a Xen PV guest can run.

    Raises:  BadKernel.
    """
    elf = image if image.startswith(ELF64_LE) else decompress(*payload(image, subject=subject), subject=subject)
    check_elf(elf, subject=subject)
    return elf


def payload(image: bytes, *, subject: str) -> tuple[bytes, int]:
    """The compressed kernel of a bzImage and the size it says it unpacks to."""
    if image[0x202:0x206] != b"HdrS":
        raise BadKernel(subject, expected="a bzImage or an x86-64 ELF file", got=f"bytes {image[:8].hex(' ')}")
    if len(image) < _SETUP_HEADER_BYTES:
        raise BadKernel(subject, expected="a whole setup header", got=f"a file of {len(image)} bytes")
    version, setup_sects = struct.unpack_from("<H", image, 0x206)[0], image[0x1F1] or 4
    if version < 0x208:
        raise BadKernel(subject, expected="boot protocol 2.08 or newer", got=f"{version >> 8}.{version & 255:02}")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sects + 1) * 512 + offset
    if length < 8 or start + length > len(image):
        raise BadKernel(
            subject,
            expected=f"a payload inside its {len(image)} bytes",
            got=f"{length} bytes at {start}",
            hint="the file is cut off or altered",
        )
    data = image[start : start + length]
    return data[:-4], int.from_bytes(data[-4:], "little")


def decompress(data: bytes, size_bytes: int, *, subject: str) -> bytes:
    """Unpack a payload to exactly `size_bytes`. Raises BadKernel."""
    if not 0 < size_bytes <= MAX_ELF_BYTES:
        raise BadKernel(subject, expected=f"a kernel of at most {MAX_ELF_BYTES >> 20} MiB", got=f"{size_bytes} bytes")
    kind = next((kind for kind in _READERS if data.startswith(kind[0])), None)
    if kind is None:
        raise BadKernel(subject, expected="gzip, xz, zstd or lz4 compression", got=f"bytes {data[:6].hex(' ')}")
    _, name, read = kind
    try:
        # A gzip payload's last 4 bytes are the trailer's own size field, which `payload` took for the kernel's.
        elf = read(data + size_bytes.to_bytes(4, "little") if name == "gzip" else data, size_bytes + 1)
    except Exception as error:  # each library has errors of its own
        raise BadKernel(subject, expected=f"intact {name} data", got=f"{type(error).__name__}: {error}"[:200]) from None
    if len(elf) != size_bytes:
        more = "more" if len(elf) > size_bytes else str(len(elf))
        raise BadKernel(subject, expected=f"{size_bytes} bytes of unpacked kernel", got=more)
    return elf


def _gunzip(data: bytes, limit: int) -> bytes:
    return zlib.decompressobj(31).decompress(data, limit)


def _unxz(data: bytes, limit: int) -> bytes:
    return lzma.LZMADecompressor(memlimit=512 << 20).decompress(data, limit)


def _unzstd(data: bytes, limit: int) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor(max_window_size=MAX_ELF_BYTES).stream_reader(data) as reader:
        return bytes(reader.read(limit))


def _unlz4(data: bytes, limit: int) -> bytes:
    return lz4.unpacker()(data, limit)


def load_libraries() -> None:
    """Load what may be needed; where something is missing, only kernels that are packed so are refused."""
    with contextlib.suppress(ImportError):
        import zstandard  # noqa: F401
    with contextlib.suppress(OSError):
        lz4.unpacker()


def _plain(data: bytes, limit: int) -> bytes:
    return data[:limit]


_READERS: tuple[tuple[bytes, str, Callable[[bytes, int], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", _gunzip),
    (b"\xfd7zXZ", "xz", _unxz),
    (b"\x28\xb5\x2f\xfd", "zstd", _unzstd),
    (b"\x02\x21\x4c\x18", "lz4", _unlz4),
    (ELF64_LE, "no", _plain),
)


def check_elf(elf: bytes, *, subject: str) -> None:
    """Is it an x86-64 kernel with the notes a PV guest is started by? Raises BadKernel."""
    if not elf.startswith(ELF64_LE) or len(elf) < 64:
        raise BadKernel(subject, expected="an ELF64 kernel", got=f"bytes {elf[:8].hex(' ')}")
    (machine,) = struct.unpack_from("<H", elf, 18)
    if machine != EM_X86_64:
        raise BadKernel(subject, expected="a kernel for x86-64", got=f"ELF machine {machine}")
    # All segments are looked at before one note is believed.
    found = {kind for owner, kind in notes(elf, subject=subject) if owner == b"Xen\0"}
    for kind, name in ((XEN_ELFNOTE_ENTRY, "entry"), (XEN_ELFNOTE_VIRT_BASE, "virtual base")):
        if kind not in found:
            raise BadKernel(
                f"kernel {subject}", got=f"it has no Xen PV {name} note", hint="it must be built with CONFIG_XEN_PV"
            )


def notes(elf: bytes, *, subject: str) -> Iterator[tuple[bytes, int]]:
    """(owner, type) of every note in the PT_NOTE segments. Raises BadKernel where a segment leaves the file."""
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    if size != 56 or count > _MAX_SEGMENTS or table + size * count > len(elf):
        raise BadKernel(subject, expected="ELF program headers inside the file", got=f"{count} of {size} at {table}")
    for at in range(table, table + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, at)
        if offset + length > len(elf):
            raise BadKernel(
                subject, expected=f"ELF segments inside its {len(elf)} bytes", got=f"{length} bytes at {offset}"
            )
        if kind == PT_NOTE:
            yield from _notes(elf[offset : offset + length], subject)


def _notes(data: bytes, subject: str) -> Iterator[tuple[bytes, int]]:
    at = 0
    for _ in range(_MAX_NOTES):
        if at + 12 > len(data):
            return
        namesz, descsz, kind = struct.unpack_from("<III", data, at)
        name_end = at + 12 + namesz + (-namesz % 4)
        end = name_end + descsz + (-descsz % 4)
        if end > len(data):
            raise BadKernel(subject, expected="whole ELF notes", got=f"one of {namesz} + {descsz} bytes at {at}")
        yield data[at + 12 : at + 12 + namesz], kind
        at = end
    raise BadKernel(subject, expected=f"at most {_MAX_NOTES} ELF notes", got="more")
