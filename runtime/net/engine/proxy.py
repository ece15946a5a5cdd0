"""The `splice` engine as its starter sees it: a process told by one JSON line and asked by a control socket."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.net import child
from runtime.net.engine import processes
from runtime.net.engine.control import ask
from runtime.net.engine.flows import Flow
from runtime.net.engine.interface import EngineHandle, Handback
from runtime.net.engine.model import INSIDE, EngineConfig, ZonePart, dump
from runtime.net.errors import EngineFault, OutdatedEngine, SilentEngine, UnknownToEngine

ENTRY = "from runtime.net.engine.main import main"  # in an engine's command line, which `zone system check` looks for
_ASK_TIMEOUT_S = 20.0
_ENDING_S = 1.0  # for a process to end whose sockets are closed: the kernel does no more than that between the two
_MOST_FLOWS = 20_000  # more than limits let an engine have: one that goes on for ever is not listened to


class ProxyHandle:
    """A running engine that is asked as this one is; made by its starter, or by a later zoned from its ledger."""

    INSIDE: tuple[str, ...] = INSIDE  # what it has of each zone

    def __init__(
        self, whose: str, pid: int, start_time: int, control: Path, log_file: Path, process: Any = None
    ) -> None:
        self._whose, self.pid, self.start_time = whose, pid, start_time
        self._control, self._log_file = control, log_file
        self._child: subprocess.Popen[bytes] | None = process

    def alive(self) -> bool:
        """Does the process run?"""
        if self._child is not None and self._child.poll() is not None:
            return False
        # A child that another thread waits for just then is said to run, whether it does or not.
        return processes.start_time_of(self.pid) == self.start_time

    def wait_ready(self, timeout_s: float) -> None:
        """Return when it serves. Raises EngineFault."""
        self._ask({"op": "status"}, timeout_s=timeout_s)

    def zones(self) -> list[str]:
        """The zones it has. Raises EngineFault."""
        with self._understood():
            return [str(zone) for zone in self._ask({"op": "status"})["zones"]]

    def admit(self, zone: ZonePart, inside: Sequence[socket.socket]) -> None:
        """Have it serve one more zone. Raises EngineFault."""
        addresses = [zone.zone4, zone.zone6]
        request = {"op": "admit", "zone": zone.name, "addresses": addresses, "echo": zone.echo_identifier}
        self._ask({**request, "egress": zone.egress}, passed=inside)

    def leave(self, zone: str) -> None:
        """End all it has of a zone. Raises EngineFault; UnknownToEngine."""
        self._ask({"op": "leave", "zone": zone})

    def counters(self, zone: str) -> dict[str, int]:
        """See model.COUNTERS. Raises EngineFault."""
        with self._understood():
            counters = self._ask({"op": "status", "zone": zone})["counters"]
            return {str(name): int(count) for name, count in counters.items()}

    def flows(self, zone: str) -> list[Flow]:
        """What passes through it for a zone now. Raises EngineFault."""
        found: list[Flow] = []
        while len(found) < _MOST_FLOWS:
            after = list(found[-1][:3]) if found else []
            with self._understood():
                rows = [Flow(*row) for row in self._ask({"op": "flows", "zone": zone, "after": after})["flows"]]
            if not rows:
                break
            found += rows
        return found

    def publish(self, zone: str, listener: socket.socket, key: str, zone_port: int) -> None:
        """Give it a listener. Raises EngineFault."""
        self._ask({"op": "publish", "zone": zone, "key": key, "zone_port": zone_port}, passed=[listener])

    def unpublish(self, zone: str, key: str) -> None:
        """Stop listening there. Raises EngineFault; UnknownToEngine."""
        self._ask({"op": "unpublish", "zone": zone, "key": key})

    def settle(self, zone: str) -> None:
        """See EngineHandle: everything was done when it was said."""

    def resolve_by(self, resolvers: tuple[str, ...]) -> None:
        """Tell it the host's name servers. Raises EngineFault."""
        self._ask({"op": "resolve", "resolvers": resolvers})

    def judge_by(self, zone: str, rules: tuple[str, ...]) -> None:
        """Tell it a zone's egress rules. Raises EngineFault."""
        self._ask({"op": "egress", "zone": zone, "rules": rules})

    def handback(self, zone: str) -> Handback:
        """Duplicates of all a zone's sockets. Raises EngineFault; OutdatedEngine for an engine of another version."""
        received: list[socket.socket] = []
        inside = len(self.INSIDE)
        try:
            with self._understood():
                answer = self._ask({"op": "handback", "zone": zone}, received=received)
                # An engine of before this question had names does not say which it has.
                if answer.get("inside") != list(self.INSIDE) or len(received) != inside + len(answer["published"]):
                    raise OutdatedEngine(
                        f"network engine of {self._whose}",
                        expected=f"{inside} descriptors and those of its ports",
                        got=f"{len(received)}, as another version has them",
                        hint="a new engine takes its place, and connections through it end",
                    )
                outside = zip(answer["published"], received[inside:], strict=True)
                return Handback(received[:inside], [(key, zone_port, item) for (key, zone_port), item in outside])
        except BaseException:
            for item in received:
                item.close()
            raise

    def stop(self) -> None:
        """End it; returns when it is gone."""
        processes.kill(self.pid, self.start_time)
        if self._child is not None:
            self._child.wait()

    def _ask(
        self,
        request: dict[str, Any],
        *,
        timeout_s: float = _ASK_TIMEOUT_S,
        passed: Sequence[socket.socket] = (),
        received: list[socket.socket] | None = None,
    ) -> dict[str, Any]:
        subject = f"network engine of {self._whose}"
        try:
            # The control socket listens before the process runs, so a request waits for an engine that is starting; and
            # nobody else holds it, so one for an engine that ends is answered with a reset.
            answer = ask(str(self._control), request, timeout_s=timeout_s, passed=passed, received=received)
        except OSError as error:
            alive = not self._has_ended(error)
            got = f"no answer: {error}" if alive else f"it ended: {self.last_words()}"
            kind = SilentEngine if alive and isinstance(error, TimeoutError) else EngineFault
            raise kind(subject, expected="an answer", got=got, temporary=True) from error
        except (ValueError, RecursionError) as error:
            raise self._nonsense(error) from error
        if not isinstance(answer, dict):
            raise self._nonsense(answer)
        if "error" in answer:
            kind = UnknownToEngine if answer.get("unknown") else EngineFault
            raise kind(subject, expected=f"{request['op']} to be done", got=answer["error"])
        return answer

    def _has_ended(self, error: OSError) -> bool:
        """Of one that ends, what it is asked fails a moment before: its sockets are closed first."""
        if isinstance(error, ConnectionError):
            with contextlib.suppress(OSError):  # no descriptor left for the wait
                return processes.ends_within(self.pid, self.start_time, _ENDING_S)
        return not self.alive()

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """For what is made of an answer: whoever has taken an engine over writes it."""
        try:
            yield
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._nonsense(error) from error

    def _nonsense(self, what: object) -> EngineFault:
        """As no answer is: nobody can do anything with such an engine."""
        got = f"one that says nothing here: {what!r}"[:200]
        return EngineFault(f"network engine of {self._whose}", expected="an answer", got=got, temporary=True)

    def last_words(self) -> str:
        """What it said last, or what it was killed for where this process started it."""
        return child.last_words(self._child, self._log_file)


class PreparedProxy:
    """The process before it knows its config."""

    def __init__(self, process: subprocess.Popen[bytes], control: Path, log_file: Path) -> None:
        self._child, self._control, self._log_file = process, control, log_file
        self.pid = process.pid
        self.start_time = processes.start_time_of(process.pid) or 0

    def start(self, config: EngineConfig) -> EngineHandle:
        """Send the config."""
        child.tell(self._child, dump(config))  # wait_ready says why, if it has ended
        return ProxyHandle(config.whose, self.pid, self.start_time, self._control, self._log_file, self._child)

    def stop(self) -> None:
        """End it unused."""
        self._child.kill()
        self._child.wait()


class ProxyEngine:
    """Starts such engines in the network namespace of the calling thread, which is where their outer sockets live."""

    name = "splice"
    code = child.code_of(ENTRY)

    def look(self) -> None:
        """It needs nothing of this host's."""

    def prepare(self, inherited: tuple[int, ...], control: Path, log_file: Path) -> PreparedProxy:
        """Start the process; it waits for its config. Raises OSError."""
        with open(log_file, "ab", buffering=0) as log:
            return PreparedProxy(child.start(self.code, inherited, log), control, log_file)

    def adopt(self, whose: str, pid: int, start_time: int, control: Path, log_file: Path) -> ProxyHandle:
        """A handle on an engine that another process started."""
        return ProxyHandle(whose, pid, start_time, control, log_file)
