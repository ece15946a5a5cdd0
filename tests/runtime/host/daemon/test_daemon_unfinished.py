"""Ends that could not be finished, as a domain may go on dying for a while: the next zoned knows they were ends."""

from __future__ import annotations

import asyncio
import itertools
import uuid

import pytest
from support.daemonworld import Host, run

from runtime.errors import RuntimeFault
from runtime.host.daemon.errors import NotPrepared
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import RestartPolicy, State
from runtime.net.errors import NetworkFault

STUCK = RuntimeFault("domain", got="still dying", temporary=True)


def states(manager: Manager) -> dict[str, State]:
    return {zone.name: zone.state for zone in manager.list_zones()}


async def next_zoned(host: Host) -> Manager:
    """It comes, and nothing stands in the way any more."""
    await host.stop()
    host.teardown_fails = host.network_fails = None
    return await host.start()


def test_boot_that_failed_and_is_forgotten_keeps_no_zoned_from_starting(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.teardown_fails, host.network_fails = STUCK, NetworkFault("network of zone web", got="no memory")
        with pytest.raises(RuntimeFault, match="no memory"):
            await manager.boot(host.request(remove=True))
        assert manager.list_zones() == [] and manager.core.unfinished
        manager = await next_zoned(host)
        assert manager.list_zones() == [] and host.leftovers() == []
        await host.stop()

    run(work())


@pytest.mark.parametrize(
    ("policy", "removed"), [("always", True), ("unless-stopped", True), ("unless-stopped", False), ("always", False)]
)
def test_zone_that_was_stopped_or_removed_does_not_come_again_with_the_next_zoned(
    host: Host, policy: str, removed: bool
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy(policy), until_ready=True))
        host.teardown_fails = STUCK
        if removed:
            await manager.remove("web", force=True)
        else:
            await manager.stop("web")
        manager = await next_zoned(host)
        assert states(manager) == ({} if removed else {"web": State.EXITED}) and host.leftovers() == []
        await host.stop()

    run(work())


def test_zone_that_has_the_name_now_is_not_displaced_by_the_one_that_had_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        numbers = itertools.count(1 << 127, -1)  # the earlier one's ledger is the last to be looked at
        monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        host.teardown_fails = STUCK
        await manager.stop("web")
        now = await manager.boot(host.request(until_ready=True))
        manager = await next_zoned(host)
        (zone,) = manager.list_zones()
        assert (zone.id, zone.domid, zone.state.up) == (now.id, now.domid, True)
        assert [domid for domid in host.xen.domains if domid] == [now.domid], "the earlier one's is gone by now"
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_end_that_the_next_zoned_cannot_finish_either_is_one_for_the_third(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        await host.kill()
        guest.exit("code 3")
        host.teardown_fails = STUCK
        manager = await host.start()
        (zone,) = manager.list_zones()
        assert zone.state is State.EXITED and zone.exit is not None and zone.exit.code == 3
        assert manager.core.unfinished
        await manager.remove("web")
        manager = await next_zoned(host)
        assert manager.list_zones() == [] and host.leftovers() == []
        await host.stop()

    run(work())


def test_run_that_could_not_be_begun_leaves_no_ledger(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        logs = host.path / "state" / "logs" / zone.id
        (logs / "console").touch()
        (logs / "console.1").mkdir()  # so that the console cannot be put there
        with pytest.raises(RuntimeFault, match=r"ended before it ran: .*console"):
            await manager.restart("web")
        assert states(manager) == {"web": State.FAILED} and host.leftovers() == []
        (logs / "console.1").rmdir()
        await manager.restart("web")
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_zoned_leaves_before_it_is_removed_by_force_is_not_forgotten(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(host.request(restart=RestartPolicy("always"), until_ready=True))
        removal = asyncio.create_task(manager.remove("web", force=True))
        await asyncio.sleep(0)  # that it is not wanted is being written
        await host.stop()
        with pytest.raises(NotPrepared, match="zoned is ending"):
            await removal
        manager = await host.start()
        zone = await manager.wait(before.id, "exited", 120)
        assert (zone.id, zone.state) == (before.id, State.EXITED), "one that was to go came again"
        await host.stop()
        assert host.leftovers() == []

    run(work())
