"""tar2sqfs, called so that equal tars give equal images: on any host, for any user, with any number of threads.

The bytes depend on the tar, the options, tar2sqfs and the compressor's library; `writer_versions` names the last two
for action keys.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import logging
import os
import re
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline import tool
from pipeline.errors import PipelineError
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.rootfs import Rootfs
from pipeline.store import Store
from pipeline.tarstream import END, padding, records
from pipeline.tree import Entry, Kind

MEDIA_TYPE = "application/vnd.zonewright.rootfs.v1.squashfs"
DEFAULT_COMPRESSION = "zstd-3"
TIMEOUT_S = 3600.0
PIPE_BYTES = 1 << 20
SMALL_BYTES = 64 << 10  # files up to this size are copied through the buffer, larger ones spliced
BUFFER_BYTES = 256 << 10
SUPERBLOCK = struct.Struct("<4sI")  # magic, inode count

log = logging.getLogger(__name__)


class BadCompressionName(PipelineError):
    """A compression this project does not offer."""


class SquashFailed(PipelineError):
    """tar2sqfs failed, or left something out."""


@dataclass(frozen=True)
class Compression:
    """How tar2sqfs compresses. library: (soname, version function) of what decides the compressed bytes."""

    compressor: str
    options: str
    block_bytes: int
    library: tuple[str, str]


_ZSTD = ("libzstd.so.1", "ZSTD_versionString")
_PRESETS = {
    "small": Compression("zstd", "level=9", 1 << 20, _ZSTD),
    "gzip": Compression("gzip", "level=6", 128 << 10, ("libz.so.1", "zlibVersion")),
    "lz4": Compression("lz4", "", 128 << 10, ("liblz4.so.1", "LZ4_versionString")),
}


def compression_of(name: str) -> Compression:
    """ "zstd-1" to "zstd-22", "small" (zstd-9 in 1 MiB blocks), "gzip", "lz4". Raises BadCompressionName."""
    match = re.fullmatch(r"zstd-([1-9]|1[0-9]|2[0-2])", name)
    if match:
        return Compression("zstd", f"level={match[1]}", 128 << 10, _ZSTD)
    if name not in _PRESETS:
        raise BadCompressionName(
            f"compression {name!r}", expected="zstd-1 to zstd-22, small, gzip or lz4", got="another"
        )
    return _PRESETS[name]


@functools.cache
def _tar2sqfs() -> tuple[str, str]:
    program = tool.find("tar2sqfs", package="squashfs-tools-ng")
    words = tool.run([program, "--version"], timeout_s=20).decode(errors="replace").split("\n", 1)[0].split()
    return program, words[-1] if words else "unknown"


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


def writer_versions(compression: str) -> dict[str, str]:
    """What decides the bytes besides the tar and the options: for the `tools` of an action key."""
    soname, function = compression_of(compression).library
    return {"tar2sqfs": _tar2sqfs()[1], soname.partition(".")[0]: library_version(soname, function)}


def squash_tar(
    store: Store, tar: Path | IO[bytes], *, compression: str = DEFAULT_COMPRESSION, media_type: str = MEDIA_TYPE
) -> Descriptor:
    """A tar file to a squashfs blob. Sorted tars with explicit parents compress best; see `tarstream` for the dialect.

    Raises:  SquashFailed, ToolMissing, BadCompressionName.
    """

    def feed(pipe: Pipe) -> None:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open(tar, "rb")) if isinstance(tar, Path) else tar
            while data := source.read(PIPE_BYTES):
                pipe.write(data)

    return _write_image(store, feed, compression=compression, media_type=media_type, inodes=None, threads=None)


def squash_entries(
    store: Store,
    entries: Iterable[tuple[Entry, Iterable[bytes]]],
    *,
    compression: str = DEFAULT_COMPRESSION,
    media_type: str = MEDIA_TYPE,
) -> Descriptor:
    """Entries with their contents to a squashfs blob; parents first, siblings sorted by name bytes.

    Raises:  SquashFailed, ToolMissing, BadCompressionName.
    """
    inodes = _Inodes()

    def feed(pipe: Pipe) -> None:
        for entry, content in entries:
            inodes.count(entry)
            pipe.write(records(entry))
            size = 0
            for data in content:
                pipe.write(data)
                size += len(data)
            if size != (entry.size_bytes if entry.kind is Kind.FILE else 0):
                raise SquashFailed(
                    entry.path.decode(errors="replace"), expected=f"{entry.size_bytes} bytes of content", got=str(size)
                )
            pipe.write(padding(size))
        pipe.write(END)

    return _write_image(store, feed, compression=compression, media_type=media_type, inodes=inodes, threads=None)


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
    inodes = _Inodes()

    def feed(pipe: Pipe) -> None:
        with (progress or Progress()).bar("squash", total=total_bytes) as bar:
            for entry in rootfs.entries():
                inodes.count(entry)
                pipe.write(records(entry))
                if entry.kind is not Kind.FILE:
                    continue
                if entry.extents is None and entry.size_bytes > SMALL_BYTES:
                    pipe.splice(rootfs.spool(entry), entry.offset, entry.size_bytes)
                else:
                    rootfs.copy(entry, pipe.write)
                pipe.write(padding(entry.size_bytes))
                bar.advance(entry.size_bytes)
            pipe.write(END)

    return _write_image(store, feed, compression=compression, media_type=MEDIA_TYPE, inodes=inodes, threads=threads)


class _Inodes:
    """How many inodes the image must have: what tar2sqfs skips without an error would be missing from its count."""

    def __init__(self) -> None:
        self.expected = 0

    def count(self, entry: Entry) -> None:
        self.expected += entry.kind is not Kind.HARDLINK


class Pipe:
    """The writing end of tar2sqfs's standard input: small writes gathered, large files spliced."""

    def __init__(self, fd: int) -> None:
        self._fd, self._buffer = fd, bytearray()
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what was gathered."""
        view = memoryview(self._buffer)
        while view:
            view = view[os.write(self._fd, view) :]
        self._buffer = bytearray()

    def splice(self, source: int, offset: int, size: int) -> None:
        """Append `size` bytes of a file without copying them through this process."""
        self.flush()
        while size:
            moved = os.splice(source, self._fd, min(size, PIPE_BYTES), offset_src=offset)
            if not moved:
                raise SquashFailed("inflated layer", expected=f"{size} more bytes", got="its end")
            offset, size = offset + moved, size - moved


def _write_image(
    store: Store,
    feed: Callable[[Pipe], None],
    *,
    compression: str,
    media_type: str,
    inodes: _Inodes | None,
    threads: int | None,
) -> Descriptor:
    how = compression_of(compression)
    with store.scratch() as scratch:
        out = scratch / "image.squashfs"
        words = [_tar2sqfs()[0], "-q", "-s", "-f", "-c", how.compressor]
        words += ["-X", how.options] if how.options else []
        words += [
            "-b",
            str(how.block_bytes),
            "-j",
            str(threads or len(os.sched_getaffinity(0))),
            "-d",
            "mtime=0",
            str(out),
        ]
        with open(scratch / "stderr", "w+b") as stderr:
            run_fed(words, feed, stderr, subject="tar2sqfs")
        with open(out, "rb") as image:
            magic, count = SUPERBLOCK.unpack(image.read(SUPERBLOCK.size))
        if magic != b"hsqs" or (inodes is not None and count != inodes.expected):
            expected = "a squashfs image" + (f" of {inodes.expected} inodes" if inodes else "")
            raise SquashFailed("tar2sqfs", expected=expected, got=f"{magic!r} with {count}")
        return store.put_file(out, media_type)


def run_fed(
    words: list[str],
    feed: Callable[[Pipe], None],
    stderr: IO[bytes],
    *,
    subject: str,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a writer on what `feed` writes. A child whose parent dies reads the end of its input and ends by itself."""
    # The environment is fixed: SOURCE_DATE_EPOCH and TZ would reach the image. umask too, by way of the output's mode.
    process = subprocess.Popen(
        words,
        env={**tool.BASE_ENV, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
    )
    assert process.stdin is not None
    with _ended(process, TIMEOUT_S) as late:
        try:
            pipe = Pipe(process.stdin.fileno())
            feed(pipe)
            pipe.flush()
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: its exit code and stderr say why
        returncode = process.wait()
    if returncode != 0:
        stderr.seek(0)
        if late.is_set():
            raise tool.ToolFailed(subject, expected=f"an end within {TIMEOUT_S:.0f} s", got="none")
        raise tool.failure(words, returncode, stderr.read()[-4096:], subject=subject)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> Iterator[threading.Event]:
    """Whatever happens inside, the process has ended afterwards; after `timeout_s` it is made to, and the event set."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        if process.poll() is None:
            tool.kill_group(process)
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
