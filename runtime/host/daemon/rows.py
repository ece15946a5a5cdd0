"""Rows of the database and the statements that write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json, to_json
from runtime.host.daemon.database import Statement
from runtime.host.daemon.model import (
    BootRequest,
    ExitStatus,
    PortRule,
    State,
    WorkloadInfo,
    WorkloadRequest,
    WorkloadState,
)

EVENTS_KEPT = 20_000
_ZONE_COLUMNS = [
    *("id", "name", "request", "state", "wanted", "restarts", "exit", "created", "started", "ready", "finished"),
    *("uuid", "net_index", "ports", "console_tail", "pause_s"),
]
_WORKLOAD_COLUMNS = [
    *("id", "name", "zone_id", "uuid", "request", "state", "exit", "error", "device"),
    *("created", "started", "finished"),
]
SELECT_ZONES = f"SELECT {', '.join(_ZONE_COLUMNS)} FROM zones ORDER BY created"
SELECT_WORKLOADS = f"SELECT {', '.join(_WORKLOAD_COLUMNS)} FROM workloads ORDER BY created"
SELECT_RESERVATIONS = "SELECT id, net_index, created FROM reservations ORDER BY created, id"
SELECT_NETWORKS = "SELECT name, net_index, mtu FROM networks ORDER BY created, name"
_DIGEST = re.compile(r"\b(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\b")
# What reading a row raises that another zonewright, or a hand, wrote.
UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, RecursionError, PipelineError)


@dataclass(frozen=True)
class ZoneRow:
    """What is kept of a zone.

    wanted:  nobody has stopped it.
    uuid:    of its last domain; index: of its last network.
    pause_s: before its last start, or before the one it waits for.
    """

    id: str
    name: str
    request: BootRequest
    state: State
    wanted: bool
    restarts: int
    exit: ExitStatus | None
    created: float
    started: float
    ready: float
    finished: float
    uuid: str
    index: int
    ports: tuple[PortRule, ...]
    console_tail: tuple[str, ...]
    pause_s: float


def zone_row(columns: Sequence[Any]) -> ZoneRow:
    """From a row of SELECT_ZONES, of which the first two are its id and its name. Raises what is UNREADABLE."""
    values = zone_columns(columns)
    return ZoneRow(
        id=values["id"],
        name=values["name"],
        request=request_of(values["request"]),
        state=State(values["state"]),
        wanted=bool(values["wanted"]),
        restarts=values["restarts"],
        exit=_exit(values["exit"]),
        created=values["created"],
        started=values["started"],
        ready=values["ready"],
        finished=values["finished"],
        uuid=values["uuid"],
        index=values["net_index"],
        ports=tuple(from_json(PortRule, rule, subject="port") for rule in json.loads(values["ports"])),
        console_tail=from_json(tuple[str, ...], json.loads(values["console_tail"]), subject="console tail"),
        pause_s=values["pause_s"],
    )


def zone_columns(columns: Sequence[Any]) -> dict[str, Any]:
    """A row of SELECT_ZONES by the columns' names, whatever is in them."""
    return dict(zip(_ZONE_COLUMNS, columns, strict=True))


def blobs_in(request: str) -> frozenset[str] | None:
    """Every digest that a request which may not be readable names, in whatever place.

    None where it is no document, of which a part may be missing, or names none: then nobody knows what its zone needs.
    """
    try:
        json.loads(request)
    except (ValueError, RecursionError):
        return None
    return frozenset(_DIGEST.findall(request)) or None


def reservation_in(request: str) -> str:
    """The one that a request which may not be readable names, as far as it can be told."""
    try:
        return str(json.loads(request)["reservation"])
    except UNREADABLE:
        return ""


def request_of(text: str) -> BootRequest:
    """The request a zone was made of."""
    return from_json(BootRequest, json.loads(text), subject="boot request")


def save_zone(row: ZoneRow, *, request: bool) -> Statement:
    """Write a zone; its request, the long part, only where it is new or has changed."""
    values: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "state": row.state.value,
        "wanted": int(row.wanted),
        "restarts": row.restarts,
        "exit": None if row.exit is None else _text(to_json(row.exit)),
        "created": row.created,
        "started": row.started,
        "ready": row.ready,
        "finished": row.finished,
        "uuid": row.uuid,
        "net_index": row.index,
        "ports": _text(to_json(row.ports)),
        "console_tail": _text(list(row.console_tail)),
        "pause_s": row.pause_s,
    }
    if request:
        values["request"] = _text(to_json(row.request))
        return _upsert("zones", values)
    assignments = ", ".join(f"{name} = ?" for name in values if name != "id")
    parameters = [value for name, value in values.items() if name != "id"]
    return f"UPDATE zones SET {assignments} WHERE id = ?", [*parameters, row.id]


def drop_zone(zone_id: str) -> list[Statement]:
    """Forget a zone and its workloads."""
    return [("DELETE FROM zones WHERE id = ?", [zone_id]), ("DELETE FROM workloads WHERE zone_id = ?", [zone_id])]


def save_network(name: str, index: int, mtu: int, created: float) -> Statement:
    """Keep a shared network."""
    return "INSERT INTO networks (name, net_index, mtu, created) VALUES (?, ?, ?, ?)", [name, index, mtu, created]


def drop_network(name: str) -> Statement:
    """Keep it no longer."""
    return "DELETE FROM networks WHERE name = ?", [name]


def add_event(unix_s: float, kind: str, zone_id: str, zone: str, attributes: Mapping[str, str]) -> list[Statement]:
    """Tell of something, and forget what lies too far back."""
    sql = "INSERT INTO events (unix_s, kind, zone_id, zone, attributes) VALUES (?, ?, ?, ?, ?)"
    trim = f"DELETE FROM events WHERE seq <= last_insert_rowid() - {EVENTS_KEPT}"
    return [(sql, [unix_s, kind, zone_id, zone, _text(dict(attributes))]), (trim, ())]


def save_workload(info: WorkloadInfo, uuid: str) -> Statement:
    """Write a workload; uuid is that of the domain it lives in."""
    return _upsert(
        "workloads",
        {
            "id": info.id,
            "name": info.name,
            "zone_id": info.zone_id,
            "uuid": uuid,
            "request": _text(to_json(info.request)),
            "state": info.state.value,
            "exit": None if info.exit is None else _text(to_json(info.exit)),
            "error": info.error,
            "device": info.device,
            "created": info.created_unix_s,
            "started": info.started_unix_s,
            "finished": info.finished_unix_s,
        },
    )


def workload_row(columns: Sequence[Any]) -> tuple[WorkloadInfo, str]:
    """From a row of SELECT_WORKLOADS: the workload, and the uuid of the domain it lived in.

    The first two columns are its id and its name.
    Raises:  what is UNREADABLE.
    """
    values = dict(zip(_WORKLOAD_COLUMNS, columns, strict=True))
    info = WorkloadInfo(
        id=values["id"],
        name=values["name"],
        zone_id=values["zone_id"],
        state=WorkloadState(values["state"]),
        request=from_json(WorkloadRequest, json.loads(values["request"]), subject="workload"),
        exit=_exit(values["exit"]),
        error=values["error"],
        device=values["device"],
        created_unix_s=values["created"],
        started_unix_s=values["started"],
        finished_unix_s=values["finished"],
    )
    return info, values["uuid"]


def _upsert(table: str, values: Mapping[str, Any]) -> Statement:
    marks = ", ".join("?" for _ in values)
    updates = ", ".join(f"{name} = excluded.{name}" for name in values if name != "id")
    sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}"
    return sql, list(values.values())


def _exit(text: str | None) -> ExitStatus | None:
    return None if text is None else from_json(ExitStatus, json.loads(text), subject="exit")


def _text(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))
