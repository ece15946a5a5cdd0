"""Attach, exec, copies and questions, over an agent in memory."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.fakeguest import FakeStream

from pipeline.bundle.model import Process
from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon import life
from runtime.host.daemon.errors import BadRequest, NoAgent, UnknownZone, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import Metric, Output, ProcessStart, TerminalSize
from runtime.init.channel import frames


async def booted(host: Host, **keywords: Any) -> Manager:
    manager = await host.start()
    await manager.boot(host.request(until_ready=True, **keywords))
    return manager


def stream_of(host: Host, method: str) -> FakeStream:
    return next(stream for link in host.guest().links for stream in link.streams if stream.method == method)


def test_exec_carries_input_output_and_the_exit(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        start = ProcessStart(
            "web", argv=("/bin/sh", "-c", "x"), env=("A=1",), user="nobody", tty=True, size=TerminalSize(30, 90)
        )
        session = await manager.exec(start)
        stream = stream_of(host, "exec")
        assert stream.params == {
            "container": "main",
            "process": {
                "argv": ["/bin/sh", "-c", "x"], "env": ["A=1"], "user": "nobody", "tty": True, "size": [30, 90],
            },
        }  # fmt: skip
        await session.write_stdin(b"in")
        await session.close_stdin()
        await session.resize(TerminalSize(10, 20))
        await session.signal(2)
        assert (stream.written, stream.ended_input) == ([b"in"], True)
        assert stream.events == [{"resize": [10, 20]}, {"signal": 2}]
        stream.put(frames.EVENT, 0, {"started": 77})
        stream.put(frames.DATA, 1, b"out")
        stream.put(frames.DATA, 2, b"err")
        used = {"user_s": 0.25, "system_s": 1, "max_rss_kib": 3 << 20, "more": 5}
        stream.conclude({"exit": {"code": 3}, "rusage": used})
        found = [output async for output in session.outputs()]
        assert [output.kind for output in found] == ["started", "stdout", "stderr", "exit"]
        (event,) = [one async for one in manager.events(from_start=True, follow=False) if one.kind == "exec.exit"]
        assert event.attributes == {"code": "3", "user_s": "0.25", "system_s": "1", "max_rss_kib": "3145728"}
        assert found[3].exit is not None and found[3].exit.code == 3
        await session.close()
        assert not stream.cancelled
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize(
    ("user", "env", "sent"),
    [
        ("", ("A=2",), ["HOME=/root", "A=2"]),
        ("joe", ("A=2",), ["A=2"]),
        ("joe", ("HOME=/srv",), ["A=1", "HOME=/srv"]),
        ("joe", (), None),
    ],
)
def test_exec_as_another_user_leaves_its_home_to_the_agent(host: Host, user: str, env: Any, sent: Any) -> None:
    async def work() -> None:
        manager = await booted(host, process=Process(("/serve",), ("HOME=/root", "A=1")))
        async with await manager.exec(ProcessStart("web", argv=("x",), env=env, user=user)):
            assert stream_of(host, "exec").params["process"].get("env") == sent
        await host.stop(end_zones=True)

    run(work())


def test_exec_in_the_zone_itself_has_no_container_and_nothing_of_the_workloads(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, process=Process(("/serve",), ("A=1",)))
        start = ProcessStart("web", argv=("styrolite", "-"), env=("B=2",), outside=True)
        async with await manager.exec(start):
            sent = {"argv": ["styrolite", "-"], "env": ["B=2"], "tty": False}
            assert stream_of(host, "exec").params == {"process": sent}
        with pytest.raises(BadRequest, match="a workload or the zone itself"):
            await manager.exec(replace(start, workload="main"))
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("event", ["warning", "lost"])
def test_what_an_agent_warns_of_is_logged_without_its_control_characters(
    host: Host, caplog: pytest.LogCaptureFixture, event: str
) -> None:
    async def work() -> None:
        await booted(host)
        host.guest().links[0].note({"event": event, "sentence": "it \x1b[2J fails"})
        while "fails" not in caplog.text:
            await asyncio.sleep(0.005)
        assert "zone web: 'it \\x1b[2J fails'" in caplog.text
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("code", [126, 127])
def test_command_that_cannot_be_run_has_a_shells_exit_code(host: Host, code: int) -> None:
    async def work() -> None:
        manager = await booted(host)
        session = await manager.exec(ProcessStart("web", argv=("x",)))
        refusal = AgentFault("zone web", got="command 'x' was not found")
        refusal.reason = f"command-{code}"
        stream_of(host, "exec").conclude(refusal)
        (output,) = [output async for output in session.outputs()]
        assert output.exit is not None and (output.exit.code, output.exit.text) == (code, "command 'x' was not found")
        await host.stop(end_zones=True)

    run(work())


def test_leaving_an_exec_ends_it_and_leaving_a_detached_one_does_not(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        async with await manager.exec(ProcessStart("web", argv=("x",))):
            pass
        assert stream_of(host, "exec").cancelled
        host.guest().links[0].streams.clear()
        async with await manager.exec(ProcessStart("web", argv=("x",), detach=True)):
            pass
        stream = stream_of(host, "exec")
        await asyncio.sleep(0)
        assert not stream.cancelled
        stream.put(frames.DATA, 1, b"thrown away")
        stream.conclude({"exit": {"code": 0}})
        while "exec.exit" not in [event.kind async for event in manager.events(from_start=True, follow=False)]:
            await asyncio.sleep(0.01)
        await host.stop(end_zones=True)

    run(work())


def test_attach_replays_follows_and_ends_with_the_zone(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, stdin_open=True)
        guest = host.guest()
        guest.write(b"before\n")
        while not [entry async for entry in manager.logs("web")]:
            await asyncio.sleep(0)
        replayed = await manager.attach(ProcessStart("web", replay=True))
        plain = await manager.attach(ProcessStart("web"))

        async def all_of(session: Any) -> list[Output]:
            return [output async for output in session.outputs()]

        await replayed.write_stdin(b"typed")
        assert stream_of(host, "stdin").written == [b"typed"]
        guest.write(b"after\n")
        while len([entry async for entry in manager.logs("web")]) < 2:
            await asyncio.sleep(0)
        tasks = [asyncio.create_task(all_of(session)) for session in (replayed, plain)]
        guest.exit("code 9")
        first, second = await asyncio.gather(*tasks)
        assert b"".join(output.data for output in first) == b"before\nafter\n"
        assert b"".join(output.data for output in second) == b"after\n"
        assert all(found[-1].exit is not None and found[-1].exit.code == 9 for found in (first, second))
        await replayed.close()
        await manager.wait("web")
        with pytest.raises(WrongState, match="it is exited"):
            await manager.attach(ProcessStart("web"))
        await host.stop()

    run(work())


async def ended_at_once(host: Host, **keywords: Any) -> Manager:
    """A zone to be removed, whose workload said "quick" and ended with 4 before anybody could attach."""
    manager = await host.start()
    await manager.boot(host.request(remove=True, **keywords))
    while not host.guest().links:
        await asyncio.sleep(0)
    host.guest().write(b"quick\n")
    host.guest().exit("code 4")
    return manager


async def removed(host: Host, manager: Manager) -> None:
    """Return once nothing of any zone is left."""
    while manager.list_zones() or any((host.path / "state" / "logs").iterdir()):
        await asyncio.sleep(0.01)


def test_zone_to_be_removed_is_kept_for_the_attach_of_who_booted_it(host: Host) -> None:
    async def work() -> None:
        manager = await ended_at_once(host, attach=True)
        assert (await manager.wait("web")).state.value == "exited"
        async with await manager.attach(ProcessStart("web", replay=True)) as session:
            outputs = [output async for output in session.outputs()]
            assert b"".join(output.data for output in outputs) == b"quick\n"
            assert outputs[-1].exit is not None and outputs[-1].exit.code == 4
            assert [zone.name for zone in manager.list_zones()] == ["web"]
        await removed(host, manager)
        await host.stop()

    run(work())


def test_output_of_a_removed_zone_is_there_for_who_is_attached(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, remove=True)
        async with await manager.attach(ProcessStart("web", replay=True)) as session:
            host.guest().write(b"last\n")
            host.guest().exit("code 4")
            await manager.wait("web")
            await asyncio.sleep(0.05)  # nothing is to happen
            outputs = [output async for output in session.outputs()]
            assert b"".join(output.data for output in outputs) == b"last\n"
        await removed(host, manager)
        await host.stop()

    run(work())


def test_zone_nobody_attaches_to_is_removed_all_the_same(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await ended_at_once(host, attach=True)
        await manager.wait("web")  # as long as it runs it is looked at as seldom as this
        while not clock.waited_for(life.ATTACH_S):
            await asyncio.sleep(0.01)
        assert [zone.name for zone in manager.list_zones()] == ["web"]
        with pytest.raises(UnknownZone, match="it is removed as it has ended"):
            await manager.restart("web")
        clock.pass_time(life.ATTACH_S)
        await removed(host, manager)
        await host.stop()

    run(work())


def test_zone_to_be_removed_by_a_zoned_that_has_gone_is_removed_by_the_next(host: Host) -> None:
    async def work() -> None:
        manager = await ended_at_once(host, attach=True)
        await manager.wait("web")
        await host.stop()
        await removed(host, await host.start())
        await host.stop()

    run(work())


def test_copies_stream_both_ways(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a" * 100_000
            yield b"b"

        copying = asyncio.create_task(manager.copy_in("web", "/tmp", chunks()))
        while not (links := host.guest().links) or not any(stream.ended_input for stream in links[0].streams):
            await asyncio.sleep(0)
        stream = stream_of(host, "copy_in")
        assert b"".join(stream.written) == b"a" * 100_000 + b"b" and stream.params["path"] == "/tmp"
        stream.conclude({})
        await copying
        out = manager.copy_out("web", "/etc")
        reading = asyncio.ensure_future(anext(out))
        await asyncio.sleep(0)
        stream = stream_of(host, "copy_out")
        stream.put(frames.DATA, 1, b"tar")
        assert await reading == b"tar"
        stream.conclude({})
        assert [chunk async for chunk in out] == []
        await host.stop(end_zones=True)

    run(work())


def test_refused_copy_stops_sending_and_says_why(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1
                yield b"x"
                await asyncio.sleep(0)

        copying = asyncio.create_task(manager.copy_in("web", "/nope", chunks()))
        while sent < 5:
            await asyncio.sleep(0)
        stream_of(host, "copy_in").conclude(AgentFault("zone web", got="no such directory"))
        with pytest.raises(AgentFault, match="no such directory"):
            await copying
        await host.stop(end_zones=True)

    run(work())


def test_metrics_and_processes_are_taken_as_the_agent_gives_them(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        answers = host.guest().answers
        answers["metrics"] = lambda params: {
            "memory_bytes": 5,
            "cpu": {"cpu0": {"user_s": 1.5}},
            "bad": "x",
            "on": True,
        }
        assert await manager.metrics("web") == [
            Metric("memory_bytes", 5.0, "bytes"), Metric("cpu.cpu0.user_s", 1.5, "seconds"),
        ]  # fmt: skip
        row = {"pid": 1, "ppid": 0, "uid": 0, "state": "S", "rss_kib": 12, "cpu_s": 0.5, "command": "init"}
        answers["processes"] = lambda params: {"processes": [row, "junk", {"pid": "x"}]}
        found = await manager.processes("web")
        assert (found[0].pid, found[0].resident_kib, found[0].command) == (1, 12, "init") and found[1].pid == 0
        await host.stop(end_zones=True)

    run(work())


def test_figures_are_watched_as_the_agent_tells_them_and_no_longer_than_they_are_wanted(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        async with contextlib.aclosing(manager.watch_metrics("web", 0.5)) as watched:
            first = asyncio.ensure_future(anext(watched))
            while not [stream for link in host.guest().links for stream in link.streams if stream.method == "metrics"]:
                await asyncio.sleep(0)
            stream = stream_of(host, "metrics")
            assert stream.params == {"interval_s": 0.5}
            stream.put(frames.DATA, 1, b'{"a":1}\n{"a')
            assert await first == [Metric("a", 1.0, "count")]
            stream.put(frames.DATA, 1, b'":2}\n')
            assert await anext(watched) == [Metric("a", 2.0, "count")]
            assert not stream.cancelled
        assert stream.cancelled
        await host.stop(end_zones=True)

    run(work())


def test_settings_of_the_kernel_are_asked_for_and_set(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        asked: list[object] = []
        host.guest().answers["sysctl"] = lambda params: {"value": params.get("value", "60"), "n": asked.append(params)}
        assert await manager.sysctl("web", "vm.swappiness") == "60"
        assert await manager.sysctl("web", "vm.swappiness", "") == ""
        assert asked == [{"key": "vm.swappiness"}, {"key": "vm.swappiness", "value": ""}]
        await host.stop(end_zones=True)

    run(work())


def test_ping_asks_the_agent_as_often_as_it_is_told(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        asked: list[int] = []
        host.guest().answers["ping"] = lambda params: {"n": asked.append(1)}
        trips = await manager.ping("web", 3)
        assert len(trips) == len(asked) == 3 and all(trip >= 0 for trip in trips)
        await host.stop(end_zones=True)

    run(work())


def test_channel_that_is_being_mended_is_waited_for_as_long_as_the_zone_runs(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        (link,) = host.guest().links
        link.drop()
        asked = asyncio.ensure_future(manager.metrics("web"))
        await asyncio.sleep(0)
        assert not asked.done()
        link.connected.set()
        await asked
        link.drop()
        asked = asyncio.ensure_future(manager.metrics("web"))
        await manager.stop("web", timeout_s=0)
        with pytest.raises(WrongState, match="it is"):
            await asked
        await host.stop()

    run(work())


def test_zone_without_an_agent_says_so(host: Host) -> None:
    async def work() -> None:
        host.has_agents = False
        manager = await booted(host)
        for ask in (
            manager.metrics("web"),
            manager.exec(ProcessStart("web", argv=("x",))),
            manager.kill("web", 10),
            manager.dial("web", "127.0.0.1", 80),
        ):
            with pytest.raises(NoAgent, match="zone web"):
                await ask
        with pytest.raises(BadRequest, match="expected a command"):
            await manager.exec(ProcessStart("web"))
        await manager.stop("web")
        with pytest.raises(WrongState, match="it is exited"):
            await manager.metrics("web")
        await host.stop()

    run(work())


def test_zone_without_a_process_idles_and_execs_go_to_the_zone_itself(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, process=Process((), ()))
        session = await manager.exec(ProcessStart("web", argv=("true",)))
        assert "container" not in stream_of(host, "exec").params
        await session.close()
        await host.stop(end_zones=True)

    run(work())


def test_input_that_comes_before_the_workload_waits_for_it(host: Host) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request()))
        await asyncio.to_thread(host.building.acquire, True, 120)
        async with await manager.attach(ProcessStart("web", stdin=True)) as session:
            feed = asyncio.create_task(session.write_stdin(b"early"))
            await asyncio.sleep(0)
            assert not feed.done()
            host.build_gate.set()
            await boot
            await feed
            assert stream_of(host, "stdin").written == [b"early"]
        await host.stop(end_zones=True)

    run(work())
