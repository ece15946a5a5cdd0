"""What a ledger says has been plugged into a zone that runs, and whose it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from runtime.host.daemon.model import WorkloadInfo
from runtime.host.ledger import Record

_SAME = {"vbd": ("vdev",), "loop": ("device",), "share": ("number",)}  # what a record KIND.gone names it by


def current(kind: str, records: Iterable[Record]) -> list[Record]:
    """Those of one kind that nothing has taken back."""
    kept: dict[Any, Record] = {}
    for record in records:
        named = tuple(record.get(name) for name in _SAME[kind])
        if record["kind"] == kind:
            kept[named] = record
        elif record["kind"] == f"{kind}.gone":
            kept.pop(named, None)
    return list(kept.values())


def held(kind: str, records: Sequence[Record], workload: WorkloadInfo) -> list[Record]:
    """What a workload has; a record that an older zonewright wrote says so by its disk's name only."""
    disks = [
        record
        for record in current("vbd", records)
        if record.get("workload", "") == workload.id
        or ("workload" not in record and workload.device and record["vdev"] == workload.device)
    ]
    if kind == "vbd":
        return disks
    devices = {record["device"] for record in disks}
    return [
        record
        for record in current(kind, records)
        if record.get("workload", "") == workload.id
        or ("workload" not in record and record.get("device", "") in devices)
    ]
