"""What a lab leaves on disk while it runs: one directory, one record, one lock.

    lock  record.json  qemu.log  console.log  *.sock  port locks  ca.pem  client.pem  client.key

The state disk outlives it all: state.img, here or in ~/.local/state, see `Lab`.

`kill -9` of whoever starts a lab, at any moment, leaves either nothing, or a QEMU that carries the directory's mark and
a record that does not say "ready": the next start finds and ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import canonical_json
from pipeline.store import write_atomic
from runtime.host.lab.errors import LabFailed
from runtime.host.lab.reach import RECORD

LOCK = "lock"
STATE_DISK = "state.img"
LOCK_POLL_S = 0.05


@dataclass(frozen=True)
class Record:
    """The lab that runs.

    pid, start_ticks: name its QEMU. key: what it was started from. ready: it serves. api_port: the port of this machine
    that leads to zoned (0: not yet). returned: the zones that come back with it have been seen to.
    """

    pid: int
    start_ticks: int
    boot_id: str
    key: str
    flavour: str
    accel: str
    memory_mib: int
    dom0_memory_mib: int
    vcpus: int
    started_unix_s: float
    restored: bool
    ready: bool
    ports: tuple[str, ...] = ()
    api_port: int = 0
    returned: bool = False


class State:
    """One lab's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.directory))).hexdigest()
        self.mark = f"zonewright-lab-{digest[:16]}"

    def path(self, name: str) -> Path:
        """A file of the lab."""
        return self.directory / name

    def read(self) -> Record | None:
        """The record, or None where there is none that can be read."""
        try:
            return from_json(Record, json.loads(self.path(RECORD).read_bytes()))
        except (OSError, ValueError, PipelineError):
            return None

    def write(self, record: Record) -> None:
        """Publish the record."""
        write_atomic(self.path(RECORD), canonical_json(to_json(record)), mode=0o600)

    def clear(self, *, keep_lock: bool) -> None:
        """Remove every file of the lab but its state disk; the lock only when the lab is over for good."""
        for path in sorted(self.directory.glob("*")):
            if path.name != STATE_DISK and (path.name != LOCK or not keep_lock):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        if not keep_lock:
            with contextlib.suppress(OSError):
                self.directory.rmdir()

    @contextlib.contextmanager
    def lock(self, *, name: str = LOCK, timeout_s: float = 600.0) -> Iterator[None]:
        """Hold a lock of the lab; it ends with the process, however that ends. Raises LabFailed after the timeout."""
        fd = self.take(name, timeout_s=timeout_s)
        try:
            yield
        finally:
            os.close(fd)

    def take(self, name: str, *, timeout_s: float) -> int:
        """Take a lock and return its descriptor. A lock file removed while one waited for it is waited for anew."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # another one has just ended the lab and removed the directory
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(fd, name):
                    return fd
            except BlockingIOError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            if time.monotonic() > deadline:
                raise LabFailed(
                    "the lab", expected=f"its lock {name} within {timeout_s:.0f} s", got="another command that holds it"
                )
            time.sleep(LOCK_POLL_S)

    def _is_current(self, fd: int, name: str) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path(name).stat())
        except FileNotFoundError:
            return False
