"""An exec that was killed for want of memory is told as such, and no other."""

from types import SimpleNamespace

import pytest

from runtime.init.agent import execs


class Stream:
    """Keeps its result."""

    over, result, refuse = False, None, None

    def event(self, value):
        """Nobody asks."""

    def succeed(self, ok):
        self.result = ok


@pytest.mark.parametrize(
    ("status", "kills", "told"),
    [
        (9, 1, {"signal": 9, "oom": True}),
        (9, 0, {"signal": 9}),
        (0, 1, {"code": 0}),  # another process of the container was
        (15, 1, {"signal": 15}),
        (137 << 8, 1, {"code": 137}),
    ],
)
def test_only_what_was_killed_while_memory_was_short_counts_as_that(monkeypatch, status, kills, told):
    counted = [0, kills]
    box = SimpleNamespace(running=True, turns=None, runtime=SimpleNamespace(oom_kills=lambda: counted.pop(0)))
    agent, stream = SimpleNamespace(children={}, used={}), Stream()
    monkeypatch.setattr(execs, "start", lambda *_, began, **__: began(SimpleNamespace(outputs={}), 7))
    execs.Exec(agent, stream, box, {"argv": ["x"]})
    agent.children[7](status)
    assert stream.result["exit"] == told
