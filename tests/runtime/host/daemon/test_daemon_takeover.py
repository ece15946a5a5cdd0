"""A running zone whose adoption fails for a while: it is listed, runs on, and is taken over later."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.hostnetworks import FakeSegment

from runtime.boot.errors import HypervisorFault, XenstoreFault
from runtime.errors import RuntimeFault
from runtime.host.daemon import agentwatch, edge, sharednets
from runtime.host.daemon.errors import WrongState
from runtime.host.daemon.logwriter import LogWriter
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import State, Update
from runtime.host.daemon.takeover import LONGEST_PAUSE_S

TEMPORARY = [
    XenstoreFault("xenstore", got="no answer within 5 s", temporary=True),
    OSError(errno.EMFILE, "Too many open files"),
    HypervisorFault("map_grant", got="ENOMEM"),
]


def by_name(manager: Manager) -> dict[str, Any]:
    return {zone.name: zone for zone in manager.list_zones()}


async def until_ready(manager: Manager, *names: str) -> None:
    for name in names:
        await manager.wait(name, "ready", 120)


def fails_for(name: str, work: Any, faults: list[Exception]) -> Any:
    """What Edge.adopt does, which fails for one zone as long as there are faults."""

    def adopt(edge: edge.Edge, records: Any) -> Any:
        if records[0]["name"] == name and faults:
            raise faults.pop(0) if len(faults) > 1 else faults[0]
        return work(edge, records)

    return adopt


async def taken_over(manager: Manager, name: str) -> None:
    while not by_name(manager)[name].agent:
        await asyncio.sleep(0.01)


def test_agents_channel_that_cannot_be_opened_as_a_zone_is_taken_over_is_opened_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", until_ready=True))
        await host.kill()
        faults, open_link = list(TEMPORARY), host._open_link

        async def fails(*arguments: Any) -> Any:
            if faults:
                raise faults.pop()
            return await open_link(*arguments)

        host.clock = FakeClock()
        monkeypatch.setattr(host, "_open_link", fails)
        manager = await host.start()
        await until_ready(manager, "web")
        assert not by_name(manager)["web"].agent
        while not by_name(manager)["web"].agent:
            host.clock.pass_time(LONGEST_PAUSE_S)
            await asyncio.sleep(0.001)
        assert faults == []
        host.guest("web").write(b"heard\n")
        while b"".join([output.data async for output in manager.logs("web")]) != b"heard\n":
            await asyncio.sleep(0.001)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("fault", TEMPORARY, ids=lambda fault: type(fault).__name__)
def test_zone_whose_adoption_fails_for_a_while_is_listed_and_runs_on(
    host: Host, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        for name in ("one", "two", "three"):
            await manager.boot(host.request(name, until_ready=True))
        before, faults = by_name(manager), [fault, fault]
        await host.kill()
        calls = len(host.xen.calls)
        monkeypatch.setattr(edge.Edge, "adopt", fails_for("two", edge.Edge.adopt, faults))
        manager = await host.start()
        await until_ready(manager, "one", "three")
        listed = by_name(manager)["two"]
        assert (listed.state, listed.domain_uuid, listed.agent) == (State.READY, before["two"].domain_uuid, False)
        with pytest.raises(WrongState, match="taken over from the zoned before, got it is not yet"):
            await manager.update("two", Update(vcpus=1))
        await host.kill()  # one that is not taken over outlives its zoned, too

        manager = await host.start()
        await asyncio.sleep(0.3)
        assert by_name(manager)["two"].state is State.READY
        faults.clear()
        await taken_over(manager, "two")
        after = by_name(manager)
        assert {name: (zone.domid, zone.domain_uuid, zone.ports, zone.restarts) for name, zone in after.items()} == {
            name: (zone.domid, zone.domain_uuid, zone.ports, 0) for name, zone in before.items()
        }
        assert not [call for call in host.xen.calls[calls:] if "pause" in call or "destroy" in call]
        host.guests[after["two"].domain_uuid].exit("code 5")
        assert (await manager.wait("two")).exit.code == 5  # type: ignore[union-attr]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_whose_log_cannot_be_read_for_a_while_runs_on_and_its_output_waits(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover, faults = LogWriter._recover, TEMPORARY[1:2]

    def fails(writer: LogWriter) -> None:
        if faults:
            raise faults[0]
        recover(writer)

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        host.guest().write(b"before\n")
        await host.kill()
        monkeypatch.setattr(LogWriter, "_recover", fails)
        monkeypatch.setattr(agentwatch, "_REFUSED_AGAIN_S", 0.01)
        manager = await host.start()
        await until_ready(manager, "web")
        host.guest().write(b"after\n")
        while not (zone := by_name(manager)["web"]).agent:
            assert zone.state is State.READY
            await asyncio.sleep(0.01)
        faults.clear()
        host.guest().exit("code 5")
        assert (await manager.wait("web")).exit.code == 5  # type: ignore[union-attr]
        assert b"".join([entry.data async for entry in manager.logs("web")]) == b"before\nafter\n"
        await host.stop()

    run(work())


@pytest.mark.parametrize("ends", [False, True], ids=["is taken over", "ends"])
def test_shared_network_keeps_what_it_has_of_a_zone_that_is_not_taken_over_yet(
    host: Host, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    async def work() -> None:
        manager = await host.start()
        for name in ("one", "two"):
            await manager.boot(host.request(name, network="lan", until_ready=True))
        await host.kill()
        faults = TEMPORARY[:1]
        monkeypatch.setattr(edge.Edge, "adopt", fails_for("two", edge.Edge.adopt, faults))
        manager = await host.start()
        await until_ready(manager, "one")
        host.did.clear()
        boot = asyncio.ensure_future(manager.boot(host.request("three", network="lan", until_ready=True)))
        while not by_name(manager).get("three"):
            await asyncio.sleep(0)
        if ends:
            host.guests[by_name(manager)["two"].domain_uuid].exit("code 3")
            await manager.wait("two", "exited", 120)
        else:
            faults.clear()
            await taken_over(manager, "two")
        await boot
        first = [] if ends else ["two: network adopted", "@lan: rules renewed"]
        seen = [what for what in host.did if what.startswith("@lan") or "network adopted" in what or "serves" in what]
        assert seen == [*first, "@lan: others forgotten", "three: serves"], "rules without two's would cut it off"
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_boot_into_a_network_whose_zone_cannot_be_taken_over_says_so_in_the_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        for name in ("one", "two"):
            await manager.boot(host.request(name, network="lan", until_ready=True))
        await host.kill()
        faults = TEMPORARY[:1]
        monkeypatch.setattr(edge.Edge, "adopt", fails_for("two", edge.Edge.adopt, faults))
        manager = await host.start()
        await until_ready(manager, "one")
        boot = asyncio.ensure_future(manager.boot(host.request("three", network="lan", until_ready=True)))
        while not clock.waited_for(sharednets.TAKEN_OVER_S):
            await asyncio.sleep(0)
        clock.pass_time(sharednets.TAKEN_OVER_S)
        with pytest.raises(WrongState, match=r"network lan: expected its zones to be taken over .*got not yet two"):
            await boot
        faults.clear()
        await host.stop()

    run(work())


@pytest.mark.parametrize("fault", TEMPORARY, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("times", [1, 0], ids=["once", "for a while"])
def test_shared_network_that_is_not_taken_over_at_once_costs_no_zone(
    host: Host, fault: Exception, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults, adopt_segment = [fault], FakeSegment.adopt

    def adopt(segment: FakeSegment, records: Any) -> bool:
        if faults:
            raise faults.pop() if times else faults[0]
        return adopt_segment(segment, records)

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("alone", until_ready=True))
        for name in ("one", "two"):
            await manager.boot(host.request(name, network="lan", until_ready=True))
        before = by_name(manager)
        await host.kill()
        monkeypatch.setattr(FakeSegment, "adopt", adopt)
        monkeypatch.setattr(sharednets, "TAKEN_OVER_S", 0.01)
        host.did.clear()
        manager = await host.start()
        await until_ready(manager, "alone")
        if faults:
            listed = by_name(manager)
            assert [(zone.state.up, zone.agent) for zone in (listed["one"], listed["two"])] == [(True, False)] * 2
            with pytest.raises((RuntimeFault, OSError)):
                await manager.boot(host.request("three", network="lan"))
            assert list(host.segments) == ["lan"], "zones are in it"
            faults.clear()
        for name in ("one", "two"):
            await taken_over(manager, name)
        await manager.boot(host.request("three", network="lan", until_ready=True))
        assert host.did.count("@lan: adopted") == 1 and "@lan: made" not in host.did
        assert {name: zone.domain_uuid for name, zone in by_name(manager).items() if name in before} == {
            name: zone.domain_uuid for name, zone in before.items()
        }
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("what", ["stop", "end"])
def test_zone_that_is_not_taken_over_ends(host: Host, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        await host.kill()
        monkeypatch.setattr(edge.Edge, "adopt", fails_for("web", edge.Edge.adopt, TEMPORARY[:1]))
        manager = await host.start()
        if what == "stop":
            zone = await manager.stop("web", 0.4)
        else:
            guest.exit("code 3")
            zone = await manager.wait("web", "exited", 120)
        assert zone.state is State.EXITED and zone.exit is not None
        assert zone.exit.code == (137 if what == "stop" else 3)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_stop_of_a_zone_that_is_taken_over_meanwhile_is_its_inits(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await host.kill()
        faults = list(TEMPORARY)
        monkeypatch.setattr(edge.Edge, "adopt", fails_for("web", edge.Edge.adopt, faults))
        manager = await host.start()
        stop = asyncio.create_task(manager.stop("web", 30))
        await asyncio.sleep(0)
        faults.clear()
        assert (await stop).exit.code == 143  # type: ignore[union-attr]
        assert host.leftovers() == []
        await host.stop()

    run(work())
