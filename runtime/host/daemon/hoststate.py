"""What can be asked about the host: its status, networks, disks, and their cleaning up."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import platform
import uuid as uuids
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.store.workshop import is_unowned
from runtime.errors import RuntimeFault
from runtime.host import xenstoremark
from runtime.host.check.check import check as compare
from runtime.host.check.look_host import Places
from runtime.host.check.model import HostPort, Report
from runtime.host.daemon import blobs, ending, sharednets, unread
from runtime.host.daemon.core import Core
from runtime.host.daemon.edge import KIB_PER_PAGE, rss_kib
from runtime.host.daemon.model import DiskUsageRow, HostStatus, NetworkInfo, Pruned
from runtime.host.daemon.zone import Zone
from runtime.host.ledger import Ledger
from runtime.net.declared import DeclaredLedger
from runtime.net.declared import ledgers as declared_ledgers
from runtime.net.engine.proxy import ProxyEngine

# What is in the run directory besides ledgers and networks: zoned's own (zoned.py, serve/, xenstoremark.py,
# dom0/daemonstate.py), what
# the lab's dom0 has there (dom0/start.py, dom0/configure.py, dom0/keeper.py, os/dom0/agent).
RUN_FILES = (
    *("zoned.sock", "zoned.lock", "zoned.json", "pools", "tls", xenstoremark.FILE),
    *("boot", "configured", "stopping", "up", "zoned.log", "zoned.log.1", "agent.log"),
)
RUN_DIRECTORIES = ("ledger", "net", "networks")


def host_id(state_dir: Path) -> str:
    """This host's own uuid, made once."""
    path = state_dir / "host-id"
    with contextlib.suppress(OSError, ValueError):
        return str(uuids.UUID(path.read_text("ascii").strip()))
    made = str(uuids.uuid4())
    temporary = path.with_suffix(".new")
    temporary.write_text(f"{made}\n", "ascii")
    os.replace(temporary, path)
    return made


async def status(core: Core, started: float) -> HostStatus:
    """See Manager.status."""
    machine = await core.thread(core.edge.machine)
    return HostStatus(
        host_id=await core.thread(host_id, core.settings.state_dir),
        version=core.settings.version,
        xen_version=await core.thread(core.edge.hypervisor.xen_version),
        kernel=platform.release(),
        python=platform.python_version(),
        free_memory_kib=machine.free_pages * KIB_PER_PAGE,
        total_memory_kib=machine.total_pages * KIB_PER_PAGE,
        cpus=machine.cpus,
        zones_running=sum(zone.state.up for zone in core.zones.values()),
        zones_total=len(core.zones),
        missing=core.settings.warnings,
        started_unix_s=started,
        zoned_rss_kib=rss_kib(),
        pid=os.getpid(),
    )


async def networks(core: Core) -> list[NetworkInfo]:
    """See Manager.networks."""
    live = [zone for zone in core.zones.values() if zone.run is not None and zone.run.network is not None]
    counted = {zone.name: await _counters(core, zone) for zone in live}
    found = [_private(zone, counted[zone.name]) for zone in live if not zone.request.network_name]
    for network in core.networks.values():
        described = sharednets.describe(core, network)
        sums: Counter[str] = Counter()
        for zone in described.zones:
            sums.update(counted.get(zone, {}))
        engine = ProxyEngine.name if network.segment is not None else ""
        found.append(dataclasses.replace(described, engine=engine, counters=dict(sums)))
    return sorted(found, key=lambda network: network.name)


async def _counters(core: Core, zone: Zone) -> dict[str, int]:
    with contextlib.suppress(RuntimeFault, OSError):  # its engine may be starting, or ending
        if zone.run is not None and zone.run.network is not None:
            return await core.thread(zone.run.network.counters)
    return {}


def _private(zone: Zone, counters: dict[str, int]) -> NetworkInfo:
    assert zone.run is not None
    planned = zone.run.addresses
    ipv4, ipv6 = planned.subnets
    return NetworkInfo(
        name=zone.name,
        ipv4=ipv4,
        ipv6=ipv6,
        gateway4=planned.gateway4,
        gateway6=planned.gateway6,
        engine=zone.bundle.network.engine or ProxyEngine.name,
        zones=(zone.name,),
        counters=counters,
    )


async def disk_usage(core: Core) -> list[DiskUsageRow]:
    """See Manager.disk_usage."""

    zones = list(core.zones.values())  # here: in the thread, their number would change while it walks
    ended = [zone.id for zone in zones if not zone.state.live]
    needed = blobs.needed(core) if unread.knows_blobs(core) else None

    def look() -> list[DiskUsageRow]:
        logs = {zone.id: _size(core.logs_of(zone)) for zone in zones}
        scratch = {zone.id: _size(core.scratch_of(zone)) for zone in zones if zone.bundle.scratch_mib}
        stored = [size for _, size in blobs.sizes(core)]
        database = []
        for path in core.settings.state_dir.glob("zones.sqlite*"):
            with contextlib.suppress(OSError):  # the database makes and removes some of them
                database.append(path.stat().st_size)
        unused = 0 if needed is None else sum(size for _, size in blobs.unused(core, needed))
        return [
            DiskUsageRow("logs", len(logs), sum(logs.values()), sum(logs[zone_id] for zone_id in ended)),
            DiskUsageRow(
                "scratch disks", len(scratch), sum(scratch.values()), sum(scratch.get(zone_id, 0) for zone_id in ended)
            ),
            DiskUsageRow("blobs", len(stored), sum(stored), unused),
            DiskUsageRow("database", len(database), sum(database), 0),
        ]

    return await core.thread(look)


async def prune(core: Core, *, zones: bool, unused_blobs: bool, dry_run: bool) -> Pruned:
    """See Manager.prune."""
    if unused_blobs:
        unread.check_blobs(core)  # first: what was removed before a refusal would go untold
    removed: list[str] = []
    freed = 0
    ended = [zone for zone in core.zones.values() if not zone.state.live] if zones else []
    for zone in ended:
        sizes = [await core.thread(_size, left) for left in (core.logs_of(zone), core.scratch_of(zone))]
        if not _still_ended(zone):  # somebody has started it again, or removed it, meanwhile
            continue
        if dry_run or await ending.forget(core, zone, why="pruned"):
            removed.append(f"zone {zone.name}")
            freed += sum(sizes)
    if unused_blobs:
        async with blobs.alone(core):
            for path, size in await core.thread(blobs.unused, core, blobs.needed(core)):
                if dry_run or await blobs.remove(core, path):
                    removed.append(f"blob {path.parent.name}:{path.name[:12]}")
                    freed += size
    return Pruned(tuple(removed), freed)


async def check(core: Core, serving: Callable[[], Iterable[HostPort]] = tuple) -> Report:
    """See Manager.check. All of the run directory is zoned's; of the state, logs, scratch disks, the store's tmp."""
    run, state = core.settings.run_dir, core.settings.state_dir
    logs, scratch = state / "logs", state / "scratch"
    temporary = [store / "tmp" for store in core.edge.stores[:1]]  # those of others are theirs

    def ledgers() -> list[Ledger | DeclaredLedger]:
        return [*core.ledgers.all(), *core.network_ledgers.all(), *declared_ledgers(run / "net")]

    def known() -> list[str]:
        zones, unknown = list(core.zones.values()), list(core.unread)
        paths = [run / name for name in RUN_FILES]
        paths += [ledger.path for ledger in ledgers()]
        paths += [logs / zone.id for zone in zones]
        paths += [core.scratch_of(zone) for zone in zones if zone.bundle.scratch_mib]
        paths += [place(zone_id) for zone_id in unknown for place in (core.logs_dir, core.scratch_dir)]
        paths += [path for directory in temporary for path in directory.glob("*") if not is_unowned(path)]
        return list(map(str, paths))

    def own_ports() -> list[HostPort]:
        return [*serving(), *(port for zone in list(core.zones.values()) for port in zone.held.held())]

    def look() -> Report:
        return compare(
            core.edge.hypervisor,
            core.edge.xenstore,
            ledgers,
            places=Places((run, logs, scratch, *temporary), containers=RUN_DIRECTORIES),
            allowed=known,
            loop_files=(*map(str, core.edge.stores), str(scratch)),
            own_ports=own_ports,
            going=lambda: bool(core.ending),
        )

    # Not in the daemon's threads, which are for zones.
    return await asyncio.to_thread(look)


def _still_ended(zone: Zone) -> bool:
    return not zone.state.live and not zone.removed


def _size(path: Path) -> int:
    """What the files below take of the disk; sparse ones take less than they are long."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(directory, name))
                total += min(status.st_size, status.st_blocks * 512)
    return total
