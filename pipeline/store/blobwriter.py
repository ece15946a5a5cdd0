"""Bytes on their way into the store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Protocol

from pipeline.errors import DigestMismatch
from pipeline.oci import Descriptor, Digest


class Adopter(Protocol):
    """Where finished files go."""

    def adopt(self, path: Path, digest: Digest, *, fileno: int) -> None:
        """fsync a finished temporary file and rename it to its digest."""


class Sink(Protocol):
    """Who reads a blob along while it is written. What it finds wrong it says in `finish`, once the digest is right."""

    def write(self, data: bytes | memoryview, /) -> object:
        """The next bytes."""

    def restart(self) -> None:
        """Forget them: the sender begins again."""

    def finish(self) -> None:
        """These were all of them, and they are the blob's."""


class BlobWriter:
    """Bytes on their way into the store: hashed while written, published by `commit`, dropped otherwise.

    sink:    is given the same bytes; what it raises keeps the blob from being published.
    """

    def __init__(
        self, store: Adopter, file: IO[bytes], path: Path, algorithm: str = "sha256", sink: Sink | None = None
    ) -> None:
        self._sink = sink
        self._store, self._file, self._path, self._algorithm = store, file, path, algorithm
        self._hash = hashlib.new(algorithm)
        self.size_bytes = 0
        self.committed = False

    def restart(self) -> None:
        """Forget what was written, for a sender that begins again."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.new(self._algorithm)
        self.size_bytes = 0
        if self._sink is not None:
            self._sink.restart()

    def write(self, data: bytes | memoryview) -> int:
        """Append and hash `data`."""
        self._hash.update(data)
        self.size_bytes += len(data)
        if self._sink is not None:
            self._sink.write(data)
        return self._file.write(data)

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest(self._algorithm, self._hash.hexdigest())

    def commit(
        self, *, media_type: str = "application/octet-stream", expected: Descriptor | None = None, subject: str = "blob"
    ) -> Descriptor:
        """Check against `expected`, fsync, rename into place.

        Raises:  DigestMismatch; nothing is published then.
        """
        digest = self.digest
        if expected is not None:
            check_digest(subject, expected, digest, self.size_bytes)
        if self._sink is not None:
            self._sink.finish()
        self._file.flush()
        self._store.adopt(self._path, digest, fileno=self._file.fileno())
        self.committed = True
        return Descriptor(expected.media_type if expected else media_type, digest, self.size_bytes)


def check_digest(subject: str, expected: Descriptor, digest: Digest, size_bytes: int) -> None:
    """Raise DigestMismatch unless the bytes counted and hashed are the expected ones."""
    if size_bytes != expected.size_bytes:
        raise DigestMismatch(
            subject, expected=f"{expected.size_bytes} bytes", got=f"{size_bytes}", hint="run again", temporary=True
        )
    if digest != expected.digest:
        raise DigestMismatch(
            subject, expected=f"digest {expected.digest}", got=str(digest), hint="run again", temporary=True
        )
