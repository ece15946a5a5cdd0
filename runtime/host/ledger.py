"""The ledger: one append-only file per zone that names every outside resource before it is taken.

Whatever ends a zone (a stop, a failed build, its death, a new zoned after a crash) walks the same file. The directory
lies under /run: what it names does not survive a reboot, and neither does it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault

Record = dict[str, Any]


class LedgerBusy(RuntimeFault):
    """A ledger of that name exists: its zone has not been torn down."""


class Ledger:
    """The records of one zone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem

    def record(self, kind: str, **fields: Any) -> None:
        """Append one record and make it durable; call before the resource is taken.

        A torn last line can only be a record whose resource was not taken yet, so `records` may leave it out.
        """
        line = json.dumps({"kind": kind, **fields}, separators=(",", ":")) + "\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode())
            os.fsync(fd)
        finally:
            os.close(fd)

    def records(self) -> list[Record]:
        """All records in the order they were written."""
        records: list[Record] = []
        for line in self.path.read_bytes().splitlines():
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict) and "kind" in document:
                records.append(document)
        return records

    def close(self) -> None:
        """Forget the zone: only after everything its records name is gone."""
        self.path.unlink(missing_ok=True)


class LedgerDir:
    """All ledgers of one host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create(self, name: str) -> Ledger:
        """Begin the ledger of a zone; raises LedgerBusy if it has one."""
        path = self.root / f"{name}.jsonl"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise LedgerBusy(
                f"zone {name}", got="it is still being torn down", hint="try again", temporary=True
            ) from None
        return Ledger(path)

    def all(self) -> Iterator[Ledger]:
        """Every ledger there is, by name."""
        for path in sorted(self.root.glob("*.jsonl")):
            yield Ledger(path)
