"""The content-addressed store: an OCI image layout on disk, plus one small result file per action key.

    oci-layout  index.json  blobs/sha256/<hex>     what skopeo and crane read
    format                                         the version of everything below
    results/<action key>.json                      what a stage made, and the digest of that statement
    used/  checkouts/                              what `zone store gc` goes by: last uses, who builds into it
    locks/<name>  tmp/                             one flock per key; scratch space on the same file system

Nothing names a blob before the blob is on disk: write to tmp, fsync, rename, fsync of the directory. Nothing in here
is trusted because of its time stamp; readers hash what they read. A damaged object is removed by whoever finds it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from pipeline.durable import fsync_dir, take, write_atomic
from pipeline.errors import PipelineError, StoreDamaged
from pipeline.oci import EMPTY, MANIFEST, REF_NAME, Descriptor, Digest, canonical_json, parse_json
from pipeline.store.blobwriter import BlobWriter, Sink
from pipeline.store.documents import altered, checked_result, index_document, missing, read_index, result_document
from pipeline.store.form import FIXED_LOCKS, StoreUnfit, check_form, check_place, who_owns
from pipeline.store.lease import Lease
from pipeline.store.usedays import UseDays
from pipeline.store.workshop import Workshop

READ_BYTES = 256 << 10
# What a disk or a file of the wrong kind answers, as against a machine that is out of something.
UNREADABLE = (errno.EIO, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)


def default_root() -> Path:
    """Where the store is: $ZONEWRIGHT_STORE, else $XDG_CACHE_HOME/zonewright, else ~/.cache/zonewright."""
    if explicit := os.environ.get("ZONEWRIGHT_STORE"):
        return Path(explicit).absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "zonewright"


def _identity(fileno: int) -> tuple[int, int, int, int]:
    status = os.fstat(fileno)
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


class Store:
    """One store on disk; safe for several processes at once."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_root()).absolute()
        self.blobs = self.root / "blobs" / "sha256"
        self.results = self.root / "results"
        self.locks = self.root / "locks"
        self.tmp = self.root / "tmp"
        self.used = self.root / "used"
        self.checkouts = self.root / "checkouts"
        self.read_only = ""  # why nothing can be written, where that is so
        self.removed: set[Digest] = set()  # the damaged objects this process has found
        self._proven: dict[Digest, tuple[int, int, int, int]] = {}
        self._workshop = Workshop(self.tmp, self.locks / "tmp")
        self._open()
        self._lease = Lease(self.locks)
        self.days = UseDays(self.used, self.tmp, read_only=bool(self.read_only))

    def _open(self) -> None:
        check_form(self.root)
        check_place(self.root)
        try:
            for directory in (self.blobs, self.results, self.locks, self.tmp, self.used, self.checkouts):
                directory.mkdir(parents=True, exist_ok=True)
            for name in sorted(FIXED_LOCKS):  # so that a full disk can be cleared without making a file
                with open(self.locks / name, "ab"):
                    pass
            check_form(self.root, write=lambda path, data: write_atomic(path, data, staging=self.tmp))
            if not (self.root / "index.json").exists():
                with self.lock("index"):
                    if not (self.root / "index.json").exists():
                        self._write_index([])
            self.sweep()
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not self.blobs.is_dir():
                raise StoreUnfit(
                    f"store {self.root}",
                    expected="a directory to work in",
                    got=f"{error.strerror}{who_owns(self.root)}",
                    hint="ZONEWRIGHT_STORE names another",
                ) from error
            self.read_only = str(error.strerror)

    def check_writable(self) -> None:
        """Raise StoreUnfit where this store can only be read."""
        if self.read_only:
            raise StoreUnfit(
                f"store {self.root}",
                expected="one to write to, as something has to be made",
                got=f"{self.read_only}{who_owns(self.root)}",
                hint="ZONEWRIGHT_STORE names another",
            )

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Where the blob is or would be. Nobody has hashed it: what hands it to a tool takes `checked` instead."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def checked(self, digest: Digest) -> Path:
        """Where the blob is, for handing to tools: it has been hashed. Raises StoreDamaged."""
        if not self.verify(digest):
            raise altered(digest) if digest in self.removed else missing(digest)
        return self.path(digest)

    def has(self, descriptor: Descriptor) -> bool:
        """Is there an object of this digest and size? A cheap look, not a proof: see `verify`.

        Effects: no gc takes it away while this process lives.
        """
        self.keep(descriptor.digest)
        try:
            status = os.lstat(self.path(descriptor.digest))
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == descriptor.size_bytes

    def keep(self, *digests: Digest) -> None:
        """Let no gc take these objects away while this process lives; cheaper for many at once than one by one."""
        if not self.read_only:
            with contextlib.suppress(OSError):  # a full disk: better no protection from gc than no reading
                self._lease.note(*digests)

    def verify(self, digest: Digest) -> bool:
        """Hash the whole object; a damaged one is removed, so that the next build makes it anew.

        One process hashes an object once, while its inode (number, size, time of last change) stays what it was.
        """
        self.keep(digest)
        try:
            file = self._open_blob(digest)
        except (FileNotFoundError, StoreDamaged):
            return False
        with file:
            if self.proven(digest, file.fileno()):
                return True
            identity = _identity(file.fileno())
            try:
                actual = hashlib.file_digest(file, digest.algorithm).hexdigest()
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                actual = ""
        if actual == digest.hex:
            self._proven[digest] = identity
            return True
        self._discard(digest)
        return False

    def proven(self, digest: Digest, fileno: int) -> bool:
        """Has this process hashed this very file, and is it as it was then?"""
        return self._proven.get(digest) == _identity(fileno)

    def _open_blob(self, digest: Digest) -> BufferedReader:
        """An object opened for reading. Raises FileNotFoundError; StoreDamaged for what is no readable file."""
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            self._discard(digest)
            raise altered(digest) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            self._discard(digest)
            raise altered(digest)
        return open(fd, "rb")

    def damaged(self, digest: Digest) -> StoreDamaged:
        """Remove an object that a reader found altered, for the next build to make it anew; gives the error to raise.

        One that another process has put right meanwhile stays.
        """
        self._proven.pop(digest, None)
        self.verify(digest)
        return altered(digest)

    def _discard(self, digest: Digest) -> None:
        path = self.path(digest)
        self.removed.add(digest)
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def open(self, digest: Digest) -> BufferedReader:
        """An object for reading by someone who hashes what he reads, and calls `damaged` for other bytes.

        Raises:  StoreDamaged where there is none.
        """
        try:
            return self._open_blob(digest)
        except FileNotFoundError:
            raise missing(digest) from None

    def read(self, digest: Digest, *, limit_bytes: int = 64 << 20) -> bytes:
        """The bytes of a small object, verified. Raises StoreDamaged."""
        try:
            with self.open(digest) as file:
                data = file.read(limit_bytes + 1)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            raise self.damaged(digest) from error
        if len(data) > limit_bytes or hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
            raise self.damaged(digest)
        return data

    def read_along(self, digest: Digest, write: Callable[[bytes], object]) -> None:
        """Give an object's bytes to `write`, hashing them: the one reading of a large object.

        Raises:  StoreDamaged at its end, and then what was given is worth nothing; what `write` raises.
        """
        seen = hashlib.new(digest.algorithm)
        try:
            with self.open(digest) as file:
                while data := file.read(READ_BYTES):
                    seen.update(data)
                    write(data)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            raise self.damaged(digest) from error
        if seen.hexdigest() != digest.hex:
            raise self.damaged(digest)

    def read_json(self, digest: Digest) -> Any:
        """A small JSON object of the store, verified and parsed."""
        return parse_json(self.read(digest), subject=str(digest))

    @contextlib.contextmanager
    def writer(self, algorithm: str = "sha256", *, sink: Sink | None = None) -> Iterator[BlobWriter]:
        """A context in which a blob is written; leaving it without `commit` leaves nothing. The sink reads along."""
        self.check_writable()
        with self._workshop.file("blob.") as (file, path):
            yield BlobWriter(self, file, path, algorithm, sink)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory on the store's file system, gone afterwards."""
        self.check_writable()
        with self._workshop.directory("scratch.") as path:
            yield path

    def sweep(self) -> int:
        """Remove what killed processes left in tmp; returns how many."""
        return self._workshop.sweep()

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
        from concurrent.futures import ThreadPoolExecutor

        with open(path, "rb+") as file, ThreadPoolExecutor(1) as beside:
            synced = beside.submit(os.fsync, file.fileno())  # the disk works while the file is hashed
            digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
            synced.result()
            size = file.seek(0, os.SEEK_END)
            self.adopt(path, digest, fileno=file.fileno())
            self._proven.setdefault(digest, _identity(file.fileno()))
        return Descriptor(media_type, digest, size)

    def adopt(self, path: Path, digest: Digest, *, fileno: int) -> None:
        """fsync a finished temporary file and rename it to its digest; where a sound one is there already, that stays.

        For what reads the one that is there goes on reading it: a zone's disk, or the lab's, is no longer the store's
        file once that has been replaced.

        Raises:  OSError; the object is not there then, also where only its directory could not be synced: to find it
                 next time would be to take that failure for a success.
        """
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._lease.note(digest)
        if os.path.lexists(target) and self.verify(digest):
            os.unlink(path)
            return
        os.fchmod(fileno, 0o444)
        os.fsync(fileno)
        if target.is_dir() and not target.is_symlink():
            self._discard(digest)  # damage of a kind that rename does not replace
        os.rename(path, target)
        self._proven.pop(digest, None)
        try:
            fsync_dir(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                target.unlink()
            raise

    # -- results -------------------------------------------------------------------------------------------------------

    def result(self, key: str) -> Any | None:
        """What was remembered under an action key, or None. One that was altered counts as none."""
        try:
            document = json.loads((self.results / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return None
        result = checked_result(document)
        if result is not None:
            self.days.note(key)
        return result

    def put_result(self, key: str, result: Any) -> None:
        """Remember a result; its blobs must have been published before."""
        self.check_writable()
        path = self.results / f"{key}.json"
        try:
            write_atomic(path, result_document(result), staging=self.tmp)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self.days.note(key)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the exclusive lock `name`; it ends with the process, however that ends."""
        self.check_writable()
        fd = take(self.locks / name.replace("/", "_"))
        try:
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold the exclusive lock `name` if nobody does; yields whether it is held."""
        self.check_writable()
        try:
            fd = take(self.locks / name.replace("/", "_"), wait=False)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(fd)

    def register(self, checkout: Path) -> None:
        """Say that a checkout builds into this store: what its locks and results name is worth keeping."""
        path = self.checkouts / Digest.of(os.fsencode(checkout)).hex[:16]
        if not self.read_only and not path.exists():
            with contextlib.suppress(OSError):
                write_atomic(path, os.fsencode(checkout) + b"\n", staging=self.tmp)

    # -- names ---------------------------------------------------------------------------------------------------------

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Give a manifest of this store a name in index.json; a name names one manifest. Raises StoreDamaged."""
        with self.lock("index"):
            self._lease.note(descriptor.digest)
            if not self.path(descriptor.digest).is_file():
                raise missing(descriptor.digest)
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
        path = self.root / "index.json"
        try:
            return read_index(path.read_bytes(), subject=str(path))
        except (PipelineError, OSError) as error:
            got = error.got if isinstance(error, PipelineError) else str(error.strerror)
            hint = "zone store fsck --repair sets it right"
            raise StoreDamaged(str(path), expected="the names of this store", got=got, hint=hint) from error

    def _write_index(self, entries: list[Descriptor]) -> None:
        write_atomic(self.root / "index.json", index_document(entries), staging=self.tmp)
