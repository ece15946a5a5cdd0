"""Streams that wait for the end of a container: it is told to them, and those that are over leave nothing behind."""

from types import SimpleNamespace

import pytest

from runtime.init.agent import methods
from runtime.init.agent.output import Output
from runtime.init.agent.stream import Stream
from runtime.init.channel import frames
from runtime.init.channel.jsonwrite import dumps


@pytest.fixture
def world():
    """An agent with one container that runs, and a link that keeps what it is to send."""
    made = SimpleNamespace(sent=[], streams={}, data={})
    made.put, made.ready = made.sent.append, lambda outlet: None
    made.box = SimpleNamespace(
        name="box",
        running=True,
        active=True,
        ended=[],
        exit={"code": 3},
        stop=lambda number, timeout_s: None,
        outputs={1: Output(lambda: True, lambda: None)},
        stdio=SimpleNamespace(stdin=SimpleNamespace(open=True)),
    )
    made.container = lambda name: made.box
    return made


def opened(world, method, number):
    stream = world.streams[number] = Stream(world, number, method)
    methods.call(world, stream, {"id": "box", "container": "box"})
    return stream


@pytest.mark.parametrize("method", ["logs", "stdin", "stop"])
def test_a_stream_that_is_over_leaves_nothing_with_its_container(world, method):
    for number in range(1, 4):
        opened(world, method, number).abandon()
    assert world.box.ended == []


@pytest.mark.parametrize(("method", "result"), [("stdin", {}), ("stop", {"exit": {"code": 3}})])
def test_a_stream_that_waits_is_told_of_the_end(world, method, result):
    opened(world, method, 1).abandon()
    stream = opened(world, method, 2)
    ended, world.box.ended = world.box.ended, []
    for callback in ended:
        callback()
    assert stream.over and world.sent == [frames.message(frames.RESULT, 2, dumps({"ok": result}))]
