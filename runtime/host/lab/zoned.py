"""The lab's zoned over gRPC, as far as the lab itself has questions: does it answer, and whom would an end hurt?"""

from __future__ import annotations

import time
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.host.faults import ConnectionLost, HostDown, RemoteFault
from runtime.host.lab.reach import lab_endpoint

POLL_S = 0.02


def await_answer(directory: Path, timeout_s: float) -> None:
    """Wait until zoned answers, whatever it answers. Raises what the last try raised: HostDown, ConnectionLost, …"""
    from runtime.host.api.host_pb2 import ListZonesRequest
    from runtime.host.client import connect

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with connect(lab_endpoint(directory)) as client:
                client.call(client.host.ListZones, ListZonesRequest(), timeout_s=timeout_s)
            return
        except RemoteFault:
            return
        except RuntimeFault:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def live_zones(directory: Path, timeout_s: float) -> list[str]:
    """The names of the zones that run there; none where nobody listens. Raises what an answer that is none is."""
    from runtime.host.api.host_pb2 import ListZonesRequest
    from runtime.host.client import connect

    try:
        with connect(lab_endpoint(directory)) as client:
            reply = client.call(client.host.ListZones, ListZonesRequest(), timeout_s=timeout_s)
        return [zone.name for zone in reply.zones]
    except (HostDown, ConnectionLost):
        return []
