"""What a check takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.boot.machine import ChannelState, Grant
from runtime.net.published import key_of


@dataclass(frozen=True)
class Finding:
    """One difference between the host and the ledgers. remedy: what ends it, as typed in dom0; "" where time does."""

    kind: str
    what: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.problem}" + (f" ({self.remedy})" if self.remedy else "")


@dataclass(frozen=True)
class Report:
    """What a check found. looked_at: kind -> how many things were compared; unseen: what gave no view, and why."""

    findings: tuple[Finding, ...]
    looked_at: dict[str, int]
    unseen: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.looked_at.items()))
        lines = [*map(str, self.findings), *(f"not seen: {sentence}" for sentence in self.unseen)]
        return "\n".join([*lines, f"compared: {counts}; {len(self.findings)} findings"])


class Process(NamedTuple):
    """A process, and not a later one of the same pid."""

    pid: int
    start_time: int


class HostPort(NamedTuple):
    """A port of the host."""

    address: str
    port: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        return key_of(*self)


class Device(NamedTuple):
    """A half of a device in xenstore."""

    kind: str
    domid: int
    number: str


@dataclass(frozen=True)
class FoundDomain:
    """A domain Xen has."""

    domid: int
    uuid: str
    dying: bool = False
    pages: int = 0


@dataclass
class Found:
    """What a host has.

    homes:        domid -> D/zone/uuid, None where the tree is not ours.
    errors:       what the kernel wrote about a back end.
    kernel:       back ends the kernel has, KIND-DOMID-NUMBER.
    channels:     dom0's; grants: of domains of ours and of dying ones.
    interfaces:   of the host's namespace; links: of each namespace of ours.
    namespaces:   names below /run/netns that are ours -> is a namespace mounted there?
    shares:       processes that serve a directory to a zone.
    orphans:      image tasks' processes that are no children of this one.
    listening:    ports of the host, for UDP those bound without a peer; held: those held by each engine; own: those
                  held by this process.
    mounts, cgroups, files: below the directories that are ours.
    """

    domains: list[FoundDomain] = field(default_factory=list)
    homes: dict[int, str | None] = field(default_factory=dict)
    backends: set[Device] = field(default_factory=set)
    frontends: set[Device] = field(default_factory=set)
    errors: dict[Device, str] = field(default_factory=dict)
    kernel: set[str] = field(default_factory=set)
    channels: list[ChannelState] = field(default_factory=list)
    grants: dict[int, tuple[Grant, ...]] = field(default_factory=dict)
    loops: dict[str, str] = field(default_factory=dict)
    interfaces: set[str] = field(default_factory=set)
    namespaces: dict[str, bool] = field(default_factory=dict)
    links: dict[str, set[str]] = field(default_factory=dict)
    processes: set[Process] = field(default_factory=set)
    engines: set[Process] = field(default_factory=set)
    shares: set[Process] = field(default_factory=set)
    orphans: set[Process] = field(default_factory=set)
    zombies: dict[int, str] = field(default_factory=dict)
    listening: set[HostPort] = field(default_factory=set)
    held: dict[Process, set[HostPort]] = field(default_factory=dict)
    own: set[HostPort] = field(default_factory=set)
    mounts: set[str] = field(default_factory=set)
    cgroups: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)
