"""Whole lives of zones on a simulated host."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.fakeguest import CRASH, Guest

from pipeline.bundle.model import Process
from runtime.errors import RuntimeFault
from runtime.host.daemon import agentwatch, edge, life
from runtime.host.daemon.database import Database
from runtime.host.daemon.errors import (
    BadRequest,
    NameTaken,
    UnknownZone,
    WaitTimeout,
    WrongState,
    ZoneFailed,
)
from runtime.host.daemon.model import BootRequest, PortRule, RestartPolicy, State, Update
from runtime.net.errors import AddressTaken


def test_zone_boots_runs_and_stops(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        stages: list[str] = []
        zone = await manager.boot(host.request(until_ready=True), lambda progress: stages.append(progress.stage))
        assert zone.state is State.READY and zone.domid in host.xen.domains and zone.agent
        assert {"queued", "plan", "network", "build", "wire", "running", "workload", "ready"} <= set(stages)
        assert stages.index("plan") < stages.index("build") < stages.index("wire") < stages.index("running")
        assert host.did.index("web: network made") < host.did.index(f"web: attached vif{zone.domid}.0")
        assert zone.zone_timings == {"init": 0.1, "workload": 0.2}
        stopped = await manager.stop("web")
        assert stopped.state is State.EXITED and stopped.exit is not None
        assert (stopped.exit.code, stopped.exit.text) == (143, "killed by SIGTERM")
        assert [other.name for other in manager.list_zones()] == ["web"] and not manager.list_zones(all=False)
        assert host.leftovers() == []
        await manager.remove("web")
        assert manager.list_zones() == []
        await host.stop()

    run(work())


def test_zone_that_is_ready_is_looked_at_seldom(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        async with asyncio.timeout(120):
            while not clock.waited_for(agentwatch._LOOK_SELDOM_S):
                await asyncio.sleep(0.001)
        await host.stop(end_zones=True)

    run(work())


def test_watch_of_a_zone_that_ends_while_it_is_begun_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_state, made = edge.Edge.watch_state, []
    begun, goes_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        goes_on.wait(120)
        made.append(watch_state(*arguments))
        return made[-1]

    async def work() -> None:
        manager = await host.start()
        monkeypatch.setattr(edge.Edge, "watch_state", slow)
        await manager.boot(host.request())
        await asyncio.to_thread(begun.wait, 120)
        followers = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "_guarded"]
        stop = asyncio.create_task(manager.stop("web", 0.0))
        while not all(task.cancelling() for task in followers):
            await asyncio.sleep(0)
        goes_on.set()
        await stop
        assert [watch._closed for watch in made] == [True]
        await host.stop()

    run(work())


def test_image_and_kernel_are_what_a_person_wrote_or_their_digests(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        plain = host.request("plain")
        bundle = dataclasses.replace(host.request().bundle, image="recipe:nginx", kernel_image="recipe:debian-cloud")
        named = await manager.boot(BootRequest(bundle))
        assert (named.image, named.kernel) == ("recipe:nginx", "recipe:debian-cloud")
        nameless = await manager.boot(plain)
        parts = plain.bundle
        assert (nameless.image, nameless.kernel) == (str(parts.rootfs.digest), str(parts.kernel.digest))
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        (lambda guest: guest.exit("code 3"), 3, "exit code 3"),
        (lambda guest: guest.exit("signal 11"), 139, "killed by SIGSEGV"),
        (lambda guest: guest.exit("", reason=CRASH, tell=False), 255, "the zone's kernel ended: crash"),
        (lambda guest: guest.exit("failed command-127 /nope: not found", tell=True), 127, "/nope: not found"),
        (lambda guest: guest.die(), 255, "its domain ended (poweroff) without a word of its workload"),
    ],
    ids=["code", "signal", "crash", "failed", "silent"],
)
@pytest.mark.parametrize("agent", [True, False], ids=["agent", "xenstore"])
def test_end_is_told_apart(host: Host, how: Any, code: int, text: str, agent: bool) -> None:
    async def work() -> None:
        host.has_agents = agent
        manager = await host.start()
        await manager.boot(host.request())
        how(host.guest())
        zone = await manager.wait("web")
        assert zone.exit is not None and (zone.exit.code, zone.exit.text) == (code, text)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_boot_that_failed_is_told_by_the_agents_channel_alone(host: Host) -> None:
    async def work() -> None:
        guest = Guest()
        guest.silent, guest.outcome = True, "failed root root device xvda did not appear within 30 s"
        host.make_guest = lambda: guest
        manager = await host.start()
        await manager.boot(host.request())
        (zone,) = manager.core.zones.values()
        async with asyncio.timeout(120):
            while zone.run is not None and zone.run.told is None:
                await asyncio.sleep(0.01)
        guest.die()
        ended = await manager.wait("web")
        assert ended.exit is not None and (ended.exit.reason, ended.exit.code) == ("root", 125)
        assert ended.exit.text == "root device xvda did not appear within 30 s"
        await host.stop()

    run(work())


def test_oom_is_seen_in_the_exit(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        guest.note("oom", container="main", kills=1)
        guest.note("exit", container="main", signal=9, oom=True)
        guest.die()
        zone = await manager.wait("web")
        assert zone.exit is not None and zone.exit.oom and "out of memory" in zone.exit.text
        kinds = [event.kind async for event in manager.events(from_start=True, follow=False)]
        assert "zone.oom" in kinds
        await host.stop()

    run(work())


def test_what_its_agent_told_before_it_ended_is_known_however_slow_the_disk_is(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, written = Database._commit, threading.Event()

    def slow(database: Database, statements: Any) -> None:
        assert "zone.oom" not in str(statements) or written.wait(120)
        commit(database, statements)

    async def work() -> None:
        monkeypatch.setattr(Database, "_commit", slow)
        monkeypatch.setattr(life, "DRAIN_S", 0.01)
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        (zone,) = manager.core.zones.values()
        ended = zone.run
        assert ended is not None
        guest = host.guest()
        guest.note("oom", container="main", kills=1)
        guest.note("exit", container="main", code=3)
        guest.die()
        while not ended.reason:
            await asyncio.sleep(0)
        for _ in range(100):
            if ended.uuid in manager.core.ending:
                break
            await asyncio.sleep(0.002)
        written.set()
        assert (await manager.wait("web")).exit.code == 3  # type: ignore[union-attr]
        await host.stop()

    run(work())


@pytest.mark.parametrize(
    "name", ["../etc", "", "a b", "-x", "x" * 255, "žóna", "a\nb", "Domain-0", "domain-0", "a/b", "x" * 64]
)
def test_names_that_are_no_names_are_refused(host: Host, name: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match="zone"):
            await manager.boot(host.request(name))
        assert not host.steps or "commit" not in host.steps[-1] or not manager.list_zones()
        await host.stop()

    run(work())


def test_name_of_a_live_zone_is_taken_and_that_of_an_ended_one_free(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        first = await manager.boot(host.request())
        with pytest.raises(NameTaken, match=r"zone web: .*got one that is"):
            await manager.boot(host.request())
        host.guest().exit()
        await manager.wait("web")
        second = await manager.boot(host.request())
        assert second.id != first.id and len(manager.list_zones()) == 1
        await host.stop(end_zones=True)

    run(work())


def test_many_boots_of_one_name_make_one_zone(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        results = await asyncio.gather(*(manager.boot(host.request()) for _ in range(8)), return_exceptions=True)
        assert [type(result) for result in results].count(NameTaken) == 7
        assert len([domid for domid in host.xen.domains if domid]) == 1
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_references_are_names_ids_and_their_starts(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request("webserver"))
        for ref in ("webserver", zone.id, zone.id[:8]):
            assert (await manager.get(ref)).id == zone.id
        with pytest.raises(UnknownZone, match=r"zone websever: .*did you mean webserver\?"):
            await manager.get("websever")
        with pytest.raises(UnknownZone):
            await manager.get(zone.id[:2])
        await host.stop(end_zones=True)

    run(work())


def test_failed_network_takes_the_domain_down_and_says_why(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.network_fails = RuntimeFault("network", got="no")
        with pytest.raises(RuntimeFault, match="network: no"):
            await manager.boot(host.request())
        assert host.leftovers() == []
        (zone,) = manager.list_zones()
        assert zone.state is State.FAILED and zone.exit is not None and zone.exit.text == "network: no"
        host.network_fails = None
        assert (await manager.boot(host.request())).state.up
        await host.stop(end_zones=True)

    run(work())


def test_boot_until_ready_fails_with_the_zones_last_words(host: Host) -> None:
    class Dying(Guest):
        def started(self) -> None:
            self.exit("failed command-127 /serve: no such file")

    async def work() -> None:
        host.make_guest = Dying
        manager = await host.start()
        with pytest.raises(ZoneFailed, match="/serve: no such file"):
            await manager.boot(host.request(until_ready=True, restart=RestartPolicy("always")))
        (zone,) = manager.list_zones()
        assert zone.state is State.FAILED and zone.exit is not None and zone.exit.code == 127
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_zone_that_does_not_stop_is_ended_by_force(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(process=Process(("/x",), (), stop_timeout_s=600)))
        host.guest().stops_when_asked = False
        slow = asyncio.create_task(manager.stop("web"))
        while manager.list_zones()[0].state is not State.STOPPING:
            await asyncio.sleep(0.01)
        zone = await manager.stop("web", 0)  # somebody lost patience
        assert zone.exit is not None and zone.exit.code == 137
        assert (await slow).state is State.EXITED
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_kill_goes_to_the_workload_and_zero_to_the_domain(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.kill("web", 10)
        assert ("kill", {"id": "main", "signal": 10, "all": False}) in host.guest().calls
        zone = await manager.kill("web", 0)
        assert zone.state is State.EXITED and zone.exit is not None and zone.exit.code == 137
        with pytest.raises(WrongState, match="it is exited"):
            await manager.kill("web", 9)
        await host.stop()

    run(work())


def test_remove_flag_forgets_the_zone_with_its_logs(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True, remove=True))
        waiting = asyncio.create_task(manager.wait("web"))
        await asyncio.sleep(0)
        host.guest().exit("code 7")
        ended = await waiting
        assert ended.exit is not None and ended.exit.code == 7
        while manager.list_zones() or (host.path / "state" / "logs" / zone.id).exists():
            await asyncio.sleep(0.01)
        await host.stop()

    run(work())


def test_wait_until_ports_answer(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        rule = PortRule(80, address="127.0.0.1")
        zone = await manager.boot(host.request(ports=(rule,), until_ready=True))
        assert zone.ports[0].port > 0
        with pytest.raises(WaitTimeout, match="nothing listens on its port 80"):
            await manager.wait("web", "ports", 0.01)
        host.answering.add(80)
        assert (await manager.wait("web", "ports", 120)).name == "web"
        await host.stop(end_zones=True)

    run(work())


def test_update_of_memory_vcpus_policy_and_ports(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(memory_mib=48, memory_max_mib=96, vcpus_max=2))
        asked: list[object] = []
        host.guest().answers["cpus"] = lambda params: {"n": asked.append(params["online"])}
        change = Update(memory_mib=64, vcpus=2, restart=RestartPolicy("always"), add_ports=(PortRule(80),))
        zone = await manager.update("web", change)
        assert (zone.memory_mib, zone.vcpus, zone.restart.name, len(zone.ports)) == (64, 2, "always", 1)
        assert asked == [2], "the guest's own part, without which a vCPU is only there"
        home = f"/local/domain/{zone.domid}"
        assert host.xenstored.value(f"{home}/memory/target") == str(64 << 10)
        assert host.xenstored.value(f"{home}/cpu/1/availability") == "online"
        with pytest.raises(BadRequest, match="64 to 96, fixed at its start"):
            await manager.update("web", Update(memory_mib=97))
        zone = await manager.update("web", Update(remove_ports=zone.ports))
        assert zone.ports == () and host.networks["web"].listening == []
        await manager.stop("web")
        assert (await manager.update("web", Update(memory_mib=128))).memory_max_mib == 128
        await host.stop()

    run(work())


def test_addresses_are_given_again_after_a_zone_ended(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        first = (await manager.boot(host.request("one"))).addresses
        second = (await manager.boot(host.request("two"))).addresses
        await manager.stop("one")
        third = (await manager.boot(host.request("three"))).addresses
        assert first == third != second
        await host.stop(end_zones=True)

    run(work())


def test_reserved_addresses_stay_with_their_reservation(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        reservation = await manager.create_reservation()
        other = await manager.boot(host.request("other"))
        zone = await manager.boot(host.request("web", reservation=reservation.id))
        assert zone.addresses == (reservation.ipv4, reservation.ipv6) != other.addresses
        with pytest.raises(WrongState, match="zone web has its addresses"):
            await manager.destroy_reservation(reservation.id)
        await host.stop()
        manager = await host.start()
        assert [kept.id for kept in manager.list_reservations()] == [reservation.id]
        await manager.stop("web")
        with pytest.raises(WrongState, match="zone web has its addresses"):
            await manager.destroy_reservation(reservation.id)
        assert (await manager.restart("web")).addresses == zone.addresses
        await manager.remove("web", force=True)
        await manager.destroy_reservation(reservation.id)
        assert manager.list_reservations() == []
        await host.stop(end_zones=True)

    run(work())


def test_reserved_addresses_are_one_zones_at_a_time(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        reservation = await manager.create_reservation()
        for name in ("one", "two"):
            await manager.boot(host.request(name, reservation=reservation.id))
            if name == "one":
                await manager.stop(name)
        with pytest.raises(AddressTaken, match=f"{reservation.id} of zone one: expected it free, got zone two has it"):
            await manager.restart("one")
        assert host.leftovers() and list(host.networks) == ["two"]
        await manager.stop("two")
        assert (await manager.restart("one")).addresses == (reservation.ipv4, reservation.ipv6)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_teardown_that_xen_does_not_let_finish_is_gone_on_with(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr("runtime.host.daemon.ending._RETRY_S", 0.01)
        manager = await host.start()
        zone = await manager.boot(host.request())
        host.teardown_fails = RuntimeFault("domain", got="still dying", temporary=True)
        await manager.stop("web")
        assert manager.list_zones()[0].state is State.EXITED
        again = await manager.boot(host.request("other"))
        assert again.addresses != zone.addresses, "the network of a domain that is still dying was given away"
        host.teardown_fails = None
        while manager.core.unfinished:
            await asyncio.sleep(0.01)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize(
    ("told", "oom", "kept"),
    [
        ("code 0", False, False),
        ("code 3", False, True),
        ("signal 11", False, True),
        ("signal 9", True, True),
        ("failed mount no such device", False, True),
    ],
    ids=["clean", "code", "signal", "out of memory", "failed"],
)
def test_last_console_lines_are_kept_of_every_end_but_a_clean_one(host: Host, told: str, oom: bool, kept: bool) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        (zone,) = manager.core.zones.values()
        assert zone.run is not None
        zone.run.oom = oom
        with open(zone.run.console, "ab") as console:
            console.write(b"[    9.1] the last that was said\r\n")
        host.guest().exit(told)
        ended = await manager.wait("web", "exited", 120)
        assert ended.exit is not None and ended.exit.oom is oom
        assert ended.console_tail[-1:] == (("[    9.1] the last that was said",) if kept else ())
        await host.stop()
        manager = await host.start()
        assert (await manager.get("web")).console_tail == ended.console_tail
        again = await manager.restart("web")
        assert again.console_tail == (), "what runs has not ended with anything yet"
        await host.stop(end_zones=True)

    run(work())
