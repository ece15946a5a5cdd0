"""Squashfs images: equal entries with equal bytes give equal images, on any host, for any user, with any threads.

Data is compressed by the libraries Python brings along, tables are laid out by libsquashfs; `writer_versions` names for
action keys what decides the bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import struct
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import PipelineError
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.rootfs import Rootfs, runs
from pipeline.squashfs import library
from pipeline.squashfs.blocks import BlockWriter, Piece, Stored
from pipeline.squashfs.library import Callbacks, Compress
from pipeline.squashfs.library import SquashFailed as SquashFailed
from pipeline.squashfs.tables import TableWriter
from pipeline.store import Store
from pipeline.tree import Entry, Kind, printable

MEDIA_TYPE = "application/vnd.zonewright.rootfs.v1.squashfs"
DEFAULT_COMPRESSION = "zstd-3"
WRITER_VERSION = "2"  # rises when this module, or squashblocks or squashtables, lays equal entries out differently
SUPERBLOCK_BYTES = 96
PAGE_BYTES = 4096  # images are padded to it, for loop devices and Xen's block back end
METADATA_PLAIN = 0x8000  # in the length word of a metadata block


class BadCompressionName(PipelineError):
    """A compression this project does not offer."""


@dataclass(frozen=True)
class Compression:
    """How blocks are compressed. number: squashfs's own; options: what the image says of the compressor's settings."""

    compressor: str
    number: int
    level: int
    block_bytes: int
    options: bytes

    @property
    def described(self) -> str:
        """For an action key."""
        return f"level={self.level}"


def compression_of(name: str) -> Compression:
    """ "zstd-1" to "zstd-22", "small" (zstd-9 in 1 MiB blocks), "gzip", "lz4". Raises BadCompressionName."""
    if match := re.fullmatch(r"zstd-([1-9]|1[0-9]|2[0-2])", name):
        return _zstd(int(match[1]), 128 << 10)
    if name == "small":
        return _zstd(9, 1 << 20)
    if name == "gzip":
        return Compression("gzip", 1, 6, 128 << 10, struct.pack("<IHH", 6, 15, 0))
    if name == "lz4":
        return Compression("lz4", 5, 1, 128 << 10, struct.pack("<II", 1, 0))
    raise BadCompressionName(f"compression {name!r}", expected="zstd-1 to zstd-22, small, gzip or lz4", got="another")


def _zstd(level: int, block_bytes: int) -> Compression:
    return Compression("zstd", 6, level, block_bytes, struct.pack("<I", level))


def _compressor(how: Compression) -> Compress:
    """A compressor for one thread."""
    if how.compressor == "zstd":
        import zstandard

        pack: Callable[[bytes], bytes] = zstandard.ZstdCompressor(level=how.level).compress
    elif how.compressor == "gzip":
        pack = functools.partial(zlib.compress, level=how.level)
    else:
        return library.own_compressor(how.number, how.block_bytes)

    def compress(data: bytes) -> bytes | None:
        packed = pack(data)
        return packed if len(packed) < len(data) else None

    return compress


@functools.cache
def writer_versions(compression: str) -> dict[str, str]:
    """What decides the bytes besides the entries and the options: for the `tools` of an action key."""
    how = compression_of(compression)
    if how.compressor == "zstd":
        import zstandard

        codec = ".".join(map(str, zstandard.ZSTD_VERSION))
    elif how.compressor == "gzip":
        codec = zlib.ZLIB_RUNTIME_VERSION
    else:
        codec = library_version("liblz4.so.1", "LZ4_versionString")
    return {"writer": WRITER_VERSION, "libsquashfs": library.version(), f"lib{how.compressor}": codec}


@functools.cache
def library_version(soname: str, function: str) -> str:
    """What a C library says its version is."""
    try:
        call = getattr(ctypes.CDLL(soname), function)
    except (OSError, AttributeError):
        return "unknown"
    call.restype, call.argtypes = ctypes.c_char_p, []
    version: bytes = call()
    return version.decode(errors="replace")


def squash_entries(
    store: Store,
    entries: Iterable[tuple[Entry, Iterable[bytes]]],
    *,
    compression: str = DEFAULT_COMPRESSION,
    media_type: str = MEDIA_TYPE,
) -> Descriptor:
    """Entries with their contents to a squashfs blob, in any order; every directory must be among them.

    Raises:  SquashFailed, ToolMissing, BadCompressionName.
    """
    listed = _in_tree_order(entries)
    with store.scratch() as scratch, open(scratch / "contents", "w+b", buffering=0) as contents:

        def files() -> Iterator[tuple[Entry, Sequence[Piece]]]:
            end = 0
            for entry, content in listed:
                begin = end
                for data in content:
                    end += contents.write(data)
                size = entry.size_bytes if entry.kind is Kind.FILE else 0
                if end - begin != size:
                    raise SquashFailed(printable(entry.path), expected=f"{size} bytes of content", got=str(end - begin))
                yield entry, (Piece(contents.fileno(), begin, size),) if size else ()

        links = Counter(entry.target for entry, _ in listed if entry.kind is Kind.HARDLINK)
        return _write_image(store, files(), links, compression=compression, media_type=media_type, threads=None)


def _in_tree_order(entries: Iterable[tuple[Entry, Iterable[bytes]]]) -> list[tuple[Entry, Iterable[bytes]]]:
    """Parents first, siblings by name bytes; of a file with several names, the first carries the data."""
    listed = sorted(entries, key=lambda item: item[0].path.split(b"/"))
    at = {entry.path: number for number, (entry, _) in enumerate(listed)}
    moved: dict[bytes, bytes] = {}
    for number, (entry, content) in enumerate(listed):
        if entry.kind is Kind.HARDLINK:
            target = moved.get(entry.target, entry.target)
            other = at.get(target, number)
            if other > number:
                node, data = listed[other]
                listed[number] = replace(node, path=entry.path), data
                moved[target] = entry.path
                listed[other] = Entry(target, Kind.HARDLINK, target=entry.path), ()
            else:
                listed[number] = replace(entry, target=target), content
    return listed


def squash_rootfs(
    store: Store,
    rootfs: Rootfs,
    *,
    compression: str = DEFAULT_COMPRESSION,
    progress: Progress | None = None,
    total_bytes: int | None = None,
    threads: int | None = None,
) -> Descriptor:
    """A merged image to a squashfs blob.

    threads: of the compressor; every processor if None. The bytes do not depend on it.
    Raises:  SquashFailed, ToolMissing, BadCompressionName, and what reading the layers raises.
    """
    entries = list(rootfs.entries())
    links = Counter(entry.target for entry in entries if entry.kind is Kind.HARDLINK)
    with (progress or Progress()).bar("squash", total=total_bytes) as bar:

        def files() -> Iterator[tuple[Entry, Sequence[Piece]]]:
            for entry in entries:
                if entry.kind is not Kind.FILE or not entry.size_bytes:
                    yield entry, ()
                    continue
                fd = rootfs.spool(entry)
                if entry.extents is None:
                    yield entry, (Piece(fd, entry.offset, entry.size_bytes),)
                else:
                    yield entry, [Piece(fd if source >= 0 else -1, source, size) for source, size in runs(entry)]
                bar.advance(entry.size_bytes)

        return _write_image(store, files(), links, compression=compression, media_type=MEDIA_TYPE, threads=threads)


def _write_image(
    store: Store,
    files: Iterable[tuple[Entry, Sequence[Piece]]],
    links: Counter[bytes],
    *,
    compression: str,
    media_type: str,
    threads: int | None,
) -> Descriptor:
    how = compression_of(compression)
    with store.scratch() as scratch, contextlib.ExitStack() as stack:
        out = scratch / "image.squashfs"
        fd = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        stack.callback(os.close, fd)
        options = struct.pack("<H", METADATA_PLAIN | len(how.options)) + how.options
        os.pwrite(fd, bytes(SUPERBLOCK_BYTES) + options, 0)
        tables = TableWriter(Callbacks(fd, _compressor(how)), links)
        stack.callback(tables.close)
        blocks = stack.enter_context(
            BlockWriter(
                fd,
                SUPERBLOCK_BYTES + len(options),
                functools.partial(_compressor, how),
                threads=threads or len(os.sched_getaffinity(0)),
                block_bytes=how.block_bytes,
            )
        )
        waiting: deque[tuple[Entry, Stored | None]] = deque()
        for entry, pieces in files:
            stored = (
                blocks.add(entry.size_bytes, _in_blocks(pieces, how.block_bytes)) if entry.kind is Kind.FILE else None
            )
            waiting.append((entry, stored))
            _enter(tables, waiting)
        blocks.finish()
        _enter(tables, waiting)
        os.ftruncate(fd, blocks.end)
        tables.finish(blocks.fragments, compressor=how.number, block_bytes=how.block_bytes)
        os.ftruncate(fd, -(-os.fstat(fd).st_size // PAGE_BYTES) * PAGE_BYTES)
        return store.put_file(out, media_type)


def _enter(tables: TableWriter, waiting: deque[tuple[Entry, Stored | None]]) -> None:
    """Enter into the tables what has its data written, in order."""
    while waiting and ((stored := waiting[0][1]) is None or stored.ready):
        tables.add(*waiting.popleft())


def _in_blocks(pieces: Sequence[Piece], block_bytes: int) -> Iterable[tuple[Piece, ...]]:
    """The pieces of a file, cut at the ends of its blocks."""
    if len(pieces) == 1 and pieces[0].size_bytes <= block_bytes:
        return (tuple(pieces),)  # most files
    return _cut(pieces, block_bytes)


def _cut(pieces: Sequence[Piece], block_bytes: int) -> Iterator[tuple[Piece, ...]]:
    block: list[Piece] = []
    room = block_bytes
    for piece in pieces:
        at, left = piece.offset, piece.size_bytes
        while left:
            step = min(left, room)
            block.append(Piece(piece.fd, at, step))
            at, left, room = at + step, left - step, room - step
            if not room:
                yield tuple(block)
                block, room = [], block_bytes
    if block:
        yield tuple(block)
