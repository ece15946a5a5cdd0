"""Networks that zones share: made with the first zone, gone with the last, kept by name; over all deaths of zoned."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from support.daemonworld import Host, Killed, run
from support.hostnetworks import addresses, shared

from pipeline.bundle.model import Bundle, Network
from runtime.errors import RuntimeFault
from runtime.host.daemon import claims, sharednets
from runtime.host.daemon.errors import BadRequest, NameTaken, NotAdoptable, UnknownNetwork, WrongState, ZoneFailed
from runtime.host.daemon.model import RestartPolicy
from runtime.net.errors import EngineFault, NetworkFault


def test_network_is_made_with_its_first_zone_and_goes_with_its_last(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("alone"))
        for name in ("web", "db"):
            await manager.boot(host.request(name, network="back"))
        assert addresses(manager) == {"alone": "10.75.0.2", "web": "10.75.1.2", "db": "10.75.1.3"}
        (network,) = (await shared(manager)).values()
        assert (network.name, network.zones, network.ipv4) == ("back", ("db", "web"), "10.75.1.0/24")
        assert (network.engine, network.counters) == ("splice", {"bytes_out": 2})
        assert [line for line in host.did if line.startswith("@")] == ["@back: made"]
        assert {zone.name: zone.network for zone in manager.list_zones()}["web"] == "back"
        await manager.stop("web")
        assert list(host.segments) == ["back"]
        await manager.stop("db")
        assert host.segments == {} and await shared(manager) == {}
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zones_that_come_at_once_make_one_network(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        names = [f"zone{number}" for number in range(4)]
        await asyncio.gather(*(manager.boot(host.request(name, network="back")) for name in names))
        assert host.did.count("@back: made") == 1
        assert len(set(addresses(manager).values())) == 4
        await asyncio.gather(*(manager.stop(name) for name in names))
        assert host.did.count("@back: gone") == 1
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_bundle_names_the_network_and_the_request_another(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        wish = Network(name="back", isolated=True)
        await manager.boot(host.request("web", bundle_network=wish))
        await manager.boot(host.request("db", bundle_network=wish, network="front"))
        await manager.boot(host.request("tool", network="front"))
        assert {name: info.zones for name, info in (await shared(manager)).items()} == {
            "back": ("web",),
            "front": ("db", "tool"),
        }
        assert {name: network.isolated for name, network in host.networks.items()} == {
            "web": True, "db": True, "tool": False,
        }  # fmt: skip
        await host.stop(end_zones=True)

    run(work())


def test_network_that_was_created_stays_until_it_is_removed(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        made = await manager.create_network("back", 1500)
        assert (made.name, made.ipv4, made.zones, made.engine) == ("back", "10.75.0.0/24", (), "")
        assert host.segments == {}, "nobody is in it"
        with pytest.raises(NameTaken, match="network back"):
            await manager.create_network("back", 1500)
        await manager.boot(host.request("web", network="back"))
        with pytest.raises(WrongState, match="expected no zone in it, got web"):
            await manager.remove_network("back")
        await manager.stop("web")
        await host.stop()
        manager = await host.start()
        assert list(await shared(manager)) == ["back"]
        await manager.boot(host.request("alone"))
        assert addresses(manager)["alone"] == "10.75.1.2", "its addresses are kept"
        await manager.remove_network("back")
        with pytest.raises(UnknownNetwork, match="network back"):
            await manager.remove_network("back")
        await host.stop(end_zones=True)
        manager = await host.start()
        assert await shared(manager) == {}
        await host.stop()

    run(work())


def test_created_network_outlives_a_reboot(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.create_network("back", 1500)
        await manager.boot(host.request("web", network="back"))
        await manager.boot(host.request("db", network="passing"))
        await host.kill()
        host.reboot()
        manager = await host.start()
        assert list(await shared(manager)) == ["back"]
        assert host.leftovers() == []
        await manager.boot(host.request("tool", network="passing"))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_name_that_differs_in_case_only_from_one_in_the_network_is_refused_first(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("db", network="back"))
        made = list(host.did)
        expected = "a name that no zone in it has in any case of letters"
        sentence = f"zone DB in network back: expected {expected}, got that of zone db"
        with pytest.raises(NameTaken, match=f"^{sentence}$"):
            await manager.boot(host.request("DB", network="back"))
        assert host.did == made
        await host.kill()
        manager = await host.start()
        with pytest.raises(NameTaken, match=sentence):
            await manager.boot(host.request("DB", network="back"))
        await manager.boot(host.request("Db"))  # alone, where nobody asks for it
        await manager.stop("db")
        await manager.boot(host.request("DB", network="back"))
        with pytest.raises(NameTaken, match="got that of zone DB"):
            await manager.restart("db")
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_of_two_names_that_differ_in_case_only_and_come_at_once_one_is_in_the_network(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        boots = (manager.boot(host.request(name, network="back")) for name in ("db", "DB"))
        results = await asyncio.gather(*boots, return_exceptions=True)
        assert len([result for result in results if isinstance(result, NameTaken)]) == 1
        assert len((await shared(manager))["back"].zones) == 1
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 64, "@x"])
def test_name_that_is_none_is_refused(host: Host, name: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match="expected a name of letters"):
            await manager.create_network(name, 1500)
        await host.stop()

    run(work())


def test_zone_that_does_not_fit_the_network_is_refused_and_leaves_nothing(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(RuntimeFault, match="an MTU from 1280 to 65000"):
            await manager.create_network("back", 100)
        await manager.create_network("back", 9000)
        with pytest.raises(RuntimeFault, match="zone web in network back: expected its MTU, 9000, got 1500"):
            await manager.boot(host.request("web", network="back"))
        reserved = (await manager.create_reservation()).id
        with pytest.raises(RuntimeFault, match="expected a reservation or a shared network, got both"):
            await manager.boot(host.request("db", network="other", reservation=reserved))
        with pytest.raises(RuntimeFault, match="expected a shared network to be isolated in, got a private one"):
            await manager.boot(host.request("tool", isolated=True))
        assert (await shared(manager)).keys() == {"back"}
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_zone_whose_network_cannot_be_made_fails_with_why_and_the_next_may_succeed(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.segment_fails = NetworkFault("network of network back", expected="it made", got="no memory")
        with pytest.raises((ZoneFailed, NetworkFault), match="no memory"):
            await manager.boot(host.request("web", network="back"))
        assert await shared(manager) == {}
        assert host.leftovers() == []
        host.segment_fails = None
        await manager.boot(host.request("web", network="back"))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "not wanted"])
def test_network_that_could_not_be_taken_down_is_known_until_it_is_gone(
    host: Host, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wanted: before anybody has looked at it again."""

    async def work() -> None:
        if not wanted:
            monkeypatch.setattr("runtime.host.daemon.ending._RETRY_S", 0.01)
        manager = await host.start()
        await manager.boot(host.request("web", network="back"))
        host.segment_stays = RuntimeFault("process 77", expected="it to end when killed", got="it still runs")
        await manager.stop("web")
        assert list(await shared(manager)) == ["back"]
        await manager.boot(host.request("alone"))
        assert addresses(manager) == {"alone": "10.75.1.2"}, "its addresses are still used"
        host.segment_stays = None
        if wanted:
            await manager.boot(host.request("db", network="back"))
            assert addresses(manager)["db"] == "10.75.0.2"
        while not wanted and await shared(manager):
            await asyncio.sleep(0.01)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_network_of_which_only_runs_that_cannot_be_ended_are_left_goes_before_they_do(host: Host) -> None:
    """Its engine may be why: one that does not answer lets go of no zone."""

    async def work() -> None:
        manager = await host.start()
        for name in ("web", "db"):
            await manager.boot(host.request(name, network="back"))
        host.teardown_fails = EngineFault("network engine", got="timed out")
        await manager.stop("web")
        await sharednets.reap(manager.core)
        assert "back" in host.segments, "another zone is in it"
        await manager.stop("db")
        await sharednets.reap(manager.core)
        assert "back" not in host.segments and list(await shared(manager)) == ["back"]
        host.teardown_fails = None
        await manager.boot(host.request("late", network="back"))
        assert addresses(manager) == {"late": "10.75.0.4"}, "those of the others are not given back yet"
        await host.stop(end_zones=True)
        await host.start()
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_restarted_zone_comes_again_in_its_network(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        for name in ("web", "db"):
            await manager.boot(host.request(name, network="back", until_ready=True, restart=RestartPolicy("always")))
        host.guest("web").exit("code 1")
        await manager.wait("web", "running", 120)
        while (await manager.get("web")).restarts < 1 or not (await manager.get("web")).addresses:
            await asyncio.sleep(0.01)
        assert sorted(addresses(manager).values()) == ["10.75.0.2", "10.75.0.3"]
        assert host.did.count("@back: made") == 1
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("how", ["end", "kill"])
def test_next_zoned_adopts_a_network_and_the_zones_in_it(host: Host, how: str) -> None:
    async def work() -> None:
        manager = await host.start()
        for name in ("web", "db", "gone"):
            await manager.boot(host.request(name, network="back", until_ready=True))
        before = addresses(manager)
        gone = host.guest("gone")
        await (host.stop() if how == "end" else host.kill())
        gone.exit("code 0")
        host.did.clear()
        manager = await host.start()
        said = [line for line in host.did if line.startswith("@")]
        assert said == ["@back: adopted", "@back: others forgotten"]
        after = addresses(manager)
        assert {name: after[name] for name in ("web", "db")} == {name: before[name] for name in ("web", "db")}
        assert (await shared(manager))["back"].zones == ("db", "web")
        await manager.boot(host.request("tool", network="back"))
        assert addresses(manager)["tool"] == before["gone"], "what was the other one's is free"
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_that_cannot_be_adopted_leaves_its_place_in_a_network_of_several(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = claims.again

    def failing(bundle: Bundle, records: Any) -> Any:
        if bundle.name == "web":
            raise NotAdoptable("zone web", got="a ledger that says otherwise")
        return again(bundle, records)

    async def work() -> None:
        manager = await host.start()
        for name in ("web", "db"):
            await manager.boot(host.request(name, network="back", until_ready=True))
        before = addresses(manager)
        await host.kill()
        monkeypatch.setattr(claims, "again", failing)
        manager = await host.start()
        ended = await manager.wait("web")
        assert ended.exit is not None and "says otherwise" in ended.exit.text
        assert (await shared(manager))["back"].zones == ("db",)
        segment = manager.core.networks["back"].segment
        assert segment is not None and set(segment.zones) == {"db"}
        await manager.boot(host.request("tool", network="back"))
        assert addresses(manager)["tool"] == before["web"]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_network_whose_zones_all_ended_while_nobody_looked_is_taken_down(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", network="back", until_ready=True))
        guest = host.guest("web")
        await host.kill()
        guest.exit("code 0")
        manager = await host.start()
        assert await shared(manager) == {} and host.leftovers() == []
        await host.stop()

    run(work())


@pytest.mark.parametrize("database", ["whole", "lost"])
def test_zone_whose_networks_ledger_is_lost_is_ended(host: Host, database: str) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", network="back", until_ready=True))
        await host.kill()
        for path in (host.path / "run" / "networks").glob("*"):
            path.unlink()
        for path in (host.path / "state").glob("zones.sqlite*") if database == "lost" else ():
            path.unlink()
        host.segments.clear()
        manager = await host.start()
        zone = await manager.wait("web")
        assert zone.exit is not None and "expected its network back up, got it is not" in zone.exit.text
        assert host.leftovers() == []
        await host.stop()

    run(work())


async def scenario(host: Host, done: list[str]) -> None:
    """Two zones come and go in one network."""
    manager = await host.start()
    for name in ("web", "db"):
        await manager.boot(host.request(name, network="back"))
        done.append(f"{name} booted")
    for name in ("web", "db"):
        await manager.stop(name, 0)
        done.append(f"{name} stopped")


async def killed_at(host: Host, number: int) -> None:
    done: list[str] = []
    host.kill_at = number
    work = asyncio.create_task(scenario(host, done))
    while not work.done() and not host.killed.is_set():
        await asyncio.sleep(0.002)
    if not host.killed.is_set():
        await work
        host.kill_at = 0
        await host.stop(end_zones=True)
        return
    where = f"killed at step {number} ({host.steps[-1]}), after {done}"
    await host.kill()
    with contextlib.suppress(Killed, asyncio.CancelledError, Exception):
        await work
    manager = await host.start()
    for zone in list(manager.core.zones.values()):
        if not zone.wanted:  # its stop goes on
            await manager.wait(zone.id, "exited", 120)
    live = {zone.name for zone in manager.list_zones() if zone.state.up}
    if "db booted" in done and "web stopped" not in done:
        assert "db" in live, where
    networks = await shared(manager)
    assert {name for network in networks.values() for name in network.zones} == live, where
    assert set(host.segments) == set(networks) == ({"back"} if live else set()), where
    for name in ("web", "db"):  # each name can be used, and what is there ended
        if name in live:
            await manager.stop(name, 0)
        await manager.boot(host.request(name, network="back"))
    assert len(set(addresses(manager).values())) == 2, where
    await host.stop(end_zones=True)
    assert host.leftovers() == [], where


STEPS = 96


def test_kill_points_are_all_of_them(host: Host) -> None:
    """The parametrization below covers the whole scenario."""

    async def work() -> int:
        await scenario(host, [])
        await host.stop()
        return len(host.steps)

    assert 20 < run(work()) <= STEPS


@pytest.mark.parametrize("first", range(1, STEPS, 8))
def test_kill_at_a_step_leaves_no_network_without_zones(
    first: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(first, first + 8, 2):  # every other one: the rest are what any zone's life has
        with monkeypatch.context() as patches:
            host = Host(tmp_path_factory.mktemp("host"), patches)
            try:
                run(killed_at(host, number))
            finally:
                host.close()
