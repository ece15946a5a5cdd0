"""Compressed layers to plain tar bytes: gzip by ISA-L (or zlib), zstd by python-zstandard, in bounded pieces.

What the bytes are is read from their first bytes, not from the media type: the diff_id decides in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pipeline.deflate import deflate
from pipeline.errors import PipelineError

READ_BYTES = 256 << 10
SLICE_BYTES = 256 << 10  # of input at a time: what comes out is hashed and parsed while the cache still has it
STEP_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
XZ_MAGIC = b"\xfd7zXZ\0"
MAGIC_BYTES = 6  # the longest of them
ZSTD_WINDOW_MAX_BYTES = 128 << 20
# Follows the input of the zstd engine, which does not say whether it is inside a frame. A skippable frame (RFC 8878,
# 3.1.2) is nothing to a reader between two frames; inside an unfinished one its 0xff bytes make a reserved block type
# or a wrong checksum, whatever is missing: it is longer than the largest block. Its first byte is none of a frame's
# header (reserved bit 3), and comes alone: a frame that comes whole the engine takes in place of the part of a header
# that it has.
ZSTD_SENTINEL = b"\x58\x2a\x4d\x18" + (200_000).to_bytes(4, "little") + b"\xff" * 200_000


class BadCompression(PipelineError):
    """A compressed layer that is cut off, altered, of an unknown kind, or a bomb."""


class Readable(Protocol):
    """Whatever compressed bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


class _Engine(Protocol):
    def feed(self, data: bytes | memoryview, /) -> None:
        """The next compressed bytes."""

    def finish(self) -> None:
        """There are no more."""


def compression_of(head: bytes, *, subject: str) -> str:
    """ "gzip", "zstd" or "none", by the first bytes of a blob. Raises BadCompression for other compressions."""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    if head.startswith(ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(XZ_MAGIC):
        raise BadCompression(subject, expected="gzip, zstd or plain tar", got="xz")
    return "none"


class Inflater:
    """`feed` it compressed bytes, however they are cut, then `finish`; `write` is given the inflated ones.

    limit_bytes: more inflated bytes than this are refused as soon as they come; hint: says what raises this limit.
    write:       its pieces have at most a MiB.
    Raises:      BadCompression for input that is cut off, altered, followed by other bytes, or longer than the limit;
                 what `write` raises.
    """

    def __init__(self, write: Callable[[bytes], object], *, limit_bytes: int, subject: str, hint: str = "") -> None:
        self.size_bytes = 0  # inflated so far
        self._write, self._limit_bytes, self._subject, self._hint = write, limit_bytes, subject, hint
        self._head = b""
        self._engine: _Engine | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next compressed bytes."""
        if self._engine is None:
            self._head += data
            if len(self._head) < MAGIC_BYTES:
                return
            data, self._head = self._head, b""
            self._engine = self._start(data)
        view = memoryview(data)
        for at in range(0, len(view), SLICE_BYTES):
            self._engine.feed(view[at : at + SLICE_BYTES])

    def finish(self) -> None:
        """Say that there are no more."""
        if self._engine is None:
            if not self._head:
                raise BadCompression(self._subject, expected="a layer", got="no bytes at all")
            self._engine = self._start(self._head)
            self._engine.feed(self._head)
        self._engine.finish()

    def _start(self, head: bytes) -> _Engine:
        kinds: dict[str, Callable[[Callable[[bytes], None], str], _Engine]]
        kinds = {"gzip": _Gunzip, "zstd": _Unzstd, "none": _Plain}
        return kinds[compression_of(head, subject=self._subject)](self._out, self._subject)

    def _out(self, data: bytes) -> None:
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            expected = f"at most {self._limit_bytes} bytes when inflated"
            raise BadCompression(self._subject, expected=expected, got="more", hint=self._hint)
        self._write(data)


def inflated(source: Readable, *, limit_bytes: int, subject: str) -> Iterator[bytes]:
    """The inflated bytes of `source`; see `Inflater` for the limit and what is raised."""
    pieces: list[bytes] = []
    inflater = Inflater(pieces.append, limit_bytes=limit_bytes, subject=subject)
    while data := source.read(SLICE_BYTES):
        inflater.feed(data)
        yield from pieces
        pieces.clear()
    inflater.finish()
    yield from pieces


class _Plain:
    def __init__(self, out: Callable[[bytes], None], subject: str) -> None:
        self._out = out

    def feed(self, data: bytes | memoryview) -> None:
        self._out(bytes(data))

    def finish(self) -> None: ...


class _Unzstd:
    def __init__(self, out: Callable[[bytes], None], subject: str) -> None:
        import zstandard

        self._subject, self._error = subject, zstandard.ZstdError
        engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX_BYTES)
        sink: Any = _Write(out)  # all that is used of a file is its `write`
        self._stream = engine.stream_writer(sink, write_size=STEP_BYTES, closefd=False)

    def feed(self, data: bytes | memoryview) -> None:
        try:
            self._stream.write(data)
        except self._error as error:
            raise BadCompression(
                self._subject, expected="complete zstd frames", got=str(error), hint="cut off or altered"
            ) from error

    def finish(self) -> None:
        self.feed(ZSTD_SENTINEL[:1])
        self.feed(ZSTD_SENTINEL[1:])


class _Write:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)


class _Gunzip:
    """Members follow one another (RFC 1952, 2.2). Zeros are padding to a block of some tape; all else is a mistake."""

    def __init__(self, out: Callable[[bytes], None], subject: str) -> None:
        self._out, self._subject = out, subject
        self._make, self._error = deflate().inflater, deflate().error
        self._engine = self._make()
        self._padding = False
        self._between = b""  # what follows a member and is too short to be told apart

    def feed(self, data: bytes | memoryview) -> None:
        while data:
            if self._padding or self._engine.eof:
                data = self._after(self._between + bytes(data))
                continue
            engine = self._engine
            full = self._step(data)
            data = engine.unused_data if engine.eof else engine.unconsumed_tail
            while full and not data and not engine.eof:
                full = self._step(b"")  # all input is taken, and a full piece came out: the engine may hold more

    def _step(self, data: bytes | memoryview) -> bool:
        """Inflate one piece; is it a full one?"""
        try:
            out: bytes = self._engine.decompress(data, STEP_BYTES)
        except self._error as error:
            raise BadCompression(self._subject, expected="a gzip stream", got=str(error)) from error
        if out:
            self._out(out)
        return len(out) == STEP_BYTES

    def _after(self, data: bytes) -> bytes:
        """Take what follows a member; gives back what is the next one's."""
        self._between = b""
        if not self._padding:
            if data.startswith(GZIP_MAGIC):
                self._engine = self._make()
                return data
            if data == GZIP_MAGIC[:1]:
                self._between = data
                return b""
        if data.strip(b"\0"):
            raise BadCompression(self._subject, expected="the end after the gzip stream", got="other bytes")
        self._padding = True
        return b""

    def finish(self) -> None:
        if self._between:
            raise BadCompression(self._subject, expected="the end after the gzip stream", got="other bytes")
        if not (self._padding or self._engine.eof):
            raise BadCompression(self._subject, expected="a complete gzip stream", got="its end is missing")
