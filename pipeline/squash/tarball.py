"""The format tar: the merged tree as one pax archive, plain, or compressed by gzip or zstd."""

from __future__ import annotations

import re
import zlib
from typing import Any

from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.rootfs import Rootfs
from pipeline.squash.form import Form
from pipeline.squash.paxtar import write_archive
from pipeline.squashfs import BadCompressionName
from pipeline.store import Store
from pipeline.store.blobwriter import BlobWriter

MEDIA_TYPE = "application/vnd.zonewright.rootfs.v1.tar"
TAKES = "none, gzip or zstd-1 to zstd-22"
GZIP_LEVEL = 6
GATHER_BYTES = 256 << 10


def form(compression: str) -> Form:
    """compression: "none" (also ""), "gzip", "zstd-1" to "zstd-22". Raises BadCompressionName."""
    match = re.fullmatch(r"zstd-([1-9]|1[0-9]|2[0-2])", compression)
    kind = "zstd" if match else compression or "none"
    if kind not in _MAKERS:
        raise BadCompressionName(f"compression {compression!r}", expected=f"{TAKES} for tar", got="another")
    level = int(match[1]) if match else GZIP_LEVEL

    def write(store: Store, rootfs: Rootfs, progress: Progress, total_bytes: int) -> Descriptor:
        with store.writer() as writer:
            out = _Gathered(writer, _MAKERS[kind](level))
            write_archive(rootfs, out.write, progress, total_bytes)
            out.finish()
            return writer.commit(media_type=MEDIA_TYPE + ("" if kind == "none" else f"+{kind}"))

    params = {"format": "tar", "compressor": kind} | ({} if kind == "none" else {"level": level})
    return Form(params, lambda: _versions(kind), write)


def _versions(kind: str) -> dict[str, str]:
    if kind == "zstd":
        import zstandard

        return {"libzstd": ".".join(map(str, zstandard.ZSTD_VERSION))}
    return {"zlib": zlib.ZLIB_RUNTIME_VERSION} if kind == "gzip" else {}


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _zstd(level: int) -> Any:
    import zstandard

    # With a worker of its own the bytes are the same for any number of them; one is enough beside what feeds it.
    return zstandard.ZstdCompressor(level=level, write_checksum=True, threads=1).compressobj()


_MAKERS: dict[str, Any] = {
    "none": lambda level: _Plain(),
    "gzip": lambda level: zlib.compressobj(level, zlib.DEFLATED, 31),
    "zstd": _zstd,
}


class _Gathered:
    """Small writes put together before they are compressed and hashed."""

    def __init__(self, writer: BlobWriter, compressor: Any) -> None:
        self._writer, self._compressor = writer, compressor
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= GATHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._writer.write(self._compressor.compress(bytes(self._buffer)))
        self._buffer.clear()

    def finish(self) -> None:
        self._flush()
        self._writer.write(self._compressor.flush())
