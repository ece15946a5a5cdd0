"""Flows and captures, over networks that are scripts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.daemonworld import Host, run

from runtime.host.api import host_pb2 as pb
from runtime.host.daemon.errors import UnknownZone, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.serve import convert
from runtime.net.capture import CaptureRequest, Piece
from runtime.net.engine.flows import Flow
from runtime.net.errors import EngineFault


async def booted(host: Host, *names: str) -> Manager:
    manager = await host.start()
    for name in names:
        await manager.boot(host.request(name))
    return manager


def test_flows_and_counters_are_listed_for_each_zone_or_for_one(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, "web", "db")
        assert [found.zone for found in await manager.flows()] == ["db", "web"]
        (found,) = await manager.flows("web")
        assert found.flows == (Flow("tcp", "10.75.0.2:40000", "192.0.2.7:443", "open", 7, 9, 1.5),)
        assert (found.counters, found.problem) == ({"bytes_out": 1}, "")
        with pytest.raises(UnknownZone):
            await manager.flows("wbe")
        await host.stop(end_zones=True)

    run(work())


def test_zone_whose_engine_does_not_answer_is_listed_with_the_reason(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, "web")
        host.engine_fails = EngineFault("network engine of zone web", expected="an answer", got="it ended")
        (found,) = await manager.flows()
        assert (found.flows, found.counters) == ((), {})
        assert "expected an answer, got it ended" in found.problem
        await host.stop(end_zones=True)

    run(work())


def test_messages_say_all_that_flows_and_pieces_do() -> None:
    assert {field.name for field in pb.Flow.DESCRIPTOR.fields} == set(Flow._fields)
    assert {field.name for field in pb.CaptureNetworkReply.DESCRIPTOR.fields} == set(Piece._fields)
    request = pb.CaptureNetworkRequest(zone="web", count=1, seconds=2.5, snap_bytes=3, host="192.0.2.1", port=4)
    assert convert.capture_request(request) == CaptureRequest(1, 2.5, 3, "192.0.2.1", 4)


def test_capture_comes_in_pieces_and_ends_with_its_process(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, "web")
        request = CaptureRequest(count=3)
        pieces = manager.capture("web", request)
        first: Any = asyncio.ensure_future(anext(pieces))
        await until(lambda: bool(host.captures))
        (capture,) = host.captures
        assert capture.request == request
        capture.send(0, 0, b"head")
        assert await first == Piece(b"head", 0, 0)
        capture.send(3, 4, b"frames")
        capture.stop()
        assert [piece async for piece in pieces] == [Piece(b"frames", 3, 4)]
        assert capture.closed
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("begun", [True, False])
def test_capture_whose_reader_goes_is_closed(host: Host, begun: bool) -> None:
    async def work() -> None:
        manager = await booted(host, "web")
        pieces = manager.capture("web", CaptureRequest())
        reader: Any = asyncio.ensure_future(anext(pieces))
        if begun:
            await until(lambda: bool(host.captures))
        else:
            await asyncio.sleep(0)  # its thread may have begun, and nobody waits for it any more
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(lambda: all(capture.closed for capture in host.captures))
        assert len(host.captures) == 1 or not begun
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_does_not_run_has_nothing_to_capture(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, "web")
        await manager.kill("web")
        await manager.wait("web")
        with pytest.raises(WrongState, match="zone web: expected it to run, got exited"):
            await anext(manager.capture("web", CaptureRequest()))
        assert await manager.flows() == []
        await host.stop(end_zones=True)

    run(work())


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)
