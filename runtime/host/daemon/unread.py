"""Zones of which what is written cannot be read: known by their names, and left until a zoned comes that can read it.

What they have stays theirs meanwhile: name, addresses, logs, disk, blobs. Only who removes one by force ends that.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from typing import Any

from runtime.host.daemon import blobs, rows
from runtime.host.daemon.core import Core, Unread
from runtime.host.daemon.disks import Devices
from runtime.host.daemon.errors import StateDamaged, WrongState
from runtime.host.daemon.model import State, ZoneInfo
from runtime.host.daemon.zone import Zone

log = logging.getLogger(__name__)


async def leave(core: Core, zone_id: str, unread: Unread) -> None:
    """Know that there is a zone, and nothing else of it: a zoned that can read what is written goes on with it."""
    log.error("zone %s is left as it is, and not known: %s", unread.name, unread.why)
    core.zones.pop(zone_id, None)
    core.unread[zone_id] = unread
    await core.tell("host.state-damaged", zone_id=zone_id, name=unread.name, why=unread.why)


def of_row(columns: Sequence[Any], error: Exception) -> Unread:
    """A zone whose row of SELECT_ZONES says more than its name to nobody."""
    why = f"its row in the database cannot be read: {error}"
    values = rows.zone_columns(columns)
    request = values["request"]
    return Unread(
        values["name"],
        why,
        values["uuid"],
        index=values["net_index"],
        blobs=rows.blobs_in(request),
        reservation=rows.reservation_in(request),
    )


def of_run(run_of: Zone, why: str, devices: Devices) -> Unread:
    """A zone that can be read, with a run that cannot be taken over."""
    return Unread(
        run_of.name,
        why,
        run_of.uuid,
        runs=True,
        index=run_of.index,
        blobs=frozenset(blobs.of_zone(run_of)),
        devices=devices,
        reservation=run_of.request.reservation,
    )


def run_is_left(core: Core, uuid: str) -> None:
    """The run goes on, whatever else cannot be read: its zone stays with it."""
    for zone_id, unread in core.unread.items():
        if unread.uuid == uuid:
            core.unread[zone_id] = dataclasses.replace(unread, runs=True)


def find(core: Core, ref: str) -> tuple[str, Unread] | None:
    """The id of the one that ref names, by its name or its id; what is known goes before it."""
    found = [(zone_id, unread) for zone_id, unread in core.unread.items() if ref in (zone_id, unread.name)]
    if not found or any(ref in (zone.id, zone.name) for zone in core.zones.values()):
        return None
    return found[0]


def refuse(core: Core, ref: str) -> None:
    """Raises StateDamaged for one that is asked for."""
    if (found := find(core, ref)) is not None:
        hint = "a zoned that can read it goes on with it; zone rm --force forgets it, with its logs and its disk"
        raise StateDamaged(f"zone {found[1].name}", got=found[1].why, hint=hint)


def knows_blobs(core: Core) -> bool:
    """Can be said which blobs zones need, and so which nobody does?"""
    return all(unread.blobs is not None for unread in core.unread.values())


def check_blobs(core: Core) -> None:
    """Raises StateDamaged where it cannot."""
    for unread in core.unread.values():
        if unread.blobs is None:
            hint = f"zone rm --force {unread.name} forgets it"
            expected, got = "to know which of them are needed", f"zone {unread.name}, {unread.why}"
            raise StateDamaged("blobs", expected=expected, got=got, hint=hint)


async def remove(core: Core, zone_id: str, unread: Unread) -> ZoneInfo:
    """Forget one with what it left. Raises WrongState where its run goes on, which only who can read it can end."""
    if unread.runs or unread.uuid in core.unfinished:
        raise WrongState(f"zone {unread.name}", expected="it ended", got=f"one that may run: {unread.why}")
    event = rows.add_event(core.clock.now(), "zone.removed", zone_id, unread.name, {"why": "it could not be read"})
    await core.write_or_refuse(*rows.drop_zone(zone_id), *event)
    core.events.published.tell()
    core.unread.pop(zone_id, None)
    for left in (core.logs_dir(zone_id), core.scratch_dir(zone_id)):
        await core.thread(shutil.rmtree, left, True)
    return ZoneInfo(id=zone_id, name=unread.name, state=State.FAILED)
