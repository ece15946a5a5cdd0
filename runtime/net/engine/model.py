"""What an engine is told when it starts, and what it counts. Plain JSON on the wire, so it can run elsewhere later.

Named tuples and `json` only: the engine's process imports this, and under emulation every import is paid dearly.
"""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any, NamedTuple

from pipeline.bundle.egress import Network, Rule, parse_rule
from runtime.net.errors import EngineFault

MAX_PUBLISHED = 200  # ports of one zone: all of them go back in one packet, see control.MAX_DESCRIPTORS


class Limits(NamedTuple):
    """Bounds of one network's engine. In flight are at most 2 * connections * chunk_bytes, and 1 MiB in each pipe.

    pipes:             an unprivileged user has no more of 1 MiB, see pipes.py; streams beyond them are copied.
    pending:           connections of the zone that are not made yet; one more makes the oldest give way.
    accept_timeout_s:  how long a connection that was made waits for the zone to complete its own half.
    udp_flows:         to the outside, and as many clients of published ports; one more makes an unanswered or else the
                       idlest one give way.
    echoes:            requests without an answer yet; one more makes the oldest give way.
    errors_per_s:      ICMP errors sent to the zone.
    """

    connections: int = 1024
    pipes: int = 60
    pending: int = 256
    connect_timeout_s: float = 30.0
    accept_timeout_s: float = 10.0
    idle_timeout_s: float = 7200.0
    chunk_bytes: int = 16384
    dns_pending: int = 128
    dns_timeout_s: float = 5.0
    dns_try_s: float = 1.5
    udp_flows: int = 256
    udp_idle_s: float = 60.0
    echoes: int = 256
    errors_per_s: int = 500


class Listeners(NamedTuple):
    """Descriptors the engine inherits: made inside the network's namespace, the last three excepted.

    tcp4/6:     TPROXY leads to them what the gate lets through. udp4/6: and first datagrams.
    packet4/6:  copies of the zone's SYNs and echo requests. raw4/6: whole packets into the namespace.
    echo4/6:    the host's, for echo requests with EngineConfig.echo_identifier.
    """

    tcp4: int
    tcp6: int
    udp4: int
    udp6: int
    dns_udp4: int
    dns_udp6: int
    dns_tcp4: int
    dns_tcp6: int
    packet4: int
    packet6: int
    raw4: int
    raw6: int
    echo4: int
    echo6: int
    control: int


# What an engine hands back: all it inherited from the network's namespace.
INSIDE = Listeners._fields[:-3]


class EngineConfig(NamedTuple):
    """Everything the engine knows.

    mtu:    of the zone's link.
    netns:  path of the namespace in which connections towards the zone are opened.
    uid:    user and group it becomes after set-up.
    resolvers: the host's name servers, see runtime.net.resolvers.
    deny:   further closed networks, see policy.decide.
    egress: the zone's rules, see pipeline.bundle.egress.
    seccomp: its filter, as hexadecimal struct sock_filter[].
    """

    zone: str
    netns: str
    uid: int
    zone4: str
    zone6: str
    resolvers: tuple[str, ...]
    gateway4: str
    gateway6: str
    mtu: int
    echo_identifier: int
    deny: tuple[str, ...]
    egress: tuple[str, ...]
    seccomp: str
    limits: Limits
    listeners: Listeners

    def denied(self) -> tuple[Network, ...]:
        """`deny` as networks."""
        return tuple(ip_network(text) for text in self.deny)

    def rules(self) -> tuple[Rule, ...]:
        """`egress` as rules. Raises ValueError."""
        return tuple(parse_rule(text) for text in self.egress)


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
        for name in ("deny", "egress", "resolvers"):
            document[name] = tuple(document[name])
        return EngineConfig(**document)
    except (ValueError, TypeError, KeyError) as error:
        raise EngineFault("engine config", expected="one JSON object", got=str(error)) from error


# Counters of the proxy engine, all since its start but the last ones.
COUNTERS = (
    "accepted",  # connections of the zone made
    "denied",  # refused by policy
    "failed",  # the outer side refused, was unreachable or timed out
    "limited",  # refused or given up because of Limits
    "malformed",  # packets that are none
    "udp_flows",  # flows of the zone's begun
    "echoes",  # echo requests of the zone's sent on
    "published",  # connections and UDP clients of published ports
    "bytes_up",  # from the zone
    "bytes_down",  # to the zone
    "dns_queries",
    "dns_failed",  # answered SERVFAIL
    "faults",  # handlers that ended in an unexpected exception
    "active",  # connections now
    "pending",  # connections now that wait for their outer side
    "udp_active",  # flows now
)
