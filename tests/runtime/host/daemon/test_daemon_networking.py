"""What a zone may do with its network: refused before anything is made, changed while it runs, kept by zoned."""

from __future__ import annotations

from typing import Any

import pytest
from support.daemonworld import Host, run

from pipeline.bundle.model import Network
from runtime.errors import RuntimeFault
from runtime.host.daemon import edge
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import PortRule, State, Update
from runtime.net.errors import EngineFault

RULES = ("allow 192.0.2.0/24 443", "deny any")


async def egress_of(manager: Manager) -> tuple[str, ...]:
    return (await manager.get("web")).egress


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"egress": ("deny everything",)}, "zone web, egress rule: expected any, an address, or a network"),
        ({"egress": ("allow 10.75.3.2",)}, "expected what a rule can open, not another zone network addresses"),
        ({"egress": ("deny any",) * 257}, "egress rules: expected 256 at most, got 257"),
        ({"bandwidth_bit_s": 63_999}, "zone web, bandwidth: expected 64kbit to 100gbit, got 63999 bit/s"),
        ({"bandwidth_bit_s": -1}, "zone web, bandwidth: expected 64kbit to 100gbit"),
    ],
)
def test_what_makes_no_sense_is_refused_before_there_is_a_zone(host: Host, wanted: dict[str, Any], said: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match=said):
            await manager.boot(host.request(bundle_network=Network(**wanted)))
        assert manager.list_zones() == []
        await manager.boot(host.request())
        with pytest.raises(BadRequest, match=said):
            await manager.update("web", Update(**wanted))
        network = host.networks["web"]
        assert (network.egress, network.bandwidth_bit_s) == (await egress_of(manager), 0) == ((), 0)
        await host.stop(end_zones=True)

    run(work())


def test_rules_reach_the_network_and_change_while_the_zone_runs(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(bundle_network=Network(egress=RULES)))
        assert host.networks["web"].egress == await egress_of(manager) == RULES
        await manager.update("web", Update(vcpus=1))
        assert host.networks["web"].egress == RULES
        await manager.update("web", Update(egress=("deny any",)))
        assert host.networks["web"].egress == await egress_of(manager) == ("deny any",)
        await manager.restart("web")
        assert host.networks["web"].egress == ("deny any",), "a change is for the zone, not for one run of it"
        await manager.stop("web")
        assert (await manager.update("web", Update(egress=()))).egress == ()
        await manager.restart("web")
        assert host.networks["web"].egress == ()
        await host.stop(end_zones=True)

    run(work())


def test_rules_an_engine_did_not_take_are_not_the_zones(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(bundle_network=Network(egress=RULES)))
        host.engine_fails = RuntimeFault("engine", got="no answer", temporary=True)
        with pytest.raises(RuntimeFault, match="no answer"):
            await manager.update("web", Update(egress=()))
        assert await egress_of(manager) == RULES
        host.engine_fails = None
        await host.stop(end_zones=True)

    run(work())


def test_engine_that_dies_as_its_zone_boots_is_replaced(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        manager = await host.start()
        host.engine_deaths = 1
        zone = await manager.boot(host.request(until_ready=True))
        assert zone.state is State.READY and "web: has another engine" in host.did
        assert "it ended: killed; another takes its place" in caplog.text
        await host.stop(end_zones=True)

    run(work())


def test_boot_of_a_zone_whose_next_engine_dies_too_fails_with_what_it_said(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.engine_deaths = 3
        with pytest.raises(RuntimeFault, match="network engine: expected an answer, got it ended: killed"):
            await manager.boot(host.request())
        assert host.engine_deaths == 0 and host.leftovers() == []
        await manager.restart("web")
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("database", ["kept", "lost"])
def test_rules_outlive_a_zoned_that_is_killed(host: Host, database: str) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.update("web", Update(egress=("deny any",)))
        await manager.update("web", Update(egress=RULES))
        await host.kill()
        if database == "lost":
            for path in (host.path / "state").glob("zones.sqlite*"):
                path.unlink()
        manager = await host.start()
        assert host.networks["web"].egress == await egress_of(manager) == RULES
        await manager.restart("web")
        assert host.networks["web"].egress == RULES
        await host.stop(end_zones=True)

    run(work())


def test_bandwidth_reaches_the_network_changes_while_the_zone_runs_and_is_kept(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True, bundle_network=Network(bandwidth_bit_s=64_000)))
        assert host.networks["web"].bandwidth_bit_s == (await manager.get("web")).bandwidth_bit_s == 64_000
        await manager.update("web", Update(bandwidth_bit_s=1_000_000))
        await host.kill()
        manager = await host.start()
        assert host.networks["web"].bandwidth_bit_s == (await manager.get("web")).bandwidth_bit_s == 1_000_000
        await manager.update("web", Update(bandwidth_bit_s=0))
        assert host.networks["web"].bandwidth_bit_s == 0
        await host.stop(end_zones=True)

    run(work())


def test_update_is_made_as_a_whole_or_not_at_all(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(bundle_network=Network(egress=RULES, bandwidth_bit_s=64_000)))
        host.limit_fails = RuntimeFault("network of zone web, bandwidth", got="no sch_tbf")
        with pytest.raises(RuntimeFault, match="no sch_tbf"):
            await manager.update("web", Update(egress=(), bandwidth_bit_s=128_000))
        zone, network = await manager.get("web"), host.networks["web"]
        assert (zone.egress, zone.bandwidth_bit_s) == (network.egress, network.bandwidth_bit_s) == (RULES, 64_000)
        await host.stop(end_zones=True)

    run(work())


def test_zones_of_one_network_have_each_their_own_over_updates_and_zoneds(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        wanted = {
            "web": Network(name="back", egress=RULES, bandwidth_bit_s=64_000),
            "db": Network(name="back", isolated=True),
        }
        for name, network in wanted.items():
            await manager.boot(host.request(name, until_ready=True, bundle_network=network))

        def own() -> dict[str, tuple[tuple[str, ...], int, bool]]:
            assert [each.segment.name for each in host.networks.values() if each.segment] == ["back", "back"]
            return {name: (each.egress, each.bandwidth_bit_s, each.isolated) for name, each in host.networks.items()}

        assert own() == {"web": (RULES, 64_000, False), "db": ((), 0, True)}
        await manager.update("db", Update(egress=("deny any",), bandwidth_bit_s=1_000_000))
        assert own() == {"web": (RULES, 64_000, False), "db": (("deny any",), 1_000_000, True)}
        await host.kill()
        manager = await host.start()
        assert own() == {"web": (RULES, 64_000, False), "db": (("deny any",), 1_000_000, True)}
        assert {zone.name: zone.network for zone in manager.list_zones()} == {"web": "back", "db": "back"}
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


PASTA = Network(engine="pasta")


class Known:
    """Engines of a host that has what they need, or has not."""

    def __init__(self, name: str, fault: RuntimeFault | None = None) -> None:
        self.name, self._fault = name, fault

    def look(self) -> None:
        if self._fault is not None:
            raise self._fault


@pytest.fixture
def with_pasta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "engine_named", Known)


def test_engine_that_this_host_has_not_is_told_before_there_is_a_zone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = EngineFault("network engine pasta", expected="version 2025_05_03 or later", got="2023_03_09")
    monkeypatch.setattr(edge, "engine_named", lambda name: Known(name, lacking))

    async def work() -> None:
        manager = await host.start()
        with pytest.raises(EngineFault, match="expected version 2025_05_03 or later, got 2023_03_09"):
            await manager.boot(host.request(bundle_network=PASTA))
        assert manager.list_zones() == []
        await manager.boot(host.request("other"))  # splice is not looked for
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.usefixtures("with_pasta")
def test_engine_reaches_the_network_is_told_and_is_kept_over_another_zoned(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(bundle_network=PASTA))
        await manager.boot(host.request("other"))
        assert {name: network.engine for name, network in host.networks.items()} == {"web": "pasta", "other": ""}
        assert {info.name: info.engine for info in await manager.networks()} == {"web": "pasta", "other": "splice"}
        await host.kill()
        manager = await host.start()
        assert {info.name: info.engine for info in await manager.networks()} == {"web": "pasta", "other": "splice"}
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.usefixtures("with_pasta")
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"bundle_network": PASTA, "network": "back"},
            "zone web in network back: expected the engine splice in a network that zones share, got pasta",
        ),
        (
            {"bundle_network": Network(engine="pasta", egress=("allow 127.0.0.1 5432",))},
            "zone web: expected no egress rule that opens the host's loopback, got allow 127.0.0.1/32",
        ),
        (
            {"bundle_network": PASTA, "ports": (PortRule(80, "127.0.0.1", 8080), PortRule(81, "127.0.0.2", 8080))},
            "zone web, ports: expected one port of the zone for port 8080/tcp, whatever address it is of, got 80 and",
        ),
        (
            {"bundle_network": Network(engine="slirp")},
            "zone web, network engine: expected splice or pasta, got 'slirp'",
        ),
    ],
)
def test_what_pasta_cannot_is_refused_before_there_is_a_zone(host: Host, wanted: dict[str, Any], said: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match=said):
            await manager.boot(host.request(**wanted))
        assert manager.list_zones() == []
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.usefixtures("with_pasta")
def test_ports_of_a_zone_with_pasta_stay_and_all_else_changes(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(bundle_network=PASTA, ports=(PortRule(80),)))
        for change in (Update(add_ports=(PortRule(81),)), Update(remove_ports=zone.ports)):
            with pytest.raises(
                BadRequest, match="zone web, ports: expected them as at its start, got other ones for pasta"
            ):
                await manager.update("web", change)
        with pytest.raises(BadRequest, match="no egress rule that opens the host's loopback"):
            await manager.update("web", Update(egress=("allow 127.0.0.1",)))
        assert (await manager.get("web")).ports == zone.ports
        await manager.update("web", Update(egress=RULES))
        assert host.networks["web"].egress == RULES
        await host.stop(end_zones=True)

    run(work())
