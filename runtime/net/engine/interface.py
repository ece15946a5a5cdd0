"""What a network asks of its engine, whichever it is."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from runtime.net.engine.flows import Flow
from runtime.net.engine.model import EngineConfig, ZonePart


class Handback(NamedTuple):
    """A zone's sockets: those of model.INSIDE, and (key, zone_port, listener) of its published ports."""

    inside: list[socket.socket]
    published: list[tuple[str, int, socket.socket]]


class EngineHandle(Protocol):
    """A running engine."""

    @property
    def pid(self) -> int:
        """Its process."""

    @property
    def start_time(self) -> int:
        """Clock ticks from boot to its start: with the pid, the process's identity (proc(5), stat field 22)."""

    def alive(self) -> bool:
        """Does the process run?"""

    def last_words(self) -> str:
        """Why it ended, as far as that is known."""

    def wait_ready(self, timeout_s: float) -> None:
        """Return when it serves. Raises EngineFault."""

    def zones(self) -> list[str]:
        """The zones it has. Raises EngineFault."""

    def admit(self, zone: ZonePart, inside: Sequence[socket.socket]) -> None:
        """Serve one more zone, by these sockets (model.INSIDE). Raises EngineFault."""

    def leave(self, zone: str) -> None:
        """End all it has of a zone. Raises EngineFault; UnknownToEngine."""

    def counters(self, zone: str) -> dict[str, int]:
        """See model.COUNTERS. Raises EngineFault."""

    def flows(self, zone: str) -> list[Flow]:
        """What passes through it for a zone now. Raises EngineFault."""

    def publish(self, zone: str, listener: socket.socket, key: str, zone_port: int) -> None:
        """Give it a listener whose connections go to the zone. Raises EngineFault."""

    def unpublish(self, zone: str, key: str) -> None:
        """Stop listening there. Raises EngineFault; UnknownToEngine."""

    def settle(self, zone: str) -> None:
        """Have in effect all it was told of a zone; returns when it is. Raises EngineFault."""

    def resolve_by(self, resolvers: tuple[str, ...]) -> None:
        """Pass the zones' questions to these from now on. Raises EngineFault."""

    def judge_by(self, zone: str, rules: tuple[str, ...]) -> None:
        """Ask these egress rules for a zone from now on; what has been let out goes on. Raises EngineFault."""

    def handback(self, zone: str) -> Handback:
        """Duplicates of all a zone's sockets; it goes on serving them. Raises EngineFault; UnknownToEngine."""

    def stop(self) -> None:
        """End it; returns when it is gone. Harmless twice."""


class Prepared(Protocol):
    """An engine's process that waits for its config: it holds nothing and ends by itself when its starter dies."""

    @property
    def pid(self) -> int:
        """Its process."""

    @property
    def start_time(self) -> int:
        """See EngineHandle."""

    def start(self, config: EngineConfig) -> EngineHandle:
        """Send the config; does not wait, see wait_ready."""

    def stop(self) -> None:
        """End it unused."""


class Engine(Protocol):
    """A way to move a network's bytes."""

    name: str

    def look(self) -> None:
        """Raises EngineFault where this host has not what it needs."""

    def prepare(self, inherited: tuple[int, ...], control: Path, log_file: Path) -> Prepared:
        """Start the process with these descriptors, but not its work: its pid is to be recorded in between."""

    def adopt(self, whose: str, pid: int, start_time: int, control: Path, log_file: Path) -> EngineHandle:
        """A handle on an engine that another process started."""
