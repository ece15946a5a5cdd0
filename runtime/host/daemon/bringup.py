"""Brings a run up: network and domain side by side, then the wire between them, then it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.jsonmodel import to_json
from runtime.boot.model import Disk
from runtime.errors import RuntimeFault
from runtime.host.daemon import claims, sharednets, shares, spec, volumes
from runtime.host.daemon.admission import OVERHEAD_KIB
from runtime.host.daemon.core import Core
from runtime.host.daemon.disks import own_disks
from runtime.host.daemon.edge import Network
from runtime.host.daemon.model import State
from runtime.host.daemon.signals import Clock
from runtime.host.daemon.zone import Run, Zone
from runtime.host.ledger import Ledger
from runtime.net.addresses import ZoneAddresses

log = logging.getLogger(__name__)


class Stopwatch:
    """When each phase began and ended, in seconds since the stopwatch was made; phases may run beside each other."""

    def __init__(self, clock: Clock, into: dict[str, float]) -> None:
        self._clock, self._into, self._origin = clock, into, clock.monotonic()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """A context whose begin and end are noted under `phase`."""
        self._into[f"{phase}.start"] = round(self._clock.monotonic() - self._origin, 4)
        yield
        self._into[f"{phase}.end"] = round(self._clock.monotonic() - self._origin, 4)


def memory_kib(zone: Zone) -> int:
    """What a zone takes of the host when it starts."""
    return (zone.bundle.resources.memory_mib << 10) + OVERHEAD_KIB


def begin(core: Core, zone: Zone, uuid: str, addresses: ZoneAddresses) -> None:
    """The zone has a run, with a ledger that says from its first line on whose it is. Blocking."""
    ledger = core.ledgers.create(uuid)
    try:
        write_head(core, zone, ledger, uuid, addresses)
        console = core.logs_of(zone) / "console"
        console.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            os.replace(console, f"{console}.1")  # where the console's own rotation puts what is older
    except BaseException:
        ledger.close()  # nothing has been taken
        raise
    zone.run = Run(uuid, ledger, addresses, console)  # here, not by whoever waits: they may have been cancelled


def write_head(core: Core, zone: Zone, ledger: Ledger, uuid: str, addresses: ZoneAddresses) -> None:
    """Enough to know the zone again if the database is lost."""
    ledger.record(
        "zone",
        boot_id=core.boot_id,
        id=zone.id,
        name=zone.name,
        uuid=uuid,
        index=addresses.index,
        host=addresses.host,
        request=to_json(zone.request),
        created=zone.created,
        restarts=zone.restarts,
    )


async def bring_up(core: Core, zone: Zone, run: Run) -> None:
    """From nothing to a zone that runs.

    Raises:  what planning, building and wiring raise; what was taken is in the run and in its ledger.
    """
    times = Stopwatch(core.clock, run.timings)
    with times("queued"):
        await core.preparing.acquire()
    try:
        zone.state = State.CREATING
        await core.save(zone, "zone.creating")
        await both(_make_network(core, zone, run, times), _build(core, zone, run, times))
    finally:
        core.preparing.release()
        core.admission.settle(run.uuid)
    with times("wire"):
        await core.thread(_wire, run)
    zone.say("wire")
    domain, network = run.domain, run.network
    assert domain is not None and network is not None and core.deaths is not None
    await core.thread(run.ledger.record, "started")
    core.deaths.add(domain.domid, domain.uuid)  # before it runs: it may be dead as soon as it does
    with times("unpause"):
        await core.thread(domain.unpause)
    run.since, zone.started, zone.ready, zone.finished = core.clock.monotonic(), core.clock.now(), 0.0, 0.0
    zone.state, zone.exit, zone.console_tail = State.RUNNING, None, ()
    await core.save(zone, "zone.running", domid=str(domain.domid))
    with times("engine"):
        await core.thread(_serve, network)
    await core.thread(core.edge.care_for, network)
    run.up = True
    zone.changes.tell()
    zone.say("running")


async def _make_network(core: Core, zone: Zone, run: Run, times: Stopwatch) -> None:
    """The engine's process takes as long to start as the domain to build, and neither needs the other."""

    name = zone.request.network_name
    segment = await sharednets.raise_up(core, name) if name else None

    def make() -> None:
        # Ports first: whether they are free is known at once.
        with times("ports"):
            zone.ports = zone.held.take(zone.name, zone.ports or spec.rules_of(zone.request))
        run.network = core.edge.network(
            zone.name,
            run.addresses,
            zone.bundle.network,
            run.ledger,
            segment=segment,
            isolated=zone.request.is_isolated,
        )
        with times("network"):
            run.network.create()
            run.network.use(zone.held.listeners(zone.ports))

    await core.thread(make)
    zone.say("network")


async def _build(core: Core, zone: Zone, run: Run, times: Stopwatch) -> None:
    edge, bundle = core.edge, zone.bundle

    def block_device(blob: Any) -> Path:
        source = edge.find(blob)
        if source.disk:
            return source.path
        loop = edge.loop(source.path, run.ledger.record)
        run.loops.append(loop)
        return loop.device

    def plan() -> Any:
        kernel, initrd = edge.find(bundle.kernel), [edge.find(part) for part in bundle.initrd]
        own = {vdev: block_device(blob) for vdev, blob in own_disks(bundle).items()}
        disks = [Disk(vdev, str(device)) for vdev, device in own.items()]
        volumes.make_scratch(core, zone, run)
        disks += volumes.plan_disks(bundle, run.devices, block_device)
        launch = spec.launch_of(zone.request, run.addresses, run.devices)
        return edge.plan(spec.domain_spec(zone.request, run, launch, kernel=kernel, initrd=initrd, disks=disks))

    def build() -> None:
        with times("build"):
            run.domain = edge.build(planned, run.ledger, run.console)
        shares.begin(core, zone, run)

    await claims.claim(core, zone, run, await volumes.look(core, bundle))
    with times("plan"):
        planned = await core.thread(plan)
    zone.say("plan", str(planned))
    await core.build(build)
    assert run.domain is not None
    run.timings |= {f"build {phase}": seconds for phase, seconds in run.domain.timings.items()}
    zone.say("build")


def _wire(run: Run) -> None:
    assert run.domain is not None and run.network is not None
    run.network.attach(run.domain.wait_vif())
    run.domain.connect_vif()


def _serve(network: Network) -> None:
    """An engine that has died since it was started is replaced, once, as those of zones that run are.

    Raises:  RuntimeFault, with what the last one said.
    """
    try:
        network.serve()
        return
    except RuntimeFault as fault:
        if not fault.temporary or network.alive():
            raise
        log.warning("%s; another takes its place", fault)
    try:
        network.revive(only_dead=True)
    except RuntimeFault as fault:  # of another zone in the network, perhaps
        log.warning("%s", fault)
    network.serve()


async def both(*works: Coroutine[Any, Any, None]) -> None:
    """Run them side by side; when one fails the others are ended first, then its error is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        results = await settled(tasks)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def settled(tasks: Sequence[asyncio.Task[Any]]) -> list[Any]:
    """What became of tasks that were cancelled; waits for them even if it is cancelled itself."""
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return [task.exception() if not task.cancelled() else asyncio.CancelledError() for task in tasks]
