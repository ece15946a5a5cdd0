"""Zones that come back with the lab: zoned knows which. Their disks and their forwards went with the QEMU before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.errors import SentenceError
from pipeline.oci import Descriptor, Digest
from pipeline.progress import Progress
from runtime.host.client import connect

if TYPE_CHECKING:
    from runtime.host.api.host_pb2 import ZoneInfo
    from runtime.host.client.client import HostClient
    from runtime.host.lab.lab import Lab

OCTETS = "application/octet-stream"
RUNNING_TIMEOUT_S = 120.0
# What zoned's answer may take beyond what it waits for.
MARGIN_S = 30.0


def bring_back(lab: Lab, progress: Progress) -> None:
    """Plug in what the zones that come back run from, wait for them, and lead their ports here.

    A zone that cannot come back is said to be one; the lab and the others are up all the same.
    """
    from runtime.host.api.host_pb2 import ListZonesRequest

    with connect(lab.endpoint()) as client:
        zones = list(client.call(client.host.ListZones, ListZonesRequest()).zones)
        if not zones:
            return
        with progress.bar(f"lab: {', '.join(zone.name for zone in zones)} coming back", unit="steps"):
            # The disks of all before the first is waited for: zoned is looking for them.
            plugged = [zone for zone in zones if _tried(zone, progress, lambda zone: _plug(lab, zone))]
            for zone in plugged:
                _tried(zone, progress, lambda zone: _lead_ports(lab, client, zone))


def _tried(zone: ZoneInfo, progress: Progress, work: Callable[[ZoneInfo], None]) -> bool:
    try:
        work(zone)
    except SentenceError as error:
        progress.say(f"zone {zone.name} does not come back: {error}")
        return False
    return True


def _plug(lab: Lab, zone: ZoneInfo) -> None:
    for text in zone.blobs:
        lab.attach(Descriptor(OCTETS, Digest.parse(text), 0))  # by its digest alone; zoned knows the size


def _lead_ports(lab: Lab, client: HostClient, zone: ZoneInfo) -> None:
    from runtime.host.api.host_pb2 import WaitZoneRequest

    request = WaitZoneRequest(zone=zone.id, until="running", timeout_s=RUNNING_TIMEOUT_S)
    running = client.call(client.host.WaitZone, request, timeout_s=RUNNING_TIMEOUT_S + MARGIN_S)
    for rule in running.ports:
        lab.forward(rule.host_address, rule.host_port, rule.port, rule.protocol)
