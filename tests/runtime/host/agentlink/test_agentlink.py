"""The link against a zone's end that behaves: calls, streams, credit, notes, sessions that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from support import fakeagent
from support.fakeagent import DescriptorTransport, in_loop, linked, until

from runtime.host.agentlink.link import AgentLink, open_link
from runtime.host.agentlink.model import Agent, AgentFault
from runtime.host.agentlink.stream import AgentStream
from runtime.init.channel import frames
from runtime.init.channel.credit import WINDOW_BYTES


async def gathered(stream: AgentStream) -> tuple[dict[int, bytes], list[Any]]:
    """All that comes on a stream: bytes by descriptor, and events; EOF as the event ("eof", fd)."""
    found: dict[int, bytes] = {}
    events: list[Any] = []
    async for kind, fd, data in stream:
        if isinstance(data, dict):
            events.append(data)
        elif kind == frames.EOF:
            events.append(("eof", fd))
        else:
            found[fd] = found.get(fd, b"") + data
    return found, events


@in_loop
async def test_calls_are_answered_and_the_greeting_is_kept() -> None:
    async with linked() as (link, agent):
        answers = await asyncio.gather(*(link.call("ping") for _ in range(50)), link.call("list"))
        assert answers == [{}] * 50 + [{"containers": agent.containers}]
        assert link.hello["boot"] == {"workload": 4.2}
        assert len(agent.sessions) == 1
        assert not link._streams
        kept: Agent = link  # the protocol the core knows
        assert kept.connected.is_set()


@in_loop
async def test_the_agents_own_errors_are_faults_with_its_word_and_the_zones_name() -> None:
    async with linked() as (link, _):
        with pytest.raises(AgentFault, match=r"^zone web: the agent has no method dance$") as caught:
            await link.call("dance")
        assert caught.value.reason == "unknown-method"
        assert not caught.value.temporary
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("argv", "result"), [(["code", "3"], {"exit": {"code": 3}}), (["signal", "9"], {"exit": {"signal": 9}})]
)
@in_loop
async def test_exec_streams_both_ways_and_ends_as_the_process_does(argv: list[str], result: Any) -> None:
    data = bytes(range(256)) * 2000
    async with linked() as (link, agent):
        stream = await link.open("exec", {"process": {"argv": argv}})

        async def feed() -> None:
            await stream.write(0, data)
            await stream.event({"resize": [24, 80]})
            await stream.eof(0)

        _, (found, events) = await asyncio.gather(feed(), gathered(stream))
        assert found == {1: data}
        assert events == [{"started": 7}, ("eof", 2)]
        assert await stream.result() == result
        assert agent.opened == [("exec", {"process": {"argv": argv}})]
        stream.cancel()
        assert agent.cancelled == []
        with pytest.raises(AgentFault, match="exec is over"):
            await stream.write(0, b"x")


@in_loop
async def test_a_slow_reader_slows_its_own_stream_only() -> None:
    async with linked() as (link, agent):
        agent.logs = {1: b"o" * 1_000_000, 2: b"e" * 300_000}
        slow = await link.open("logs")
        await until(lambda: sum(len(part.data) for part in slow._parts) == 2 * WINDOW_BYTES)
        other = await link.open("exec", {"process": {"argv": ["code"]}})
        await other.write(0, b"x" * 500_000)
        await other.eof(0)
        assert (await gathered(other))[0] == {1: b"x" * 500_000}
        assert await link.call("ping") == {}
        assert sum(len(part.data) for part in slow._parts) == 2 * WINDOW_BYTES
        found, _ = await gathered(slow)
        assert {fd: len(data) for fd, data in found.items()} == {1: 1_000_000, 2: 300_000}
        assert await slow.result() == {}


@in_loop
async def test_credit_of_an_acknowledged_stream_is_what_was_acknowledged() -> None:
    async with linked() as (link, agent):
        agent.logs = {1: bytes(200_000), 2: b""}
        async with await link.open("logs", {"container": "main", "from": {"1": 0}}, acknowledged=True) as stream:
            got = 0
            async for _, _, data in stream:
                got += len(data)
                if got == WINDOW_BYTES:
                    break
            await link.call("ping")
            assert agent.acknowledged[1] == 0
            stream.acknowledge(1, got)
            async for _, fd, data in stream:
                stream.acknowledge(fd, len(data))
                got += len(data)
            assert got == 200_000
        await link.call("ping")
        # Of the last bytes the agent needs no word: its result has come.
        assert agent.acknowledged[1] >= 200_000 - WINDOW_BYTES


@in_loop
async def test_a_call_that_takes_too_long_is_given_up_at_both_ends() -> None:
    async with linked() as (link, agent):
        with pytest.raises(AgentFault, match=r"zone web: no answer to sleep within 0\.05 s") as caught:
            await link.call("sleep", timeout_s=0.05)
        assert caught.value.temporary
        await link.call("ping")
        assert agent.cancelled == [1]
        assert not link._streams


@in_loop
async def test_whoever_stops_waiting_cancels_the_call() -> None:
    async with linked() as (link, agent):
        task = asyncio.create_task(link.call("sleep", timeout_s=30))
        await until(lambda: agent.opened)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: agent.cancelled == [1])
        stream = await link.open("sleep")
        stream.cancel()
        stream.cancel()
        await until(lambda: agent.cancelled == [1, 2])
        with pytest.raises(AgentFault, match="sleep was cancelled"):
            await stream.result()
        with pytest.raises(AgentFault, match="sleep was cancelled"):
            await stream.__anext__()


@in_loop
async def test_a_result_may_be_awaited_for_a_time() -> None:
    async with linked() as (link, _):
        stream = await link.open("sleep")
        with pytest.raises(AgentFault, match=r"no answer to sleep within 0\.01 s"):
            await stream.result(0.01)


@in_loop
async def test_notes_come_to_all_who_listen() -> None:
    async with linked() as (link, agent):
        heard: list[Any] = []
        stop = link.on_note(heard.append)
        link.on_note(lambda note: heard[10])  # raises, and disturbs nobody
        agent.exit(code=3)
        agent.note("oom", container="main")
        await until(lambda: len(heard) == 2)
        assert heard[0] == {"seq": 1, "event": "exit", "container": "main", "code": 3}
        stop()
        agent.note("phase")
        await link.call("ping")
        assert len(heard) == 2


@in_loop
async def test_a_snooper_sees_what_both_ends_say() -> None:
    async with linked() as (link, _):
        seen: list[Any] = []
        stop = link.snoop(lambda *frame: seen.append(frame))
        await link.call("ping", {"x": 1})
        stop()
        await link.call("ping")
        assert (">", frames.OPEN, 0, 1, b'{"method":"ping","params":{"x":1}}') in seen
        assert ("<", frames.RESULT, 0, 1, b'{"ok":{}}') in seen
        assert not any(stream == 2 for _, _, _, stream, _ in seen)


@in_loop
async def test_whoever_is_given_a_link_as_it_is_opened_sees_its_first_frame() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[Any] = []
        domain: Any = SimpleNamespace(name="web", channel=DescriptorTransport(ours.detach()))
        link = await open_link(domain, lambda made: seen.append(made.snoop(lambda *frame: seen.append(frame))))
        assert link is not None
        assert [kind for direction, kind, *_ in seen[1:] if direction == ">"] == [frames.HELLO]
        await link.close()
    domain = SimpleNamespace(name="web", channel=None)
    assert await open_link(domain, lambda made: pytest.fail("there is no channel")) is None


@in_loop
async def test_a_message_that_is_too_long_is_refused_here() -> None:
    async with linked() as (link, _):
        with pytest.raises(AgentFault, match="message: expected at most"):
            await link.call("ping", {"x": "y" * (1 << 20)})
        assert await link.call("ping", {"x": "y" * 500_000}) == {}


@in_loop
async def test_without_an_answer_calls_say_so_and_greeting_goes_on() -> None:
    async with linked(answer_s=0.01, greets=False) as (link, agent):
        with pytest.raises(AgentFault, match=r"no answer to ping within 0\.2 s, its agent has not answered yet"):
            await link.call("ping", timeout_s=0.2)
        with pytest.raises(AgentFault, match="its agent has not answered yet") as caught:
            await link.open("exec")
        assert caught.value.temporary
        await until(lambda: len(agent.sessions) > 1)
        assert len(agent.sessions) < 8  # with growing pauses
        agent.greets = True
        assert await link.call("ping") == {}


@in_loop
async def test_an_agent_that_begins_anew_asks_for_a_session() -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")
        agent.raw(frames.guest_greeting(b'{"version":1,"session":""}'))
        with pytest.raises(AgentFault, match="its agent's session ended: its agent began anew") as caught:
            await stream.result()
        assert caught.value.temporary
        assert await link.call("ping") == {}
        assert len(agent.sessions) == 2


@in_loop
async def test_an_agent_whose_terminal_ate_the_greeting_asks_for_another() -> None:
    async with linked(answer_s=30, greets=False) as (link, agent):
        await until(lambda: agent.sessions)
        agent.greets = True
        agent.raw(frames.guest_greeting(b'{"version":1,"session":""}'))
        assert await link.call("ping") == {}


@in_loop
async def test_a_driver_that_closes_and_comes_again_gets_a_new_session() -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")
        transport = link._transport
        assert isinstance(transport, DescriptorTransport)
        transport.hang_up()
        with pytest.raises(AgentFault, match="session ended: the zone closed it"):
            await stream.result()
        with pytest.raises(AgentFault, match="session ended: the zone closed it"):
            await link.call("ping", timeout_s=0.01)
        link.start()
        assert await link.call("ping") == {}
        assert len(agent.sessions) == 2


@in_loop
async def test_whoever_follows_a_killed_process_gets_a_session_at_once() -> None:
    """The first link dies amid frames of both directions; the second starts on the same wire."""
    transport, agent = fakeagent.pair()
    for turn in range(1, 6):
        agent.logs = {1: b"\xa5\0\1" * 100_000, 2: bytes(100_000)}
        link = AgentLink(transport, "web")
        link.start()
        await link.connected.wait()
        assert len(agent.sessions) == turn
        stream = await link.open("logs")
        exec_stream = await link.open("exec", {"process": {"argv": ["code"]}})
        await exec_stream.write(0, bytes(3000 + 777 * turn))
        async for _ in stream:
            break
        link._closed = True  # killed: says nothing, and reads nothing any more
        link._transport = transport.__class__.__new__(transport.__class__)
        if link._flushing:
            link._flushing.cancel()
    link = AgentLink(transport, "web")
    link.start()
    agent.ended = True
    found, _ = await gathered(await _opened(link, "logs"))
    assert found == agent.logs
    await link.close()
    agent.close()


async def _opened(link: AgentLink, method: str) -> AgentStream:
    await link.connected.wait()
    return await link.open(method)


@in_loop
async def test_the_zone_never_has_more_on_its_way_than_the_ring_holds() -> None:
    """Nobody reads, as after kill -9: a guest that wrote on would spin in its console driver."""
    transport, agent = fakeagent.pair()
    link = AgentLink(transport, "web")
    link.start()
    await link.connected.wait()
    agent.logs = {1: bytes(1 << 20), 2: b""}
    await link.open("logs")
    for _ in range(20):
        await asyncio.sleep(0)
    asyncio.get_running_loop().remove_reader(transport.descriptor)
    for _ in range(50):
        agent.note("more", text="x" * 3000)
        await asyncio.sleep(0)
    unread = 0
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(transport.descriptor, 1 << 20):
            unread += len(piece)
    assert 0 < unread <= frames.LINK_WINDOW_BYTES
    assert agent.outbox.unanswered
    await link.close()
    agent.close()


@in_loop
async def test_closing_fails_what_waits() -> None:
    async with linked() as (link, _):
        task = asyncio.create_task(link.call("sleep"))
        await until(lambda: link._streams)
        await link.close()
        await link.close()
        with pytest.raises(AgentFault, match="the link was closed"):
            await task
        for again in (link.open, link.call):
            with pytest.raises(AgentFault, match="the link was closed"):
                await again("ping")
