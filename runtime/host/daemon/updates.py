"""Changes of a zone: memory, vCPUs, restarts, ports, egress rules, limits; while it runs, or for its next start."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pipeline.bundle.model import LEAST_MEMORY_MIB, Network, Resources
from pipeline.bundle.ports import overlap
from runtime.errors import RuntimeFault
from runtime.host.daemon import growth, networking, pausing, policy, ports
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import BadRequest, UnknownZone, WrongState
from runtime.host.daemon.model import PortRule, State, Update, ZoneInfo
from runtime.host.daemon.zone import Run, Zone, info
from runtime.net.published import key_of

log = logging.getLogger(__name__)

CPUS_TIMEOUT_S = 30.0


async def update(core: Core, zone: Zone, change: Update) -> ZoneInfo:
    """See Manager.update. One at a time for each zone, and whole: where a part cannot be had, all is as before."""
    async with zone.changing:
        return await _update(core, zone, change)


async def _update(core: Core, zone: Zone, change: Update) -> ZoneInfo:
    resources, run = zone.bundle.resources, zone.run
    subject = f"zone {zone.name}"
    if zone.going:
        raise UnknownZone(subject, got="it has been removed")
    if zone.state in (State.QUEUED, State.CREATING, State.STOPPING):
        raise WrongState(subject, expected="it running or exited", got=f"it is {zone.state.value}", temporary=True)
    if run is not None and run.domain is None:
        raise WrongState(subject, expected="it taken over from the zoned before", got="it is not yet", temporary=True)
    if change.restart is not None:
        policy.check_policy(change.restart, subject)
        if zone.request.remove and change.restart.name != "no":
            raise BadRequest(subject, expected="a restart policy or removal at its end", got="both")
    memory_mib = resources.memory_mib if change.memory_mib is None else change.memory_mib
    vcpus = resources.vcpus if change.vcpus is None else change.vcpus
    most_mib, most_vcpus = (
        max(resources.memory_max_mib, resources.memory_mib),
        max(resources.vcpus_max, resources.vcpus),
    )
    least_mib = _least_mib(resources)
    if memory_mib < least_mib:
        hint = "with less, a zone's kernel and init do not go on"
        raise BadRequest(f"{subject}, memory", expected=f"{least_mib} MiB at least", got=f"{memory_mib} MiB", hint=hint)
    if run is not None:
        # The most was fixed when the domain was built; an exited zone may be given more.
        for name, asked, least, most in (
            ("memory", memory_mib, least_mib, most_mib),
            ("vcpus", vcpus, 1, most_vcpus),
        ):
            if not least <= asked <= most:
                expected = f"{least} to {most}, fixed at its start"
                raise BadRequest(f"{subject}, {name}", expected=expected, got=str(asked))
    elif change.add_ports or change.remove_ports:
        raise WrongState(f"{subject}, ports", expected="it running", got=f"it is {zone.state.value}")
    networking.check_update(zone, change)
    pausing.check_limits(zone.bundle, change.limits)
    gone = _matching(zone, change.remove_ports)
    ports.check_rules(change.add_ports, subject, before=len(zone.ports) - len(gone))
    stay = tuple(rule for rule in zone.ports if rule not in gone)
    others = [(other.name, other.ports) for other in core.zones.values() if other.state.live and other is not zone]
    ports.refuse_taken(zone.name, change.add_ports, [(zone.name, stay), *others])
    network = networking.changed(zone, change)
    if run is not None and run.domain is not None:
        added = await _change_run(core, zone, run, memory_mib, vcpus, network, gone, change)
        zone.held.release(rule for rule in gone if rule not in added)
        zone.ports = (*stay, *added)
    new = dataclasses.replace(
        resources,
        memory_mib=memory_mib,
        memory_max_mib=max(most_mib, memory_mib),
        vcpus=vcpus,
        vcpus_max=max(most_vcpus, vcpus),
    )
    zone.request = dataclasses.replace(
        zone.request,
        bundle=dataclasses.replace(
            zone.bundle,
            resources=new,
            network=network,
            confinement=pausing.with_limits(zone.bundle.confinement, change.limits),
        ),
        restart=change.restart or zone.request.restart,
        ports=zone.ports if change.add_ports or change.remove_ports else zone.request.ports,
    )
    if zone.going:  # meanwhile: what is written now would come back with the next zoned
        raise UnknownZone(subject, got="it has been removed")
    await core.save(zone, "zone.updated", request=True)
    return info(zone)


async def _change_run(
    core: Core,
    zone: Zone,
    run: Run,
    memory_mib: int,
    vcpus: int,
    network: Network,
    gone: Sequence[PortRule],
    change: Update,
) -> tuple[PortRule, ...]:
    """Change what runs; the new ports as bound. Where a step fails, those before it and what it began are undone."""
    before, edge, domain, new = zone.bundle.resources, core.edge, run.domain, change.add_ports
    assert domain is not None
    least_mib = _least_mib(before)

    async def ports_back() -> None:
        await core.thread(_change_ports, zone, run, added, gone)
        zone.held.release(rule for rule in added if rule not in gone)

    async def memory_back() -> None:
        await core.thread(edge.set_memory, domain, before.memory_mib, least_mib)

    async def vcpus_back() -> None:
        await core.thread(edge.set_vcpus, domain, before.vcpus)
        await _use_vcpus(zone, run, before.vcpus)

    grows = core.admission.promised(run.uuid) > 0  # by an update before, of which its guest has not taken all yet

    def promise_back() -> None:
        if grows:  # whoever saw to it may have left that to this update
            growth.hold(core, zone, run, before.memory_mib)
        else:
            core.admission.settle(run.uuid)

    async with contextlib.AsyncExitStack() as undo:
        undo.callback(promise_back)
        added = await core.thread(_change_ports, zone, run, gone, new)
        undo.push_async_callback(_undo, zone, "ports", ports_back)
        if memory_mib != before.memory_mib:
            await core.admission.promise(run.uuid, growth.wanted_kib(memory_mib), f"zone {zone.name}")
            undo.push_async_callback(_undo, zone, "memory", memory_back)
            await core.thread(edge.set_memory, domain, memory_mib, least_mib)
        if vcpus != before.vcpus:
            undo.push_async_callback(_undo, zone, "vcpus", vcpus_back)
            await core.thread(edge.set_vcpus, domain, vcpus)
            await _use_vcpus(zone, run, vcpus)
        if change.limits:
            undo.push_async_callback(_undo, zone, "limits", lambda: pausing.limits_back(zone, change.limits))
            await pausing.set_limits(zone, change.limits)
        await networking.apply(core, zone, network)
        undo.pop_all()
    if memory_mib != before.memory_mib:
        growth.hold(core, zone, run, memory_mib)
    return added


def _least_mib(resources: Resources) -> int:
    """What a zone is left at least. One that was made with less has shown that it goes on with that."""
    return min(LEAST_MEMORY_MIB, resources.memory_mib)


async def _undo(zone: Zone, what: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Why it is done is what is told; and a zone that has ended meanwhile has nothing to be undone."""
    try:
        await work()
    except (RuntimeFault, OSError) as fault:
        if zone.state.up:
            log.error("zone %s, %s as before: %s", zone.name, what, fault)


async def _use_vcpus(zone: Zone, run: Run, vcpus: int) -> None:
    """Xen makes vCPUs present in the guest; to use them is for its agent. One that does not answer costs only that."""
    if run.link is None:
        return
    try:
        await run.link.call("cpus", {"online": vcpus}, CPUS_TIMEOUT_S)
    except RuntimeFault as fault:
        log.warning("zone %s, vcpus: %s", zone.name, fault)


def _change_ports(zone: Zone, run: Run, old: Sequence[PortRule], new: Sequence[PortRule]) -> tuple[PortRule, ...]:
    """Publish other ports instead of some; the new ones as bound. Where one cannot be had, all is as before.

    The old ones stay held, so that nobody else gets them before the rest of an update is done; but of one that would
    be in the way of a new one.
    """
    if not old and not new:
        return ()
    assert run.network is not None
    in_the_way = [rule for rule in old if any(_collide(rule, other) for other in new)]
    gone: list[PortRule] = []
    try:
        for rule in old:
            run.network.unpublish(rule.address, rule.port, rule.protocol)
            gone.append(rule)
        zone.held.release(in_the_way)
        bound = zone.held.take(zone.name, new, old)
        try:
            run.network.use(zone.held.listeners(bound))
            run.network.serve()
        except BaseException:
            for rule in bound:
                with contextlib.suppress(RuntimeFault):  # it came to nothing before this one
                    run.network.unpublish(rule.address, rule.port, rule.protocol)
            zone.held.release(rule for rule in bound if rule not in old)
            raise
    except BaseException:
        if gone:
            run.network.use(zone.held.listeners(zone.held.take(zone.name, gone)))
            run.network.serve()
        raise
    return bound


def _collide(old: PortRule, new: PortRule) -> bool:
    return overlap(ports.port_of(old), ports.port_of(new)) and not ports.takes_the_place_of(new, old)


def _matching(zone: Zone, wanted: tuple[PortRule, ...]) -> tuple[PortRule, ...]:
    """The rules that are meant: by address and port here or on the user's machine, or by the zone's port alone."""
    found = []
    for rule in wanted:
        same = [known for known in zone.ports if known.protocol == rule.protocol and _is_meant(known, rule)]
        if not same:
            listed = ", ".join(_host_end(known) for known in zone.ports) or "none"
            expected = f"one it is published on ({listed})"
            raise BadRequest(f"zone {zone.name}, port", expected=expected, got=_host_end(rule))
        found += same
    return tuple(dict.fromkeys(found))  # each once, however often it was named


def _is_meant(known: PortRule, rule: PortRule) -> bool:
    return (
        (known.address, known.port) == (rule.address, rule.port)
        or (not rule.port and known.zone_port == rule.zone_port)
        or (rule.host_port != 0 and (known.host_address, known.host_port) == (rule.host_address, rule.host_port))
    )


def _host_end(rule: PortRule) -> str:
    """Where the user sees it, if it is told."""
    here = (rule.host_address, rule.host_port) if rule.host_port else (rule.address, rule.port)
    return key_of(*here, rule.protocol)
