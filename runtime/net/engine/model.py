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
    """Bounds of each zone of a network. In flight are at most two chunks of each connection, and 1 MiB in each pipe.

    connections:       of the zone to the outside. inward: to its published TCP ports.
    pipes:             of the whole engine, in equal shares: an unprivileged user has no more of 1 MiB, see pipes.py;
                       streams beyond them are copied.
    growing:           directions of connections whose queues the kernel may let grow, see queues.py.
    pending:           connections of the zone that are not made yet; one more makes the oldest give way.
    accept_timeout_s:  how long a connection that was made waits for the zone to complete its own half.
    silence_s:         how long what a connection sent may be without an answer, see silence.py.
    udp_flows:         to the outside, and as many clients of published ports; one more makes an unanswered or else the
                       idlest one give way.
    dns_pending:       queries without an answer, of both families and protocols together; and connections for them.
    echoes:            requests without an answer yet, and for how long; one more makes the oldest give way.
    errors_per_s:      ICMP errors sent to the zone.
    fragments_bytes:   of packets that are not whole yet, and for how long they wait: over a vif alone, so the largest
                       needs 8 s at the least bandwidth that a zone can be held to. More makes the oldest give way.
    """

    connections: int = 1024
    inward: int = 1024
    pipes: int = 60
    growing: int = 32
    pending: int = 256
    connect_timeout_s: float = 30.0
    accept_timeout_s: float = 10.0
    idle_timeout_s: float = 7200.0
    silence_s: float = 38.0
    chunk_bytes: int = 16384
    dns_pending: int = 128
    dns_timeout_s: float = 5.0
    dns_try_s: float = 1.5
    udp_flows: int = 256
    udp_idle_s: float = 60.0
    echoes: int = 256
    echo_wait_s: float = 60.0
    errors_per_s: int = 500
    fragments_bytes: int = 1 << 20
    fragments_wait_s: float = 10.0


class Listeners(NamedTuple):
    """Descriptors the engine inherits."""

    control: int


# What belongs to one zone: sockets made for it, so that nobody fills another's queue; inside the network's namespace,
# but for the last two.
# tcp4/6:      TPROXY leads to them what the gate lets through, and DNS over TCP. udp4/6: first datagrams, and DNS.
# dns4/6:      answer from the gateway's port 53, and never receive.
# packet4/6:   copies of the zone's SYNs and echo requests. raw4/6: whole packets into the namespace.
# part4/6:     copies of its fragments, see fragments.py.
# echo4/6:     the host's, for echo requests with ZonePart.echo_identifier to the outside, and their answers.
INSIDE = (
    *("tcp4", "tcp6", "udp4", "udp6", "dns4", "dns6"),
    *("packet4", "packet6", "raw4", "raw6", "part4", "part6", "echo4", "echo6"),
)


class ZonePart(NamedTuple):
    """A zone as its network's engine knows it.

    echo_identifier: no other zone of this host has it. egress: its rules, see pipeline.bundle.egress.
    """

    name: str
    zone4: str
    zone6: str
    echo_identifier: int
    egress: tuple[str, ...] = ()

    def rules(self) -> tuple[Rule, ...]:
        """`egress` as rules. Raises ValueError."""
        return tuple(parse_rule(text) for text in self.egress)


class EngineConfig(NamedTuple):
    """Everything the engine knows of its network; zones come by its control socket.

    whose:  the network, for messages: "zone web", "network db".
    mtu:    of the zones' links.
    netns:  path of the namespace in which connections towards the zones are opened.
    uid:    user and group it becomes after set-up.
    zones:  at most so many at once. subnets: all their addresses.
    resolvers: the host's name servers, see runtime.net.resolvers.
    deny:   further closed networks, see policy.decide.
    seccomp: its filter, as hexadecimal struct sock_filter[].
    limits: of each zone.
    pools: of this host's networks, see pool.py.
    """

    whose: str
    netns: str
    uid: int
    zones: int
    subnets: tuple[str, ...]
    resolvers: tuple[str, ...]
    gateway4: str
    gateway6: str
    mtu: int
    deny: tuple[str, ...]
    seccomp: str
    limits: Limits
    listeners: Listeners
    pools: tuple[str, str]

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
        for name in ("deny", "pools", "resolvers", "subnets"):
            document[name] = tuple(document[name])
        return EngineConfig(**document)
    except (ValueError, TypeError, KeyError) as error:
        raise EngineFault("engine config", expected="one JSON object", got=str(error)) from error


# Counters of the proxy engine for each zone, all since the zone came to it but the last ones.
COUNTERS = (
    "accepted",  # connections of the zone made
    "denied",  # refused by policy
    "failed",  # the outer side refused, was unreachable or timed out
    "limited",  # refused or given up because of Limits
    "malformed",  # packets that are none
    "udp_flows",  # flows of the zone's begun
    "echoes",  # echo requests of the zone's sent on
    "published",  # connections and UDP clients of published ports
    "bytes_up",  # from the zone, as far as the next queue took them
    "bytes_down",  # to the zone, the same
    "lost",  # datagrams that no queue took
    "dns_queries",
    "dns_failed",  # without an answer of any resolver
    "faults",  # handlers that ended in an unexpected exception, of all zones
    "active",  # connections now
    "pending",  # connections now that wait for their outer side
    "udp_active",  # flows now
)
