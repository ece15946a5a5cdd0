"""Inflated layers: one pass over a layer's compressed bytes gives its diff_id, its spool, and what reads it.

A spool is the inflated layer as an unlinked file in the store's tmp: it takes no memory, needs no clean-up after a
kill, and is never mistaken for a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar, cast

from pipeline.errors import DigestMismatch, PipelineError
from pipeline.inflate import Inflater
from pipeline.limits import Limits
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store
from pipeline.tree import Entry

REPLAY_BYTES = 1 << 20
# What readers may keep in memory of layers whose turn has not come; one beyond is read again, from its spool.
AHEAD_BYTES = 256 << 20


@dataclass(frozen=True)
class Layer:
    """A layer as stored, and the digest of its inflated bytes."""

    blob: Descriptor
    diff_id: Digest

    @property
    def name(self) -> str:
        """For errors."""
        return f"layer {self.blob.digest.short}"


class Reader(Protocol):
    """Who reads a layer's tar while it is inflated."""

    def feed(self, data: bytes, /) -> None:
        """The next inflated bytes."""

    def finish(self) -> None:
        """There are no more."""

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory."""


R = TypeVar("R", bound=Reader)


class LayerPass:
    """The one pass over a layer's compressed bytes, as they come from a registry or from the store; a `Sink`.

    spools:  keeps what was inflated; None: it is only verified.
    ahead:   nobody waits for the reader yet: it goes where those of all layers keep too much in memory.

    What is wrong with them is said in `finish`: before that nobody knows whether they are the layer's bytes at all.
    """

    def __init__(
        self,
        layer: Layer,
        limits: Limits,
        spools: Spools | None,
        make: Callable[[], Reader] | None,
        *,
        ahead: bool = False,
    ) -> None:
        self._layer, self._limits, self._spools, self._make = layer, limits, spools, make
        self._ahead = ahead and spools is not None
        self._fd = -1
        self.restart()

    def restart(self) -> None:
        """Forget what came."""
        self.drop()
        self._error: PipelineError | None = None
        self._reader = self._make() if self._make is not None else None
        self._hash = hashlib.new(self._layer.diff_id.algorithm)
        self._inflater = Inflater(
            self._take,
            limit_bytes=self._limits.inflated_bytes(self._layer.blob.size_bytes),
            subject=self._layer.name,
            hint=self._limits.inflated_hint(self._layer.blob.size_bytes),
        )
        if self._spools is not None:
            self._fd = self._spools.new_file()

    def write(self, data: bytes | memoryview, /) -> None:
        """The next compressed bytes. Raises OSError of the spool."""
        if self._error is None:
            try:
                self._inflater.feed(data)
            except PipelineError as error:
                self._error, self._reader = error, None
                self.drop()  # nothing of it is wanted any more

    def _take(self, data: bytes) -> None:
        self._hash.update(data)
        if self._fd >= 0:
            _write_all(self._fd, data)
        if self._reader is not None:
            self._reader.feed(data)
            if self._ahead and self._spools is not None and not self._spools.have_room(self, self._reader.held_bytes):
                self._reader = None

    def finish(self) -> None:
        """All bytes came, and are the blob's: keep the spool and the reader.

        Raises:  DigestMismatch when the inflated bytes are not those of the diff_id; BadCompression; what the reader
                 raises.
        """
        if self._error is not None:
            raise self._error
        self._inflater.finish()
        if self._hash.hexdigest() != self._layer.diff_id.hex:
            raise DigestMismatch(
                self._layer.name,
                expected=f"diff_id {self._layer.diff_id}",
                got=f"{self._layer.diff_id.algorithm}:{self._hash.hexdigest()}",
                hint="the image is wrong",
            )
        if self._reader is not None:
            self._reader.finish()
        if self._spools is not None:
            fd, self._fd = self._fd, -1
            self._spools.keep(self._layer, fd, self.size_bytes, self._reader)
            self._spools.read_no_more(self)

    @property
    def size_bytes(self) -> int:
        """Inflated so far."""
        return self._inflater.size_bytes

    def drop(self) -> None:
        """Give up the spool, unless it was kept."""
        if self._spools is not None:
            self._spools.read_no_more(self)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = drop


class Spools:
    """Inflated layers, each made at most once, for as long as this object is open. Safe for threads.

    Stages that run in one process share one of these, and a layer is then inflated once for all of them.
    """

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self._store, self._limits = store, limits or Limits()
        self._kept: dict[Digest, tuple[int, int]] = {}  # file descriptor, size in bytes; the last used one last
        self._readers: dict[Digest, Reader] = {}
        self._reading: dict[int, int] = {}  # passes ahead, by id -> what their readers keep in memory
        self.trees: dict[Digest, list[Entry]] = {}  # by the digests of their documents; written in this process
        self._locks: dict[Digest, threading.Lock] = {}
        self._guard = threading.RLock()  # a pass may end, by __del__, wherever a thread is

    def __enter__(self) -> Spools:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.trim(0)

    def trim(self, keep_bytes: int) -> None:
        """Let go of layers, those used longest ago first, until the rest has at most that size; nobody may use them."""
        with self._guard:
            self._readers.clear()
            self.trees.clear()
            size = sum(size for _, size in self._kept.values())
            for diff_id, (fd, size_bytes) in list(self._kept.items()):
                if keep_bytes and size <= keep_bytes:
                    break
                os.close(fd)
                size -= size_bytes
                del self._kept[diff_id]

    # -- reading -------------------------------------------------------------------------------------------------------

    def open(self, layer: Layer) -> int:
        """A file descriptor of the inflated layer, for pread and splice; it stays this object's.

        Raises:  DigestMismatch when the bytes are not those of the diff_id; BadCompression; StoreDamaged.
        """
        kept = self._kept.get(layer.diff_id)
        if kept is not None:
            return kept[0]
        with self._lock(layer):
            if layer.diff_id not in self._kept:
                self._inflate(layer, None)
            return self._kept[layer.diff_id][0]

    def read(self, layer: Layer, make: Callable[[], R]) -> R:
        """What a new reader makes of the layer, which is inflated for it where it is not yet.

        Raises:  as `open`, and what the reader raises.
        """
        with self._lock(layer):
            if layer.diff_id not in self._kept:
                self._inflate(layer, make)
                return cast(R, self._readers.pop(layer.diff_id))
            fd, size_bytes = self._kept[layer.diff_id]
            reader, at = make(), 0
            while at < size_bytes:
                data = os.pread(fd, REPLAY_BYTES, at)
                reader.feed(data)
                at += len(data)
            reader.finish()
            return reader

    def taken(self, layer: Layer) -> Reader | None:
        """The reader a pass has left, once."""
        with self._guard:
            return self._readers.pop(layer.diff_id, None)

    def sink(self, layer: Layer, make: Callable[[], Reader]) -> LayerPass:
        """A pass for whoever has the compressed bytes and checks their digest; its reader is then `taken`, if kept."""
        return LayerPass(layer, self._limits, self, make, ahead=True)

    def _lock(self, layer: Layer) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(layer.diff_id, threading.Lock())

    def _inflate(self, layer: Layer, make: Callable[[], Reader] | None) -> None:
        """The pass over a stored layer. Altered bytes mostly fail to inflate first, so the digest is checked first."""
        way = LayerPass(layer, self._limits, self, make)
        try:
            self._store.read_along(layer.blob.digest, way.write)
            way.finish()
        finally:
            way.drop()

    # -- what a pass asks ----------------------------------------------------------------------------------------------

    def new_file(self) -> int:
        """A file without a name in the store's tmp."""
        try:
            return os.open(self._store.tmp, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:  # a file system that cannot: NFS, older overlayfs
            fd, name = tempfile.mkstemp(prefix="spool.", dir=self._store.tmp)
            with contextlib.suppress(FileNotFoundError):  # another process's sweep may have been faster
                os.unlink(name)
            return fd

    def have_room(self, way: LayerPass, held_bytes: int) -> bool:
        """May this pass's reader keep so much, beside those of other passes and those not yet taken?"""
        with self._guard:
            self._reading[id(way)] = held_bytes
            kept = sum(reader.held_bytes for reader in self._readers.values())
            if kept + sum(list(self._reading.values())) <= AHEAD_BYTES:
                return True
            del self._reading[id(way)]
            return False

    def read_no_more(self, way: LayerPass) -> None:
        """A pass has ended, however."""
        with self._guard:
            self._reading.pop(id(way), None)

    def keep(self, layer: Layer, fd: int, size_bytes: int, reader: Reader | None) -> None:
        """Take over a finished spool; that of a layer which is there already is dropped."""
        with self._guard:
            if layer.diff_id in self._kept:
                os.close(fd)
                return
            self._kept[layer.diff_id] = (fd, size_bytes)
            if reader is not None:
                self._readers[layer.diff_id] = reader


def inflate_layer(store: Store, layer: Layer, limits: Limits) -> int:
    """Verify a stored layer and what it inflates to, keeping nothing; returns the inflated size in bytes.

    Raises:  DigestMismatch, BadCompression, StoreDamaged.
    """
    way = LayerPass(layer, limits, None, None)
    store.read_along(layer.blob.digest, way.write)
    way.finish()
    return way.size_bytes


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
