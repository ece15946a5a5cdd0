"""What a zone may do with its network: refused before anything is made, changed while it runs, kept by zoned."""

from __future__ import annotations

import pytest
from support.daemonworld import Host, run

from pipeline.bundle.model import Network
from runtime.errors import RuntimeFault
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import Update

RULES = ("allow 192.0.2.0/24 443", "deny any")


async def egress_of(manager: Manager) -> tuple[str, ...]:
    return (await manager.get("web")).egress


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (("deny everything",), "zone web, egress rule: expected any, an address, or a network"),
        (("allow 10.75.3.2",), "expected what a rule can open, not another zone network addresses"),
        (("deny any",) * 257, "egress rules: expected 256 at most, got 257"),
    ],
)
def test_rules_that_make_no_sense_are_refused_before_there_is_a_zone(
    host: Host, rules: tuple[str, ...], said: str
) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match=said):
            await manager.boot(host.request(network=Network(egress=rules)))
        assert manager.list_zones() == []
        await manager.boot(host.request())
        with pytest.raises(BadRequest, match=said):
            await manager.update("web", Update(egress=rules))
        assert host.networks["web"].egress == await egress_of(manager) == ()
        await host.stop(end_zones=True)

    run(work())


def test_rules_reach_the_network_and_change_while_the_zone_runs(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(network=Network(egress=RULES)))
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
        await manager.boot(host.request(network=Network(egress=RULES)))
        host.engine_fails = RuntimeFault("engine", got="no answer", temporary=True)
        with pytest.raises(RuntimeFault, match="no answer"):
            await manager.update("web", Update(egress=()))
        assert await egress_of(manager) == RULES
        host.engine_fails = None
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
