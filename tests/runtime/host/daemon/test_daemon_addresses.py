"""The addresses zones get: their own over all that happens, nobody else's while they may come again, none left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.daemonworld import Host, run
from support.hostnetworks import addresses, shared

from pipeline.bundle.model import Network
from runtime.errors import RuntimeFault
from runtime.host.daemon.errors import BadRequest
from runtime.net import pool
from runtime.net.errors import AddressesExhausted


@pytest.mark.parametrize("text", ["10.75.9.7", "fd5a:6f6e:6577:9::7"])
@pytest.mark.parametrize("network", ["", "back"])
def test_zone_has_the_address_it_names_over_restarts_and_another_zoned(host: Host, network: str, text: str) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", network=network, bundle_network=Network(address=text)))
        assert addresses(manager) == {"web": "10.75.9.7"}
        await manager.restart("web")
        assert addresses(manager) == {"web": "10.75.9.7"}
        await host.kill()
        manager = await host.start()
        assert addresses(manager) == {"web": "10.75.9.7"}
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_address_that_a_zone_names_is_no_others_while_it_may_come_again(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        for name, address in (("web", "10.75.0.2"), ("alone", "10.75.1.9")):
            own = Network(address=address, name="back" if name == "web" else "")
            await manager.boot(host.request(name, bundle_network=own))
            await manager.stop(name)
        for name in ("db", "tool"):
            await manager.boot(host.request(name, network="back", bundle_network=Network()))
        assert addresses(manager) == {"db": "10.75.2.2", "tool": "10.75.2.3"}
        with pytest.raises(RuntimeFault, match=r"network back, address: expected one of 10\.75\.2\.0/24 or fd5a"):
            await manager.boot(host.request("web", bundle_network=Network(address="10.75.0.2", name="back")))
        await manager.boot(host.request("again", bundle_network=Network(address="10.75.2.9", name="back")))
        with pytest.raises(RuntimeFault, match=r"10\.75\.2\.9 of zone late: expected it free, got another zone"):
            await manager.boot(host.request("late", bundle_network=Network(address="10.75.2.9", name="back")))
        with pytest.raises(RuntimeFault, match=r"address 10\.75\.2\.9 of zone late: .* got network back"):
            await manager.boot(host.request("late", bundle_network=Network(address="10.75.2.9")))
        with pytest.raises(BadRequest, match=r"zone late, address: expected an address of 10\.75\.0\.0/16"):
            await manager.boot(host.request("late", bundle_network=Network(address="10.75.2.1")))
        reserved = (await manager.create_reservation()).id
        own = Network(address="10.75.30.2")
        with pytest.raises(RuntimeFault, match="expected a reservation or an address of its own, got both"):
            await manager.boot(host.request("late", reservation=reserved, bundle_network=own))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("what", ["boot", "reservation", "net create"])
def test_network_whose_address_a_stopped_zone_names_is_given_to_nobody_else(host: Host, what: str) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", bundle_network=Network(address="10.75.0.9")))
        await manager.stop("web")
        if what == "boot":
            await manager.boot(host.request("other"))
            given = addresses(manager)["other"]
        elif what == "reservation":
            given = (await manager.create_reservation()).ipv4
        else:
            given = (await manager.create_network("back", 1500)).ipv4
        assert given.startswith("10.75.1."), given
        await manager.restart("web")
        assert addresses(manager)["web"] == "10.75.0.9"
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.fixture
def small_pool() -> Iterator[None]:
    """Room for one network."""
    pool.use(pool.parse_pools("172.30.0.0/24", "fd00:1:2::/48"))
    yield
    pool.use(pool.DEFAULT)


@pytest.mark.usefixtures("small_pool")
def test_exhausted_pool_is_told_in_one_sentence_and_what_is_given_back_can_be_had(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", network="back"))
        wanted = "expected a free subnet for one more zone, got all 1 used"
        hint = r"\(stop a zone, or remove a network, that is no longer needed\)"
        for attempt in (
            lambda: manager.boot(host.request("alone")),
            lambda: manager.boot(host.request("other", network="front")),
            lambda: manager.create_network("front", 1500),
            manager.create_reservation,
        ):
            with pytest.raises(AddressesExhausted, match=rf"^address pool 172\.30\.0\.0/24: {wanted} {hint}$"):
                await attempt()
        await manager.boot(host.request("db", network="back"))
        assert sorted(await shared(manager)) == ["back"], (
            "it has room for more zones, and nothing is left of the others"
        )
        for name in ("web", "db"):
            await manager.stop(name)
        await manager.boot(host.request("alone"))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())
