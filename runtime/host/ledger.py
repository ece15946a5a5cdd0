"""The ledger: one append-only file per run of a zone that names every outside resource before it is taken.

Whatever ends a run (a stop, a failed build, its death, a new zoned after a crash) walks the same file. The directory
lies under /run: what it names does not survive a reboot, and neither does it. A file is named by the uuid its domain
has, and begins with the boot id of the host: a snapshot, or a /run that is a disk, may bring back one of another boot.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault

Record = dict[str, Any]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT = "boot"  # in the run directory of a machine that is restored from a snapshot: a name for this start of it


class LedgerBusy(RuntimeFault):
    """A ledger of that name exists: its run has not been torn down."""


def boot_id(run_dir: Path) -> str:
    """Which boot of this host this is; a restored snapshot brings back the kernel's id of when it was saved."""
    try:
        return (run_dir / BOOT).read_text("ascii").strip()
    except FileNotFoundError:
        return BOOT_ID.read_text("ascii").strip()


class Ledger:
    """The records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem

    def record(self, kind: str, **fields: Any) -> None:
        """Append one record and make it durable; call before the resource is taken.

        A torn last line can only be a record whose resource was not taken yet, so `records` may leave it out.
        """
        line = "\n" + json.dumps({"kind": kind, **fields}, separators=(",", ":")) + "\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            # The newline before it keeps a line that a crash tore from swallowing this one.
            data = line.encode()
            if os.write(fd, data) < len(data):  # what is torn names nothing: the resource must not be taken
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(fd)
        finally:
            os.close(fd)

    def records(self) -> list[Record]:
        """All records in the order they were written; what is none is left out."""
        records: list[Record] = []
        for line in self.path.read_bytes().splitlines():
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict) and isinstance(document.get("kind"), str):
                records.append(document)
        return records

    def close(self) -> None:
        """Forget the run: only after everything its records name is gone."""
        self.path.unlink(missing_ok=True)


class LedgerDir:
    """All ledgers of one host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create(self, name: str) -> Ledger:
        """Begin a ledger; raises LedgerBusy if there is one of that name."""
        path = self.root / f"{name}.jsonl"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise LedgerBusy(
                f"run {name}", got="it is still being torn down", hint="try again", temporary=True
            ) from None
        return Ledger(path)

    def all(self) -> Iterator[Ledger]:
        """Every ledger there is, by name."""
        for path in sorted(self.root.glob("*.jsonl")):
            yield Ledger(path)
