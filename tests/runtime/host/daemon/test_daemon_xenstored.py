"""A xenstored that is restarted: zoned, whose watches it knows nothing of, ends with 1, and the next one adopts."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run

from runtime.boot.doors import Hypervisor
from runtime.boot.nodes import domain_path
from runtime.boot.xenstore import XenStore
from runtime.host import zoned
from runtime.host.daemon.errors import NotPrepared
from runtime.host.daemon.manager import XENSTORE_LOOK_S, Manager
from runtime.host.daemon.model import RestartPolicy, State
from runtime.host.daemon.policy import FIRST_PAUSE_S
from runtime.host.serve import notify
from runtime.host.xenstoremark import FILE, FORGOTTEN, NODE, has_forgotten


class Zoned:
    """The program itself, on the manager of a simulated host: `serving` is set when systemd would hear of it."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.serving = host, asyncio.Event()
        (host.path / "run").mkdir()
        monkeypatch.setattr(zoned, "_missing", tuple)
        monkeypatch.setattr(zoned, "_manager", lambda *_: (host.make(), Hypervisor(host.xen)))
        monkeypatch.setattr(notify, "notify", lambda text: self.serving.set() if text == "READY=1" else None)

    async def come(self) -> tuple[Manager, asyncio.Task[int]]:
        self.serving.clear()
        options = argparse.Namespace(run=self.host.path / "run", state=self.host.path / "state", end_zones=False)
        ended = asyncio.create_task(zoned._serve(options))
        ready = asyncio.create_task(self.serving.wait())
        await asyncio.wait([ended, ready], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise AssertionError(f"zoned ended with {ended.result()}")
        assert self.host.manager is not None
        return self.host.manager, ended

    def gone(self) -> None:
        """What the kernel does when the process has ended."""
        self.host.manager = None
        self.host.loops.clear()
        self.host.stores.pop().close()


def test_zoned_ends_with_1_and_the_next_adopts_what_runs(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        monkeypatch.setattr("runtime.host.daemon.manager.XENSTORE_LOOK_S", 0.02)
        program = Zoned(host, monkeypatch)
        manager, ended = await program.come()
        for name in ("one", "two"):
            await manager.boot(host.request(name, until_ready=True, restart=RestartPolicy("always")))
        before = {zone.name: zone for zone in manager.list_zones()}
        calls = len(host.xen.calls)
        await asyncio.to_thread(host.xenstored.restart)
        assert await ended == 1
        assert "xenstored went away; the next zoned goes on from here" in caplog.text
        program.gone()

        manager, ended = await program.come()
        for name in before:
            await manager.wait(name, "ready", 120)
        after = {zone.name: zone for zone in manager.list_zones()}
        assert {name: (zone.id, zone.domid, zone.domain_uuid, zone.restarts) for name, zone in after.items()} == {
            name: (zone.id, zone.domid, zone.domain_uuid, 0) for name, zone in before.items()
        }
        assert not [call for call in host.xen.calls[calls:] if "pause" in call or "destroy" in call]

        # Its watches are the new xenstored's: the end of a zone is heard of.
        host.guests[after["one"].domain_uuid].exit("code 5")
        await manager.stop("two")
        await until(lambda: any(zone.restarts for zone in manager.list_zones()))  # else it is still as it was: ready
        await manager.wait("one", "ready", 120)
        assert {zone.name: zone.restarts for zone in manager.list_zones()} == {"one": 1, "two": 0}
        await manager.stop("one")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await ended == 0
        program.gone()
        assert host.leftovers() == []

    run(work())


def test_zoned_notices_at_its_next_look(host: Host) -> None:
    async def work() -> None:
        host.clock = FakeClock()
        manager = await host.start()
        fatal = asyncio.ensure_future(manager.until_fatal())
        await until(lambda: host.clock.waited_for(XENSTORE_LOOK_S))
        host.clock.pass_time(XENSTORE_LOOK_S)
        await until(lambda: host.clock.waited_for(XENSTORE_LOOK_S))
        assert not fatal.done(), "it is there"
        await asyncio.to_thread(host.xenstored.restart)
        await until(lambda: host.stores[-1].gone)
        host.clock.pass_time(XENSTORE_LOOK_S)
        assert await fatal == "xenstored went away"
        await host.stop()

    run(work())


def test_zone_whose_tree_went_with_it_runs_on_and_its_end_leaves_nothing(host: Host) -> None:
    """A xenstored that kept nothing: what tells the zone is the ledger's uuid, which Xen has."""

    async def work() -> None:
        manager = await host.start()
        for name in ("kept", "bare"):
            await manager.boot(host.request(name, until_ready=True))
        before = {zone.name: (zone.id, zone.domid, zone.domain_uuid) for zone in manager.list_zones()}
        await host.stop()
        host.xenstored.restart()
        host.xenstored.remove(domain_path(before["bare"][1]))
        manager = await host.start()
        for name in before:
            await manager.wait(name, "ready", 120)
        assert {zone.name: (zone.id, zone.domid, zone.domain_uuid) for zone in manager.list_zones()} == before
        for name in before:
            await manager.remove(name, force=True)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_xenstored_that_lost_what_it_was_told_is_known_until_the_host_starts_again(host: Host, tmp_path: Path) -> None:
    first = XenStore(host.xenstored.path)
    assert not has_forgotten(first, tmp_path)
    host.xenstored.restart()
    kept = XenStore(host.xenstored.path)
    assert not has_forgotten(kept, tmp_path), "it kept what it knew, as a live update does"
    host.xenstored.remove(NODE)
    assert has_forgotten(kept, tmp_path) and has_forgotten(kept, tmp_path)
    (tmp_path / FILE).unlink()  # /run of the next start of the host
    assert not has_forgotten(kept, tmp_path)
    for store in (first, kept):
        store.close()


def test_no_zone_is_begun_with_a_xenstored_that_tells_the_kernel_nothing(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("runs", until_ready=True))
        await host.stop()
        manager = await host.start(unfit=FORGOTTEN)
        with pytest.raises(NotPrepared, match="dom0's kernel hears of no new devices"):
            await manager.boot(host.request("new"))
        assert [zone.name for zone in manager.list_zones()] == ["runs"]
        await manager.stop("runs")
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_what_runs_is_not_ended_to_be_started_again_with_such_a_xenstored(host: Host) -> None:
    async def work() -> None:
        host.clock = FakeClock()
        manager = await host.start()
        for name in ("runs", "ended", "comes again"):
            policy = RestartPolicy("always" if name == "comes again" else "no")
            await manager.boot(host.request(name.replace(" ", "-"), until_ready=True, restart=policy))
        await manager.stop("ended")
        await host.stop()
        manager = await host.start(unfit=FORGOTTEN)
        for name in ("runs", "ended"):
            with pytest.raises(NotPrepared, match=f"zone {name}: xenstored: .* dom0's kernel hears of no new devices"):
                await manager.restart(name)
        await manager.wait("runs", "ready")
        assert (await manager.get("ended")).state is State.EXITED
        built = len(host.guests)
        host.guest("comes-again").exit("code 1")
        await until(lambda: host.clock.waited_for(FIRST_PAUSE_S))
        host.clock.pass_time(FIRST_PAUSE_S)
        await until(lambda: any(zone.restarts == 2 for zone in manager.list_zones()))
        assert len(host.guests) == built, "nor is one that was to come again"
        found = await manager.get("comes-again")
        assert found.exit is not None and "dom0's kernel hears of no new devices" in found.exit.text
        for name in ("runs", "comes-again"):
            await manager.stop(name)
        assert host.leftovers() == []
        await host.stop()

    run(work())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
