"""What another zonewright, or a hand, left in a simulated host's database and ledgers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from support.daemonworld import Host


def change_row(host: Host, sql: str, *parameters: object) -> None:
    """What another zonewright, or a hand, wrote into the database."""
    with contextlib.closing(sqlite3.connect(host.path / "state" / "zones.sqlite", isolation_level=None)) as database:
        database.execute(sql, parameters)


def ledger_of(host: Host, name: str) -> Path:
    """The ledger of a zone's run."""
    assert host.manager is not None
    (zone,) = [zone for zone in host.manager.core.zones.values() if zone.name == name]
    assert zone.run is not None
    return zone.run.ledger.path


def write(ledger: Path, record: dict[str, Any]) -> None:
    """What another zonewright has in a ledger."""
    with ledger.open("a") as file:
        file.write(f"\n{json.dumps(record)}\n")


def make_unreadable(ledger: Path) -> bytes:
    """As a disk does that gives an error: what was in it, for `mend`."""
    whole = ledger.read_bytes()
    ledger.unlink()
    ledger.mkdir()
    return whole


def mend(ledger: Path, whole: bytes) -> None:
    """It can be read again."""
    ledger.rmdir()
    ledger.write_bytes(whole)
