"""Who looks on at agent channels sees each from its first frame, whenever it is opened."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from support.daemonworld import Host, run

from runtime.host.daemon import snooping


async def begun(manager: Any, frames: Any) -> asyncio.Future[Any]:
    """The first frame of a look, once that has begun."""
    first = asyncio.ensure_future(anext(frames))
    while not manager.core.link_takers:
        await asyncio.sleep(0)
    return first


def link_of(host: Host, name: str) -> Any:
    return host.guest(name).links[-1]


def test_channels_that_are_open_and_those_opened_later_are_seen(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        early = await manager.boot(host.request("early", until_ready=True))
        async with contextlib.aclosing(manager.snoop()) as frames:
            first = await begun(manager, frames)
            link_of(host, "early").frame("<", b"a note")
            assert await first == (early.id, ("<", 0, 0, 0, b"a note"))
            late = await manager.boot(host.request("late", until_ready=True))
            assert await anext(frames) == (late.id, (">", 0, 0, 0, b"hello")), "from its first frame"
            link_of(host, "late").frame("<", b"well")
            assert await anext(frames) == (late.id, ("<", 0, 0, 0, b"well"))
            old = link_of(host, "late")
            await manager.restart("late")
            assert await anext(frames) == (late.id, (">", 0, 0, 0, b"hello")), "its next run has another channel"
            assert old.snoopers == []
        assert manager.core.link_takers == []
        assert link_of(host, "early").snoopers == link_of(host, "late").snoopers == []
        await host.stop(end_zones=True)

    run(work())


def test_frames_nobody_has_read_are_counted(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        async with contextlib.aclosing(manager.snoop()) as frames:
            first = await begun(manager, frames)
            zone = await manager.boot(host.request(until_ready=True))
            await first
            for number in range(snooping.WAITING + 7):
                link_of(host, "web").frame("<", str(number).encode())
            for number in range(snooping.WAITING):
                assert (await anext(frames))[1][-1] == str(number).encode()
            assert await anext(frames) == ("", 7)
            link_of(host, "web").frame("<", b"on")
            assert await anext(frames) == (zone.id, ("<", 0, 0, 0, b"on"))
        await host.stop(end_zones=True)

    run(work())
