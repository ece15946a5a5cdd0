"""What the next zoned does with a zone that runs, on the edge of a test: the code of zoned itself, without the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.bundle.model import Bundle, Process
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, Digest
from runtime.boot.watch import Deaths
from runtime.host.daemon import ending, takeover
from runtime.host.daemon.core import Core, Settings
from runtime.host.daemon.database import Database
from runtime.host.daemon.edge import Edge, MakeNetwork
from runtime.host.daemon.model import BootRequest, State
from runtime.host.daemon.reconcile import head_of
from runtime.host.daemon.zone import Zone
from runtime.host.ledger import Ledger
from runtime.net.supervise import EngineSupervisor

BOOT_ID = "11111111-0000-0000-0000-000000000000"
SERVES_AGAIN_S = 120.0


def head_fields(uuid: str, index: int) -> dict[str, Any]:
    """The first record of the ledger of a zone `web`."""
    blob = Descriptor("application/octet-stream", Digest.of(b""), 0)
    bundle = Bundle("web", blob, "6.1", (), (), blob, Process(("/serve",), ()))
    request = to_json(BootRequest(bundle))
    fields = {"boot_id": BOOT_ID, "id": uuid, "name": "web", "uuid": uuid, "index": index, "request": request}
    return {**fields, "created": 1.0, "restarts": 0}


def take_over(ledger: Ledger, edge: Edge, directory: Path, make_network: MakeNetwork) -> None:
    """The zone is taken over in the end, and its network serves; then its zoned leaves it."""
    edge.make_network, edge.engines = make_network, EngineSupervisor()
    try:
        asyncio.run(_taken_over(ledger, edge, directory))
    finally:
        edge.engines.close()


async def _taken_over(ledger: Ledger, edge: Edge, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    database = Database(directory / "zones.sqlite")
    core = Core(Settings(directory, directory), edge, database, BOOT_ID)
    core.deaths = mock.create_autospec(Deaths, instance=True)  # how often it looks is not the same in two runs
    records = ledger.records()
    head = head_of(records)
    assert head is not None
    zone = Zone(id=head.id, request=head.request, state=State.READY)
    run = zone.run = takeover.begun(core, zone, head, ledger, records)
    try:
        await takeover.attempt(core, zone, run)
        await takeover.until_taken(core, zone, run)
        assert run.up and run.network is not None, f"{run.reason} {run.told}"
        async with asyncio.timeout(SERVES_AGAIN_S):
            while not await core.thread(run.network.alive):
                await asyncio.sleep(0.02)
        await ending.leave(core, run)
    finally:
        core.workers.shutdown()
        core.builders.shutdown()
        database.close()
