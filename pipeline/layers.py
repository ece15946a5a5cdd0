"""Inflated layers: their limits, their verification against the diff_id, and where their bytes lie meanwhile.

An inflated layer is an unlinked file in the store's tmp: it takes no memory, needs no clean-up after a kill, and is
never mistaken for a result.
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
from typing import BinaryIO, cast

from pipeline.errors import DigestMismatch, PipelineError, StoreDamaged
from pipeline.inflate import inflated
from pipeline.limits import Limits
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store


@dataclass(frozen=True)
class Layer:
    """A layer as stored, and the digest of its inflated bytes."""

    blob: Descriptor
    diff_id: Digest

    @property
    def name(self) -> str:
        """For errors."""
        return f"layer {self.blob.digest.short}"


class Spools:
    """Inflated layers, each made at most once, for as long as this object is open. Safe for threads.

    Stages that run in one process share one of these, and a layer is then inflated once for all of them.
    """

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self._store, self._limits = store, limits or Limits()
        self._fds: dict[Digest, int] = {}
        self._locks: dict[Digest, threading.Lock] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Spools:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()

    def open(self, layer: Layer, *, tap: Callable[[bytes], None] | None = None) -> int:
        """A file descriptor of the inflated layer, for pread and splice; it stays this object's.

        tap:     is given every inflated byte in order.
        Raises:  DigestMismatch when the bytes are not those of the diff_id; BadCompression; StoreDamaged.
        """
        with self._guard:
            lock = self._locks.setdefault(layer.diff_id, threading.Lock())
        with lock:
            fd = self._fds.get(layer.diff_id)
            if fd is not None:
                if tap is not None:
                    _replay(fd, tap)
                return fd
            with contextlib.ExitStack() as undo:
                fd = _unlinked_file(self._store)
                undo.callback(os.close, fd)
                inflate_layer(self._store, layer, self._limits, fd=fd, tap=tap)
                undo.pop_all()
            self._fds[layer.diff_id] = fd
            return fd


def _unlinked_file(store: Store) -> int:
    try:
        return os.open(store.tmp, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system that cannot: NFS, older overlayfs
        fd, name = tempfile.mkstemp(prefix="spool.", dir=store.tmp)
        with contextlib.suppress(FileNotFoundError):  # another process's sweep may have been faster
            os.unlink(name)
        return fd


def _replay(fd: int, tap: Callable[[bytes], None]) -> None:
    at = 0
    while data := os.pread(fd, 1 << 20, at):
        tap(data)
        at += len(data)


def inflate_layer(
    store: Store, layer: Layer, limits: Limits, *, fd: int | None = None, tap: Callable[[bytes], None] | None = None
) -> int:
    """Inflate a stored layer into `fd` and `tap`, verifying both digests; returns the inflated size in bytes."""
    try:
        return _inflate_layer(store, layer, limits, fd, tap)
    except PipelineError as error:
        # Altered bytes mostly fail to inflate or to parse first; say what is the matter with them.
        if store.path(layer.blob.digest).exists() and not store.verify(layer.blob.digest):
            raise _damaged(layer) from error
        raise


def _damaged(layer: Layer) -> StoreDamaged:
    return StoreDamaged(
        f"store object {layer.blob.digest}", expected="bytes of that digest", got="others", hint="run again"
    )


def _inflate_layer(
    store: Store, layer: Layer, limits: Limits, fd: int | None, tap: Callable[[bytes], None] | None
) -> int:
    compressed, plain = hashlib.new(layer.blob.digest.algorithm), hashlib.new(layer.diff_id.algorithm)
    size = 0
    with _open_blob(store, layer) as source:
        chunks = inflated(
            _Hashed(source.read, compressed.update),
            limit_bytes=limits.inflated_bytes(layer.blob.size_bytes),
            subject=layer.name,
            hint=limits.inflated_hint(layer.blob.size_bytes),
        )
        for chunk in chunks:
            plain.update(chunk)
            size += len(chunk)
            if fd is not None:
                _write_all(fd, chunk)
            if tap is not None:
                tap(chunk)
    if compressed.hexdigest() != layer.blob.digest.hex:
        raise _damaged(layer)
    if plain.hexdigest() != layer.diff_id.hex:
        got = f"{layer.diff_id.algorithm}:{plain.hexdigest()}"
        raise DigestMismatch(layer.name, expected=f"diff_id {layer.diff_id}", got=got, hint="the image is wrong")
    return size


class _Hashed:
    def __init__(self, read: Callable[[int], bytes], update: Callable[[bytes], None]) -> None:
        self._read, self._update = read, update

    def read(self, size: int, /) -> bytes:
        data = self._read(size)
        self._update(data)
        return data


def _open_blob(store: Store, layer: Layer) -> BinaryIO:
    try:
        return cast(BinaryIO, open(store.path(layer.blob.digest), "rb", buffering=0))
    except FileNotFoundError:
        raise StoreDamaged(f"store object {layer.blob.digest}", got="no such object", hint="run again") from None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
