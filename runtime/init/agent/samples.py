"""The `metrics` stream: what is measured, again and again, a line of JSON each on descriptor 1."""

from runtime.init.agent import metrics, params
from runtime.init.agent.core import Agent
from runtime.init.agent.errors import Refused
from runtime.init.agent.params import Params
from runtime.init.agent.stream import Handler, Stream
from runtime.init.channel.jsonwrite import dumps

_LEAST_S, _MOST_S = 0.1, 86400.0


class Samples(Handler):
    """At once, and every so many seconds until the host lets go. One that has not gone yet is followed by no other."""

    def __init__(self, agent: Agent, stream: Stream, given: Params) -> None:
        self._agent, self._stream = agent, stream
        self._interval_s = params.seconds(given, "interval_s", 0.0)
        if not _LEAST_S <= self._interval_s <= _MOST_S:
            expected = f"{_LEAST_S:g} to {_MOST_S:g} seconds"
            raise Refused("params", f"interval_s: expected {expected}, got {self._interval_s:g}")
        self._rest = b""
        self._outlet = stream.outlet(1, self._take)
        self._sample()

    def _sample(self) -> None:
        if not self._rest:
            self._rest = dumps(metrics.collect(list(self._agent.containers))) + b"\n"
            self._outlet.wake()
        self._stream.after(self._interval_s, self._sample)

    def _take(self, limit: int) -> bytes | None:
        data, self._rest = self._rest[:limit], self._rest[limit:]
        return data or None
