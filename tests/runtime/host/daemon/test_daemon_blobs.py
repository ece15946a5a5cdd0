"""Blobs of the host's own store: what is told of them, and which a prune leaves."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run

from pipeline.durable import take
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store, lease
from runtime.host.daemon import blobs, hoststate
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.zone import Zone

DATA = b"uploaded"
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def path_of(host: Host, blob: Descriptor = BLOB) -> Path:
    return host.path / "store" / "blobs" / "sha256" / blob.digest.hex


async def started(host: Host) -> tuple[Manager, FakeClock]:
    """A zoned that has a zone, which needs its own blobs."""
    host.clock = FakeClock()
    manager = await host.start()
    await manager.boot(host.request(until_ready=True))
    return manager, host.clock


async def pruned(manager: Manager) -> tuple[str, ...]:
    """What a prune removes; a store that was asked has its lease until its object is no more, a moment later."""
    for _ in range(200):
        if removed := (await manager.prune(blobs=True)).removed:
            return removed
        await asyncio.sleep(0.02)
    return ()


def meanwhile(manager: Manager, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Whenever a thread does this, a zone comes."""
    work, loop_thread = getattr(owner, name), threading.current_thread()
    core = manager.core

    def come(done: threading.Event) -> None:
        core.zones[f"late{len(core.zones)}"] = next(iter(core.zones.values()))
        done.set()

    def beside(*arguments: Any) -> Any:
        if threading.current_thread() is not loop_thread:
            done = threading.Event()
            core.soon(lambda: come(done))
            assert done.wait(120)
        return work(*arguments)

    monkeypatch.setattr(owner, name, beside)


def test_zones_may_come_while_what_they_take_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager, _ = await started(host)
        path_of(host).symlink_to("nowhere")  # as one that goes between the listing and the look
        with monkeypatch.context() as patched:
            meanwhile(manager, patched, hoststate, "_size")
            meanwhile(manager, patched, Zone, "blobs")
            rows = {row.what: row for row in await manager.disk_usage()}
            assert (rows["blobs"].count, rows["logs"].count) == (3, 1)
            assert (await manager.prune(blobs=True, dry_run=True)).removed == ()
        for late in [name for name in manager.core.zones if name.startswith("late")]:
            manager.core.zones.pop(late)
        await host.stop(end_zones=True)

    run(work())


def test_blob_that_was_sent_stays_until_its_zone_has_come_and_gone(host: Host) -> None:
    async def work() -> None:
        manager, clock = await started(host)
        own = [blob for zone in manager.core.zones.values() for blob in zone.blobs()]
        await manager.put_blob(BLOB, pieces(DATA))
        clock.pass_time(blobs.LENT_S - 1)
        assert (await manager.prune(blobs=True)).removed == () and path_of(host).exists()
        assert await manager.find_blobs([BLOB]) == []
        clock.pass_time(blobs.LENT_S - 1)
        assert (await manager.prune(blobs=True)).removed == (), "who asked was told that it is there"
        clock.pass_time(1)
        assert len(await pruned(manager)) == 1 and not path_of(host).exists()

        assert await manager.find_blobs(own) == []
        await manager.boot(host.request("late", until_ready=True))
        for name in ("web", "late"):
            await manager.remove(name, force=True)
        assert len(await pruned(manager)) == 3, "nobody is about to boot from them"
        await host.stop()

    run(work())


def test_questions_that_lead_to_no_boot_are_not_kept(host: Host) -> None:
    async def work() -> None:
        manager, clock = await started(host)
        nobodys = [Descriptor("", Digest.of(b"%d" % number), 1) for number in range(100)]
        assert await manager.find_blobs(nobodys) == [blob.digest for blob in nobodys]
        assert manager.core.lent == {}
        for number in range(3):  # of what is here, and goes
            data = b"sent%d" % number
            await manager.put_blob(Descriptor("", Digest.of(data), len(data)), pieces(data))
            clock.pass_time(blobs.LENT_S)
        assert len(manager.core.lent) == 1
        await host.stop(end_zones=True)

    run(work())


def test_blob_that_is_found_while_a_prune_is_under_way_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager, _ = await started(host)
        path_of(host).write_bytes(DATA)
        unused, loop = blobs.unused, asyncio.get_running_loop()

        def slow(*arguments: Any) -> Any:
            found = unused(*arguments)
            assert [path for path, _ in found] == [path_of(host)]
            assert asyncio.run_coroutine_threadsafe(manager.find_blobs([BLOB]), loop).result(120) == []
            return found

        monkeypatch.setattr(blobs, "unused", slow)
        assert (await manager.prune(blobs=True)).removed == () and path_of(host).exists()
        await host.stop(end_zones=True)

    run(work())


def test_blob_that_a_build_relies_on_stays(host: Host) -> None:
    async def work() -> None:
        manager, _ = await started(host)
        path_of(host).write_bytes(DATA)
        build = Store(host.path / "store")
        assert build.has(BLOB)
        assert (await manager.prune(blobs=True)).removed == () and path_of(host).exists()
        del build
        assert len((await manager.prune(blobs=True)).removed) == 1
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("late", [False, True], ids=["before", "meanwhile"])
def test_blob_that_is_named_by_what_a_build_relies_on_stays(
    host: Host, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.dumps({"layers": [to_json(BLOB)]}).encode()
    named_by = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(manifest), len(manifest))
    builds: list[Store] = []

    def rely() -> None:
        builds.append(Store(host.path / "store"))
        assert builds[-1].has(named_by)

    async def work() -> None:
        manager, _ = await started(host)
        path_of(host).write_bytes(DATA)
        path_of(host, named_by).write_bytes(manifest)
        unused = blobs.unused

        def slow(*arguments: Any) -> Any:
            found = unused(*arguments)
            if late:
                rely()
            return found

        monkeypatch.setattr(blobs, "unused", slow)
        if not late:
            rely()
        assert (await manager.prune(blobs=True)).removed == ()
        assert path_of(host).exists() and path_of(host, named_by).exists()
        await host.stop(end_zones=True)

    run(work())


def test_blob_that_gets_a_name_while_a_prune_is_under_way_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager, _ = await started(host)
        path_of(host).write_bytes(DATA)
        unused = blobs.unused

        def slow(*arguments: Any) -> Any:
            found = unused(*arguments)
            assert [path for path, _ in found] == [path_of(host)]
            pull = Store(host.path / "store")
            assert pull.has(BLOB)
            pull.tag("image", BLOB)
            return found  # and what it was pulled by is over

        with monkeypatch.context() as patched:
            patched.setattr(blobs, "unused", slow)
            assert (await manager.prune(blobs=True)).removed == () and path_of(host).exists()
        assert (await manager.prune(blobs=True)).removed == ()
        Store(host.path / "store").untag("image")
        assert len(await pruned(manager)) == 1
        await host.stop(end_zones=True)

    run(work())


def test_prune_waits_for_what_collects_the_same_store(host: Host) -> None:
    async def work() -> None:
        manager, clock = await started(host)
        path_of(host).write_bytes(DATA)
        other = take(Store(host.path / "store").locks / lease.GC)
        prune = asyncio.create_task(manager.prune(blobs=True))
        while not clock.waited_for(blobs.LOOK_AGAIN_S):
            await asyncio.sleep(0)
        assert path_of(host).exists()
        os.close(other)
        clock.pass_time(blobs.LOOK_AGAIN_S)
        assert len((await prune).removed) == 1
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_is_started_again_while_a_prune_is_under_way_is_not_said_to_be_removed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        size, loop = hoststate._size, asyncio.get_running_loop()

        def start_first(path: Path) -> int:
            asyncio.run_coroutine_threadsafe(manager.restart("web", unless_live=True), loop).result(120)
            return size(path)

        monkeypatch.setattr(hoststate, "_size", start_first)
        pruned = await manager.prune(zones=True)
        assert (pruned.removed, pruned.freed_bytes) == ((), 0)
        assert manager.list_zones()[0].state.up
        await host.stop(end_zones=True)

    run(work())
