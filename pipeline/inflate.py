"""Compressed layers to plain tar bytes: gzip by ISA-L, zstd by python-zstandard, in bounded steps.

What the bytes are is read from their first bytes, not from the media type: the diff_id decides in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from pipeline.errors import PipelineError

READ_BYTES = 256 << 10
STEP_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
XZ_MAGIC = b"\xfd7zXZ\0"
ZSTD_WINDOW_MAX_BYTES = 128 << 20
# Follows the input of the zstd reader, which takes an early end for the end. A skippable frame (RFC 8878, 3.1.2) is
# nothing to a reader between two frames; inside an unfinished one its 0xff bytes make a reserved block type or a wrong
# checksum, whatever is missing: it is longer than the largest block.
ZSTD_SENTINEL = b"\x50\x2a\x4d\x18" + (200_000).to_bytes(4, "little") + b"\xff" * 200_000


class BadCompression(PipelineError):
    """A compressed layer that is cut off, altered, of an unknown kind, or a bomb."""


class Readable(Protocol):
    """Whatever compressed bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


def compression_of(head: bytes, *, subject: str) -> str:
    """ "gzip", "zstd" or "none", by the first bytes of a blob. Raises BadCompression for other compressions."""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    if head.startswith(ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(XZ_MAGIC):
        raise BadCompression(subject, expected="gzip, zstd or plain tar", got="xz")
    return "none"


def inflated(source: Readable, *, limit_bytes: int, subject: str, hint: str = "") -> Iterator[bytes]:
    """The inflated bytes of `source`, in pieces of at most a few MiB.

    limit_bytes: more inflated bytes than this are refused as soon as they come; hint: says what raises this limit.
    Raises:      BadCompression for input that is cut off, altered, followed by other bytes, or longer than the limit.
    """
    head = source.read(READ_BYTES)
    if not head:
        raise BadCompression(subject, expected="a layer", got="no bytes at all")
    kind = compression_of(head, subject=subject)
    chunks = {"gzip": _gunzip, "zstd": _unzstd, "none": _plain}[kind](_Ahead(head, source), subject)
    done = 0
    for chunk in chunks:
        done += len(chunk)
        if done > limit_bytes:
            raise BadCompression(subject, expected=f"at most {limit_bytes} bytes when inflated", got="more", hint=hint)
        yield chunk


class _Ahead:
    """A source whose first bytes were looked at already, and which may end in a sentinel."""

    def __init__(self, head: bytes, source: Readable, tail: bytes = b"") -> None:
        self._head, self._source, self._tail = head, source, tail

    def read(self, size: int = -1, /) -> bytes:
        size = READ_BYTES if size < 0 else size
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        data = self._source.read(size)
        if not data and self._tail:
            data, self._tail = self._tail[:size], self._tail[size:]
        return data

    def followed_by(self, tail: bytes) -> _Ahead:
        self._tail = tail
        return self


def _plain(source: _Ahead, subject: str) -> Iterator[bytes]:
    while data := source.read(STEP_BYTES):
        yield data


def _unzstd(source: _Ahead, subject: str) -> Iterator[bytes]:
    import zstandard

    engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX_BYTES)
    stream: Any = source.followed_by(ZSTD_SENTINEL)  # all that is used of a file is its `read`
    try:
        with engine.stream_reader(stream, read_across_frames=True) as reader:
            while data := reader.read(STEP_BYTES):
                yield data
    except zstandard.ZstdError as error:
        raise BadCompression(
            subject, expected="complete zstd frames", got=str(error), hint="cut off or altered"
        ) from error


def _gunzip(source: _Ahead, subject: str) -> Iterator[bytes]:
    from isal import isal_zlib

    broken: Any = isal_zlib.IsalError  # its stubs call it an instance
    engine: Any = isal_zlib.decompressobj(31)
    data = source.read(READ_BYTES)
    while True:
        try:
            out = engine.decompress(data, STEP_BYTES)
        except broken as error:
            raise BadCompression(subject, expected="a gzip stream", got=str(error)) from error
        if out:
            yield out
        if not engine.eof:
            data = engine.unconsumed_tail or (b"" if len(out) == STEP_BYTES else source.read(READ_BYTES))
            if not data and len(out) < STEP_BYTES:
                raise BadCompression(subject, expected="a complete gzip stream", got="its end is missing")
            continue
        # RFC 1952, 2.2: members follow one another. Zeros are padding to a block of some tape; all else is a mistake.
        data = engine.unused_data or source.read(READ_BYTES)
        if len(data) == 1:
            data += source.read(READ_BYTES)
        if not data:
            return
        if data.startswith(GZIP_MAGIC):
            engine = isal_zlib.decompressobj(31)
            continue
        while data:
            if data.strip(b"\0"):
                raise BadCompression(subject, expected="the end after the gzip stream", got="other bytes")
            data = source.read(READ_BYTES)
        return
