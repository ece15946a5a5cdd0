"""The link against a zone that breaks the protocol: its own stream or session ends, memory stays, nothing raises."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakeagent import FakeAgent, in_loop, linked, until
from support.fuzz import fuzz

from runtime.host.agentlink import link as links
from runtime.host.agentlink import stream as streams
from runtime.host.agentlink import strictjson
from runtime.host.agentlink.link import VERSION, AgentLink
from runtime.host.agentlink.model import AgentFault
from runtime.init.channel import frames
from runtime.init.channel.credit import WINDOW_BYTES

BEYOND = frames.data(1, 1, bytes(WINDOW_BYTES + 1))
DEEP = b'{"a":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (BEYOND, "descriptor 1: expected at most"),
        (frames.frame(frames.EOF, 1, fd=1) * 2, "expected one EOF of descriptor 1"),
        (frames.frame(frames.EOF, 1, fd=1) + frames.data(1, 1, b"x"), "expected no bytes behind the EOF"),
        (frames.credit(1, 0, 0xFFFFFFFF), "credit of descriptor 0: expected at most"),
        (frames.message(frames.RESULT, 1, b"[]"), "JSON: expected an object, got list"),
        (frames.message(frames.RESULT, 1, b"{}"), 'expected a result with "ok" or "error", got neither'),
        (frames.message(frames.RESULT, 1, b'{"ok":1}'), 'expected a result with "ok" or "error", got neither'),
        (frames.message(frames.RESULT, 1, b'{"ok":{"x":NaN}}'), "expected a finite number, got NaN"),
        (frames.message(frames.RESULT, 1, b'{"ok":{"x":1e400000}} x'), "Extra data"),
        (frames.message(frames.RESULT, 1, b"\xff"), "codec can't decode"),
        (frames.message(frames.RESULT, 1, DEEP), "nested endlessly"),
        (frames.message(frames.RESULT, 1, b'{"a":' + b"9" * 5000), "integer string conversion"),
        (frames.message(frames.EVENT, 1, b'"%b"' % (b"x" * streams.MAX_EVENT_BYTES)), "unread events"),
        (frames.message(frames.EVENT, 1, b"{}") * (streams.MAX_UNREAD_EVENTS + 1), "unread events"),
        (frames.message(frames.OPEN, 1, b"{}"), "expected a frame of the agent, got OPEN"),
        (frames.frame(frames.CANCEL, 1), "expected a frame of the agent, got CANCEL"),
        (
            frames.frame(frames.EVENT | frames.MORE, 1, bytes(4096)) * 300 + frames.frame(frames.EVENT, 1),
            "Expecting value",
        ),
    ],
)
@in_loop
async def test_what_breaks_a_stream_ends_that_stream_alone(sent: bytes, words: str) -> None:
    async with linked() as (link, agent):
        stream, other = await link.open("sleep"), await link.open("exec", {"process": {"argv": ["code", "5"]}})
        await other.write(0, b"x")
        agent.outbox.put(sent)
        agent.flush()
        with pytest.raises(AgentFault, match="its agent broke the protocol of sleep: ") as caught:
            if sent.startswith(b"\x85"):  # an event is read when it is taken
                await stream.__anext__()
            await stream.result()
        assert words in str(caught.value)
        assert len(str(caught.value)) < 500
        await other.eof(0)
        assert await other.result() == {"exit": {"code": 5}}
        assert await link.call("ping") == {}
        assert agent.cancelled == [1]
        assert len(agent.sessions) == 1


@in_loop
async def test_an_event_that_is_no_json_is_told_when_it_is_read() -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")
        agent.send(frames.message(frames.EVENT, 1, b'{"a":1}') + frames.message(frames.EVENT, 1, b"nonsense"))
        assert await stream.__anext__() == (frames.EVENT, 0, {"a": 1})
        with pytest.raises(AgentFault, match="broke the protocol of sleep"):
            await stream.__anext__()


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage",
        frames.data(1, 1, b"x")[:-1] + b"\0",
        frames.message(frames.NOTE, 0, b"no json"),
        frames.message(frames.NOTE, 0, b"{%b}" % (b" " * links.MAX_NOTE_BYTES)),
        frames.message(frames.HELLO, 0, b'{"version":1,"session":"ffffffffffffffff"}'),
        frames.message(frames.HELLO, 0, b"{"),
        frames.message(frames.NOTE, 0, b'{"seq":1,"event":"lost","sentence":"frame: got junk"}'),
    ],
)
@in_loop
async def test_what_breaks_the_session_begins_another(sent: bytes) -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")
        agent.raw(sent + b"........")
        with pytest.raises(AgentFault, match="its agent's session ended: ") as caught:
            await stream.result()
        assert caught.value.temporary
        assert await link.call("ping") == {}
        assert len(agent.sessions) == 2


@in_loop
async def test_a_series_of_losses_makes_the_pauses_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_FIRST_PAUSE_S", 0.001)
    async with linked() as (link, agent):
        pauses: list[float] = []
        after = link._after

        def noting(delay_s: float | None, callback: Any = None) -> None:
            if callback == link._greet and delay_s is not None:
                pauses.append(delay_s)
            after(delay_s, callback)

        monkeypatch.setattr(link, "_after", noting)
        for turn in range(6):
            agent.raw(b"garbage!")
            await until(lambda turn=turn: len(pauses) == turn + 1)  # type: ignore[misc]
            await link.connected.wait()
        assert pauses == [0.001 * 2 ** (turn + 1) for turn in range(6)]


@in_loop
async def test_another_version_is_told() -> None:
    async with linked(greets=False) as (link, agent):
        await until(lambda: agent.sessions)
        agent.raw(frames.guest_greeting(b'{"version":2,"session":"%b"}' % agent.sessions[0].encode()))
        await until(lambda: "version" in link._why)
        with pytest.raises(AgentFault, match="expected version 1 of the agent's protocol, got 2"):
            await link.open("ping")


@in_loop
async def test_bytes_one_by_one_do_not_cost_an_object_each() -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")
        one = b"".join(frames.data(1, fd, b"x") for fd in (1, 2)) * (WINDOW_BYTES // 4)
        agent.send(one)
        await until(lambda: sum(len(part.data) for part in stream._parts) == WINDOW_BYTES // 2)
        assert len(stream._parts) <= streams._MAX_UNREAD_PARTS
        got = [0, 0, 0]
        while sum(got) < WINDOW_BYTES // 2:
            _, fd, data = await stream.__anext__()
            got[fd] += len(data)
        assert got == [0, WINDOW_BYTES // 4, WINDOW_BYTES // 4]


@in_loop
async def test_a_zone_that_does_not_read_loses_its_session_and_not_our_memory() -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")
        asyncio.get_running_loop().remove_reader(agent.descriptor)
        event = {"x": "y" * 30_000}
        with pytest.raises(AgentFault, match="it does not read"):
            while True:
                await stream.event(event)
                await asyncio.sleep(0)
        assert link._outbox.waiting_bytes <= links.MAX_UNREAD_BYTES + 40_000


@in_loop
async def test_a_zone_that_writes_without_credit_and_reads_nothing_makes_nothing_pile_up() -> None:
    async with linked() as (link, agent):
        stream = await link.open("sleep")

        async def read() -> None:
            async for _ in stream:
                pass

        reader = asyncio.create_task(read())
        loop = asyncio.get_running_loop()
        loop.remove_reader(agent.descriptor)
        note = frames.message(frames.NOTE, 0, b"{}")
        piece = frames.data(1, 1, bytes(4096)) + note * 50
        for _ in range(500):
            await loop.run_in_executor(None, agent.raw, piece)
        assert link._outbox.waiting_bytes <= links.MAX_UNREAD_BYTES
        reader.cancel()


@in_loop
async def test_floods_while_no_session_is_are_dropped_and_cost_nothing() -> None:
    noise = random.Random(7).randbytes(4096)
    async with linked(answer_s=0.05, greets=False) as (link, agent):
        loop = asyncio.get_running_loop()
        hello = frames.guest_greeting(b'{"version":1,"session":"0123456789abcdef"}')
        for piece in (bytes(4096), noise, hello * 50, bytes(16) + b"\1\0\0\x10\0\0\0\0" + bytes(4000), b"{" * 4096):
            for _ in range(50):
                await loop.run_in_executor(None, agent.raw, piece)
        assert len(link._parser._rest) < 5000
        agent.greets = True
        assert await link.call("ping") == {}


pieces = st.one_of(
    st.binary(max_size=300),
    st.integers(1, 5000).map(bytes),
    st.builds(
        lambda kind, stream, fd, payload: frames.frame(kind, stream, payload, fd),
        st.integers(0, 255),
        st.integers(0, 3),
        st.integers(0, 3),
        st.binary(max_size=300),
    ),
    st.builds(
        lambda kind, stream, text: frames.message(kind, stream, text),
        st.sampled_from(frames.JSON_KINDS),
        st.integers(0, 3),
        st.sampled_from([b"{}", b'{"ok":{}}', b'{"error":{}}', b'{"error":{"reason":1,"sentence":[]}}', b"[", b"1"]),
    ),
)


async def _survives(sent: list[bytes]) -> None:
    async with linked(answer_s=0.01) as (link, agent):
        reading = asyncio.create_task(_read_all(link))
        for piece in sent:
            agent.raw(piece)
            await asyncio.sleep(0)
        await _answers(link, agent)
        reading.cancel()


async def _read_all(link: AgentLink) -> None:
    stream = await link.open("sleep")
    async for _ in stream:
        pass


async def _answers(link: AgentLink, agent: FakeAgent) -> None:
    """In this session or a later one, whatever its state is now."""
    timeout_s = 0.05
    while True:
        try:
            assert await link.call("ping", timeout_s=timeout_s) == {}
            return
        except AgentFault:
            timeout_s *= 2  # both ends may have had no turn in that time
            agent.outbox.put(b"")
            # A frame the noise has begun swallows what follows it: only the host's doubts, or the guest's, end that.
            agent.raw(b"\xff" * 5000)


@fuzz(150)
@given(st.lists(pieces, max_size=8))
def test_fuzz_whatever_a_zone_sends_the_link_lives_on(sent: list[bytes]) -> None:
    links._FIRST_PAUSE_S, before = 0.001, links._FIRST_PAUSE_S
    try:
        asyncio.run(asyncio.wait_for(_survives(sent), 120))
    finally:
        links._FIRST_PAUSE_S = before


def test_half_a_surrogate_pair_is_no_text_that_goes_on() -> None:
    """protobuf would refuse it, in the answer to whoever lists all zones."""
    assert strictjson.loads(b'{"state":"\\ud800","\\udfff":["\\u00e9"]}') == {"state": "?", "?": ["\xe9"]}


@pytest.mark.parametrize("depth", [300, 900, 980, 990, 1000, 2000])
def test_half_a_surrogate_pair_far_within_is_an_object_or_none_and_no_other_error(depth: int) -> None:
    text = b'{"\\ud800":' + b"[" * depth + b"]" * depth + b"}"
    try:
        assert list(strictjson.loads(text)) == ["?"]
    except ValueError as refused:
        assert depth > 300 and "nested endlessly" in str(refused)


@in_loop
async def test_who_looks_on_sees_the_bytes_of_what_is_no_frame() -> None:
    async with linked() as (link, agent):
        seen: list[tuple[object, ...]] = []
        link.snoop(lambda *frame: seen.append(frame))
        agent.outbox.put(b"\xff" * 64)
        agent.flush()
        await until(lambda: not link.connected.is_set())
        (lost,) = [frame for frame in seen if frame[1] == frames.LOST]
        assert lost[0] == "<" and frames.Parser().feed(lost[-1]) == [(frames.LOST, 0, 0, b"a frame of kind 0xff")]


@in_loop
async def test_greeting_larger_than_an_agent_may_send_is_none() -> None:
    async with linked(greets=False) as (link, agent):
        text = b'{"version":%d,"session":"%b","x":"%b"}' % (
            VERSION,
            link._session.encode(),
            b"x" * frames.MAX_GREETING_BYTES,
        )
        agent.outbox.put(frames.message(frames.HELLO, 0, text))
        agent.flush()
        with pytest.raises(AgentFault, match="its agent has not answered yet"):
            await link.call("ping", timeout_s=0.2)
