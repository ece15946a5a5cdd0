"""What an engine is told when it starts, and what it counts. Plain JSON on the wire, so it can run elsewhere later.

Named tuples and `json` only: the engine's process imports this, and under emulation every import is paid dearly.
"""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any, NamedTuple

from runtime.net.errors import EngineFault
from runtime.net.policy import Network


class Limits(NamedTuple):
    """Bounds of one network's engine. Memory in flight is at most 2 * connections * chunk_bytes."""

    connections: int = 512
    connect_timeout_s: float = 30.0
    idle_timeout_s: float = 7200.0
    chunk_bytes: int = 65536
    dns_pending: int = 128
    dns_timeout_s: float = 5.0
    dns_try_s: float = 1.5


class Listeners(NamedTuple):
    """Descriptors the engine inherits: made inside the network's namespace, control excepted."""

    tcp4: int
    tcp6: int
    dns_udp4: int
    dns_udp6: int
    dns_tcp4: int
    dns_tcp6: int
    control: int


class EngineConfig(NamedTuple):
    """Everything the engine knows.

    netns:  path of the namespace in which connections towards the zone are opened.
    uid:    user and group it becomes after set-up.
    resolvers: the host's name servers, see runtime.net.resolvers.
    deny:   further closed networks, see policy.decide.
    seccomp: its filter, as hexadecimal struct sock_filter[].
    """

    zone: str
    netns: str
    uid: int
    zone4: str
    zone6: str
    resolvers: tuple[str, ...]
    deny: tuple[str, ...]
    seccomp: str
    limits: Limits
    listeners: Listeners

    def denied(self) -> tuple[Network, ...]:
        """`deny` as networks."""
        return tuple(ip_network(text) for text in self.deny)


def dump(config: EngineConfig) -> str:
    """The config as one line of JSON."""
    document = config._asdict()
    document.update(limits=config.limits._asdict(), listeners=config.listeners._asdict())
    return json.dumps(document)


def load(text: str) -> EngineConfig:
    """The config of a line of JSON. Raises EngineFault."""
    try:
        document: dict[str, Any] = json.loads(text)
        document["limits"] = Limits(**document["limits"])
        document["listeners"] = Listeners(**document["listeners"])
        document["deny"], document["resolvers"] = tuple(document["deny"]), tuple(document["resolvers"])
        return EngineConfig(**document)
    except (ValueError, TypeError, KeyError) as error:
        raise EngineFault("engine config", expected="one JSON object", got=str(error)) from error


# Counters of the proxy engine, all since its start but the last.
COUNTERS = (
    "accepted",  # connections of the zone taken
    "denied",  # refused by policy
    "failed",  # the outer side refused, was unreachable or timed out
    "limited",  # refused because of Limits.connections
    "published",  # connections to published ports taken
    "bytes_up",  # from the zone
    "bytes_down",  # to the zone
    "dns_queries",
    "dns_failed",  # answered SERVFAIL
    "faults",  # handlers that ended in an unexpected exception
    "active",  # connections now
)
