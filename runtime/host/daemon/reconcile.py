"""What a starting zoned finds: ledgers, the database and Xen's own list of domains, and what follows from the three.

Xen's list decides what lives; a ledger, what a run took and whose it was; the database, what is wanted. A pure function
makes the decisions, so that every combination can be looked at in a test; adopt.py acts on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.bundle.model import Network
from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json
from runtime.boot.doors import DomainInfo
from runtime.host.daemon.model import BootRequest, ExitStatus
from runtime.host.ledger import Record
from runtime.net.addresses import ZONE_HOST


class Fate(Enum):
    """What becomes of the run a ledger is about."""

    ADOPT = "adopt"  # it runs
    ENDED = "ended"  # it ran, and has ended while nobody looked
    UNFINISHED = "unfinished"  # it never came to run
    VOID = "void"  # of another boot of this host: nothing of it is left


@dataclass(frozen=True)
class Head:
    """The first record of a ledger: whose run it is, and the request with what was changed of its network since."""

    boot_id: str
    id: str
    name: str
    uuid: str
    index: int
    host: int
    request: BootRequest
    created: float
    restarts: int


def head_of(records: Sequence[Record]) -> Head | None:
    """None for a ledger that was cut off before its first record was whole, or that another version wrote."""
    first: Mapping[str, Any] = records[0] if records else {}
    if first.get("kind") != "zone":
        return None
    try:
        request = from_json(BootRequest, first["request"], subject="ledger")
        changes = [record["network"] for record in records if record["kind"] == "network"]
        if changes:
            network = from_json(Network, changes[-1], subject="ledger")
            request = dataclasses.replace(request, bundle=dataclasses.replace(request.bundle, network=network))
        return Head(
            boot_id=str(first["boot_id"]),
            id=str(first["id"]),
            name=str(first["name"]),
            uuid=str(first["uuid"]),
            index=int(first["index"]),
            host=int(first.get("host", ZONE_HOST)),  # a zonewright before shared networks did not write it
            request=request,
            created=float(first["created"]),
            restarts=int(first["restarts"]),
        )
    except (KeyError, ValueError, TypeError, PipelineError):
        return None


def exit_in(records: Sequence[Record]) -> ExitStatus | None:
    """The exit a teardown that was cut off had written down. None too for one that another version wrote."""
    for record in records:
        if record["kind"] == "exit":
            try:
                return from_json(ExitStatus, record["exit"], subject="ledger")
            except (KeyError, PipelineError):
                return None
    return None


def fate_of(records: Sequence[Record], boot_id: str, domains: Mapping[str, DomainInfo]) -> Fate:
    """Decide.

    domains:  by uuid, as Xen lists them. Domids are used again; uuids are not.
    """
    head = head_of(records)
    if head is not None and head.boot_id != boot_id:
        return Fate.VOID
    kinds = {record["kind"] for record in records}
    started = "started" in kinds
    if head is None or not started:
        return Fate.UNFINISHED
    info = domains.get(head.uuid)
    if info is not None and info.paused and not info.cpu_time_ns and not info.dying and not info.reason:
        return Fate.UNFINISHED  # written down as started, and then not started
    if info is None or info.dying or info.reason or "exit" in kinds:
        return Fate.ENDED
    return Fate.ADOPT


def strays(domains: Mapping[str, DomainInfo], known: set[str]) -> list[DomainInfo]:
    """Domains no ledger knows, which may or may not be ours."""
    return [info for uuid, info in domains.items() if uuid not in known and not info.dying]


def stray_records(info: DomainInfo) -> list[Record]:
    """What a teardown needs to end a domain whose ledger is lost."""
    return [
        {"kind": "domain", "name": f"domain {info.domid}", "uuid": info.uuid},
        {"kind": "xenstore", "domid": info.domid, "uuid": info.uuid, "backend_domid": 0, "has_vif": True},
    ]
