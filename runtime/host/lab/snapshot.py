"""Memory snapshots of a lab that is ready: saved once, restored for every start with the same parts.

    <store>/lab/snapshots/<key>/memory, meta.json      published by renaming the directory

A restore streams the file through this process into QEMU and hashes it on the way: the machine runs on only when every
byte was the one that was saved.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.oci import canonical_json
from pipeline.store import fsync_dir, write_atomic
from runtime.errors import RuntimeFault
from runtime.host.lab.errors import LabFailed, SnapshotDamaged
from runtime.host.lab.qmp import Qmp

FORMAT = 1
MEMORY, META = "memory", "meta.json"
CHUNK_BYTES = 1 << 20
KEPT = 4
SAVE_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 60.0
POLL_S = 0.02
FD_NAME = "snapshot"


def snapshot_key(
    *, dom0: Mapping[str, str], code: str, qemu_version: str, argv: Sequence[str], accel: str, host: str
) -> str:
    """What a snapshot depends on: equal keys may restore each other's.

    dom0: digests of the image's parts. argv: the argument list with file names replaced by digests.
    host: the processor model where KVM shows it to the guest; empty under TCG.
    """
    document = {
        "format": FORMAT,
        "dom0": dict(dom0),
        "code": code,
        "qemu": qemu_version,
        "argv": list(argv),
        "accel": accel,
        "host": host,
    }
    return hashlib.sha256(canonical_json(document)).hexdigest()


class Snapshots:
    """The snapshots of one store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, key: str) -> Path | None:
        """The memory file of a key, or None."""
        memory = self.directory / key / MEMORY
        return memory if memory.is_file() and (self.directory / key / META).is_file() else None

    def save(self, qmp: Qmp, key: str) -> int:
        """Save the memory of a running QEMU and let it run on; returns the size in bytes.

        Raises:  QmpError, LabFailed, OSError (a full disk). Effects: the guest stands still meanwhile.
        """
        partial = self.directory / f"{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            qmp.execute("stop")
            try:
                digest, size = _write(qmp, partial / MEMORY)
            except BaseException:
                with contextlib.suppress(RuntimeFault):
                    qmp.execute("migrate_cancel")  # QEMU plugs nothing in while it goes on
                raise
            finally:
                qmp.execute("cont")
            meta = {"format": FORMAT, "sha256": digest, "size_bytes": size}
            write_atomic(partial / META, canonical_json(meta))
            self.drop(key)
            os.rename(partial, self.directory / key)
            fsync_dir(self.directory)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._prune(key)
        return size

    def drop(self, key: str) -> None:
        """Forget a snapshot."""
        shutil.rmtree(self.directory / key, ignore_errors=True)

    def feed(self, key: str, fd: int) -> None:
        """Write a snapshot into QEMU's incoming pipe. Raises SnapshotDamaged; the caller then ends that QEMU."""
        meta = self._meta(key)
        hashed, size = hashlib.sha256(), 0
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
        try:
            with open(self.directory / key / MEMORY, "rb", buffering=0) as file:
                while chunk := file.read(CHUNK_BYTES):
                    hashed.update(chunk)
                    size += len(chunk)
                    _write_all(fd, chunk)
        except OSError as error:
            raise _damaged(key, f"a read that ends with {error.strerror}") from error
        if size != meta.get("size_bytes") or hashed.hexdigest() != meta.get("sha256"):
            raise _damaged(key, f"{size} bytes that hash to {hashed.hexdigest()[:12]}")
        os.utime(self.directory / key)  # the age by which old ones are dropped; nothing else looks at it

    def _meta(self, key: str) -> dict[str, Any]:
        try:
            meta = json.loads((self.directory / key / META).read_bytes())
        except (OSError, ValueError) as error:
            raise _damaged(key, f"a description that cannot be read: {error}") from error
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise _damaged(key, "a description of another format")
        return meta

    def _prune(self, keep: str) -> None:
        """Keep the few that were used last: every change of the code makes a new one."""
        ages = []
        for path in self.directory.iterdir():
            if path.name != keep and not path.name.endswith(".partial"):
                with contextlib.suppress(FileNotFoundError):
                    ages.append((path.stat().st_mtime, path))
        for _, path in sorted(ages, reverse=True)[KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)


def wait_loaded(qmp: Qmp) -> None:
    """Wait until a QEMU that was fed a snapshot holds all of it. Raises SnapshotDamaged."""
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while True:
        status = str(qmp.execute("query-status")["status"])
        if status == "paused":
            return
        if status != "inmigrate" or time.monotonic() > deadline:
            raise SnapshotDamaged("the lab's snapshot", expected="QEMU to load it", got=f"state {status}")
        time.sleep(POLL_S)


def _write(qmp: Qmp, path: Path) -> tuple[str, int]:
    with open(path, "wb+") as file:
        qmp.execute("getfd", {"fdname": FD_NAME}, fd=file.fileno())
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 34})
        qmp.execute("migrate", {"uri": f"fd:{FD_NAME}"})
        deadline = time.monotonic() + SAVE_TIMEOUT_S
        while (status := qmp.execute("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise LabFailed("the lab's snapshot", expected="QEMU to save it", got=f"state {status}")
            time.sleep(POLL_S)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return digest, file.seek(0, os.SEEK_END)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _damaged(key: str, got: str) -> SnapshotDamaged:
    return SnapshotDamaged(f"the lab's snapshot {key[:12]}", expected="what was saved", got=got)
