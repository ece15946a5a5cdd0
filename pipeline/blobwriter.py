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


class BlobWriter:
    """Bytes on their way into the store: hashed while written, published by `commit`, dropped otherwise."""

    def __init__(self, store: Adopter, file: IO[bytes], path: Path, algorithm: str = "sha256") -> None:
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

    def write(self, data: bytes | memoryview) -> int:
        """Append and hash `data`."""
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)

    def commit(
        self, *, media_type: str = "application/octet-stream", expected: Descriptor | None = None, subject: str = "blob"
    ) -> Descriptor:
        """Check against `expected`, fsync, rename into place.

        Raises:  DigestMismatch; nothing is published then.
        """
        digest = Digest(self._algorithm, self._hash.hexdigest())
        if expected is not None:
            check_digest(subject, expected, digest, self.size_bytes)
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
