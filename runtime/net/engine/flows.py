"""What passes through an engine now, as plain records: anything that has flows lists them by `flows`.

Named tuples only, as in model.py: the engine's process imports this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

# Rows of one answer: a packet of the control socket holds far more than these take.
PAGE_ROWS = 200


class Flow(NamedTuple):
    """One connection, or what stands for one.

    protocol:  "tcp", "udp"; a ping is over with its answer, and only counted.
    zone_side: the zone's end, address:port, [address]:port for IPv6. outside: the other end.
    state:     "connecting", "open".
    bytes_up:  from the zone; bytes_down: to it. age_s: since the engine has known it.
    """

    protocol: str
    zone_side: str
    outside: str
    state: str
    bytes_up: int
    bytes_down: int
    age_s: float


class HasFlows(Protocol):
    """A part of the engine that has flows; it is among Traffic.sources."""

    def flows(self, now: float) -> Iterable[Flow]:
        """Those it has now. now: time.monotonic()."""


def endpoint(address: tuple[Any, ...]) -> str:
    """A socket's address as people write it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def page(sources: Iterable[HasFlows], after: list[str], now: float) -> list[Flow]:
    """The next flows in the order of their ends, behind `after`: [protocol, zone_side, outside] of the one before.

    So no flow comes twice, and one that is there all the while is not missed, however many come and go meanwhile.
    """
    rows = sorted(flow for source in sources for flow in source.flows(now) if list(flow[:3]) > after)
    return rows[:PAGE_ROWS]
