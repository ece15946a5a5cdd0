"""What lab tests do with zones."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from typing import Any

from pipeline import task
from pipeline.progress import Progress
from runtime.host import actions
from runtime.host.api import host_pb2 as pb
from runtime.host.hosts import LabHost
from runtime.host.lab.lab import Lab


def boot(host: LabHost, name: str, **options: Any) -> actions.Booted:
    return actions.boot(host, task.env().store, name, progress=Progress(), **options)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=300) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 300) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(0.1)
    return value


def zone_of(host: LabHost, name: str) -> pb.ZoneInfo:
    return next(zone for zone in actions.zones(host) if zone.name == name)


def live(host: LabHost) -> list[pb.ZoneInfo]:
    """The zones that hold anything; those that have ended stay listed."""
    return [zone for zone in actions.zones(host) if zone.state not in ("exited", "failed")]


def forget(host: LabHost, name: str) -> None:
    """End a zone, if it runs, and have it listed no more."""
    with host.connect() as client:
        client.call(client.host.RemoveZone, pb.RemoveZoneRequest(zone=name, force=True), timeout_s=300)
        actions.tidy(host, client)


def kill_zoned(lab: Lab) -> None:
    """Kill it, wherever it is; on return another one serves."""
    before = int(lab.call("ping")["zoned"]["pid"])
    if before:
        lab.shell(f"kill -9 {before}")

    def another() -> bool:
        found = lab.call("ping")["zoned"]
        return int(found["pid"]) not in (0, before) and found["state"] == "serving"

    wait_for(another, "new zoned", 300)


def host_status(host: LabHost) -> pb.HostStatus:
    with host.connect() as client:
        return client.call(client.host.GetStatus, pb.GetStatusRequest())


def log_with(host: LabHost, name: str, needle: str, *, console: bool = False) -> str:
    """What the workload (or the zone's kernel) printed so far, or nothing while the needle is not in it."""
    with host.connect() as client:
        entries = client.stream(client.host.ReadLogs, pb.ReadLogsRequest(zone=name, tail=-1, console=console))
        text = b"".join(entry.data for entry in entries).decode().replace("\r\n", "\n")
    return text if needle in text else ""
