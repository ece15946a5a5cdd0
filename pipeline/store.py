"""The content-addressed store: an OCI image layout on disk, plus one small result file per action key.

    oci-layout  index.json  blobs/sha256/<hex>     what skopeo and crane read
    results/<action key>.json                      what a stage made
    locks/<name>  tmp/                             one flock per key; scratch space on the same file system

Nothing names a blob before the blob is on disk: write to tmp, fsync, rename, fsync of the directory. Nothing in here
is trusted because of its time stamp; readers hash what they read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pipeline.errors import DigestMismatch, StoreDamaged
from pipeline.oci import EMPTY, INDEX, MANIFEST, REF_NAME, Descriptor, Digest, canonical_json, parse_json

CHUNK_BYTES = 1 << 20


def default_root() -> Path:
    """Where the store is: $ZONEWRIGHT_STORE, else $XDG_CACHE_HOME/zonewright, else ~/.cache/zonewright."""
    if explicit := os.environ.get("ZONEWRIGHT_STORE"):
        return Path(explicit).absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "zonewright"


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Publish `data` as `path`: readers see the old bytes or the new ones, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_dir(path.parent)


class BlobWriter:
    """Bytes on their way into the store: hashed while written, published by `commit`, dropped otherwise."""

    def __init__(self, store: Store, file: IO[bytes], path: Path, algorithm: str = "sha256") -> None:
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


class Store:
    """One store on disk; safe for several processes at once."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_root()).absolute()
        self.blobs = self.root / "blobs" / "sha256"
        self.results = self.root / "results"
        self.locks = self.root / "locks"
        self.tmp = self.root / "tmp"
        self._proven: dict[Digest, tuple[int, int, int, int]] = {}
        for directory in (self.blobs, self.results, self.locks, self.tmp):
            directory.mkdir(parents=True, exist_ok=True)
        if not (self.root / "oci-layout").exists():
            write_atomic(self.root / "oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"}))
        if not (self.root / "index.json").exists():
            with self.lock("index"):
                if not (self.root / "index.json").exists():
                    self._write_index([])
        self.sweep()

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Where the blob is or would be. Only for handing to tools: reading through `open` or `read` verifies."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def has(self, descriptor: Descriptor) -> bool:
        """Is there an object of this digest and size? A cheap look, not a proof: see `verify`."""
        try:
            return self.path(descriptor.digest).stat().st_size == descriptor.size_bytes
        except FileNotFoundError:
            return False

    def verify(self, digest: Digest) -> bool:
        """Hash the whole object; a damaged one is removed, so that the next build makes it anew.

        One process hashes an object once, while its inode (number, size, time of last change) stays what it was.
        """
        path = self.path(digest)
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
                if self._proven.get(digest) == identity:
                    return True
                actual = hashlib.file_digest(file, digest.algorithm).hexdigest()
        except FileNotFoundError:
            return False
        if actual == digest.hex:
            self._proven[digest] = identity
            return True
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return False

    def read(self, digest: Digest, *, limit_bytes: int = 64 << 20) -> bytes:
        """The bytes of a small object, verified. Raises StoreDamaged."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(limit_bytes + 1)
        except FileNotFoundError:
            raise StoreDamaged(f"store object {digest}", got="no such object", hint="build again to make it") from None
        if len(data) > limit_bytes or hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
            raise StoreDamaged(
                f"store object {digest}", expected="bytes of that digest", got="others", hint="build again to heal it"
            )
        return data

    def read_json(self, digest: Digest) -> Any:
        """A small JSON object of the store, verified and parsed."""
        return parse_json(self.read(digest), subject=str(digest))

    @contextlib.contextmanager
    def writer(self, algorithm: str = "sha256") -> Iterator[BlobWriter]:
        """A context in which a blob is written; leaving it without `commit` leaves nothing."""
        with self._making():
            fd, name = tempfile.mkstemp(prefix="blob.", dir=self.tmp)
            fcntl.flock(fd, fcntl.LOCK_EX)
        path = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                yield BlobWriter(self, file, path, algorithm)
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        """Store bytes."""
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        if self.has(descriptor) and self.verify(descriptor.digest):
            return descriptor
        with self.writer() as writer:
            writer.write(data)
            return writer.commit(media_type=media_type)

    def put_manifest(
        self,
        layers: Sequence[Descriptor],
        *,
        config: Descriptor | None = None,
        artifact_type: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Store the manifest of an image, or of an artifact, whose config is the empty one unless it has its own.

        Source:  OCI image specification, manifest.md, "Guidelines for Artifact Usage".
        """
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": (config or self.put(b"{}", EMPTY)).to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        if artifact_type:
            document["artifactType"] = artifact_type
        if annotations:
            document["annotations"] = dict(annotations)
        return self.put(canonical_json(document), MANIFEST)

    def put_file(self, path: Path, media_type: str = "application/octet-stream") -> Descriptor:
        """Move a file made under `scratch()` into the store."""
        with open(path, "rb+") as file:
            digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
            size = file.seek(0, os.SEEK_END)
            self.adopt(path, digest, fileno=file.fileno())
        return Descriptor(media_type, digest, size)

    def adopt(self, path: Path, digest: Digest, *, fileno: int) -> None:
        """fsync a finished temporary file and rename it to its digest."""
        os.fchmod(fileno, 0o444)
        os.fsync(fileno)
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        fsync_dir(target.parent)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory on the store's file system, gone afterwards."""
        with self._making():
            path = Path(tempfile.mkdtemp(prefix="scratch.", dir=self.tmp))
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Between the making of a temporary file and its lock no sweep may look at it."""
        fd = os.open(self.locks / "tmp", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    def sweep(self) -> int:
        """Remove what killed processes left in tmp; one whose lock is free has no owner. Returns how many."""
        swept = 0
        with self.try_lock("tmp") as alone:
            for path in self.tmp.iterdir() if alone else ():
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except OSError:
                    continue
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                    swept += 1
                except OSError:
                    continue
                finally:
                    os.close(fd)
        return swept

    # -- results -------------------------------------------------------------------------------------------------------

    def result(self, key: str) -> Any | None:
        """What was remembered under an action key, or None. A result that cannot be parsed counts as none."""
        try:
            return json.loads((self.results / f"{key}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def put_result(self, key: str, result: Any) -> None:
        """Remember a result; its blobs must have been published before."""
        write_atomic(self.results / f"{key}.json", canonical_json(result))

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the exclusive lock `name`; it ends with the process, however that ends."""
        fd = os.open(self.locks / name.replace("/", "_"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold the exclusive lock `name` if nobody does; yields whether it is held."""
        fd = os.open(self.locks / name.replace("/", "_"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(fd)

    # -- names ---------------------------------------------------------------------------------------------------------

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Give a manifest a name in index.json; a name names one manifest."""
        with self.lock("index"):
            entries = [entry for entry in self._read_index() if entry.annotations.get(REF_NAME) != name]
            annotations = descriptor.annotations | {REF_NAME: name}
            entries.append(Descriptor(descriptor.media_type, descriptor.digest, descriptor.size_bytes, annotations))
            self._write_index(sorted(entries, key=lambda entry: entry.annotations.get(REF_NAME, "")))

    def untag(self, name: str) -> None:
        """Take a name away; what it named stays."""
        with self.lock("index"):
            self._write_index([entry for entry in self._read_index() if entry.annotations.get(REF_NAME) != name])

    def tags(self) -> dict[str, Descriptor]:
        """Every name in index.json with what it names."""
        return {entry.annotations[REF_NAME]: entry for entry in self._read_index() if REF_NAME in entry.annotations}

    def _read_index(self) -> list[Descriptor]:
        document = parse_json((self.root / "index.json").read_bytes(), subject=str(self.root / "index.json"))
        return [Descriptor.from_json(entry) for entry in document.get("manifests", [])]

    def _write_index(self, entries: list[Descriptor]) -> None:
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry.to_json() for entry in entries]}
        write_atomic(self.root / "index.json", canonical_json(document))
