"""The HEALTHCHECK of an image: a command run now and then in the container, whose change of mind is told to the host.

Source:  OCI image configs as docker writes them, "Healthcheck"; the meaning of its fields is that of docker's daemon.
"""

import posix
import time

from runtime.init import abi
from runtime.init.agent import params
from runtime.init.agent.container import PAUSED, Container
from runtime.init.agent.core import Agent
from runtime.init.agent.errors import Refused
from runtime.init.agent.execs import start
from runtime.init.agent.starting import Starting
from runtime.init.agent.stdio import Stdio
from runtime.init.failure import ContainerFailure, Failure

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
_OUTPUT_BYTES = 4096
_READS_AT_ONCE = 4  # then others have their turn


class Health:
    """Probes one container while it runs.

    check:  argv, interval_s, timeout_s, start_period_s, start_interval_s, retries; as the host has read them from the
            image config and the spec.
    """

    def __init__(self, agent: Agent, container: Container, check: dict[str, object]) -> None:
        argv = check.get("argv")
        if not isinstance(argv, list) or not argv:
            raise Refused("params", f"healthcheck: expected argv, got {argv!r:.60}")
        self._agent, self._container = agent, container
        self._argv: list[object] = argv
        self._interval_s = params.seconds(check, "interval_s", 30.0) or 30.0
        self._timeout_s = params.seconds(check, "timeout_s", 30.0) or 30.0
        self._start_period_s = params.seconds(check, "start_period_s", 0.0)
        self._start_interval_s = params.seconds(check, "start_interval_s", 5.0) or 5.0
        self._retries = params.number(check, "retries", 3, least=0, most=1000) or 3
        self._run_pid = container.pid
        self._failures = 0
        self._began_s = time.monotonic()
        self._pid, self._probed_s = 0, 0.0
        self._output = b""
        self._made: Stdio | None = None
        self._starting: Starting | None = None
        self._timer: int | None = None
        container.health = STARTING
        self._later()

    def _later(self) -> None:
        """Until it has been well once, the start period has an interval of its own."""
        starting = self._container.health == STARTING and self._young(time.monotonic())
        self._agent.loop.after(self._start_interval_s if starting else self._interval_s, self._probe)

    def _young(self, now_s: float) -> bool:
        return now_s - self._began_s < self._start_period_s

    def _probe(self) -> None:
        if self._container.pid != self._run_pid:
            return  # it has ended, and whoever started it again probes that run
        if self._container.state == PAUSED:
            self._later()  # a probe would stand still with it, and be taken for one that hangs
            return
        self._output, self._probed_s = b"", time.monotonic()
        self._made, self._pid = None, 0
        self._timer = self._agent.loop.after(self._timeout_s, self._too_long)
        try:
            self._starting = start(
                self._agent, self._container, {"argv": self._argv}, stdin=False, began=self._began, failed=self._failed
            )
        except (Failure, OSError) as error:  # the latter where there are no descriptors left: the next one may go
            self._failed(error)

    def _began(self, made: Stdio, pid: int) -> None:
        self._made, self._pid, self._starting = made, pid, None
        self._agent.children[pid] = self._ended
        for source in made.outputs.values():
            source.wake = self._read
        self._read()

    def _failed(self, error: Exception) -> None:
        self._starting = None
        self._agent.loop.cancel(self._timer)
        self._judge(-1, error.sentence if isinstance(error, Failure) else f"{type(error).__name__}: {error}")

    def _read(self) -> None:
        for source in self._made.outputs.values() if self._made is not None else ():
            for _ in range(_READS_AT_ONCE):
                data = source.take(_OUTPUT_BYTES)
                if not data:
                    break
                self._output = (self._output + data)[:_OUTPUT_BYTES]
            else:
                source.later()

    def _too_long(self) -> None:
        if self._container.state == PAUSED:  # it stands still with its container: its time begins once that goes on
            self._timer = self._agent.loop.after(self._timeout_s, self._too_long)
            return
        if self._starting is not None:
            late = f"expected its command to run within {self._timeout_s:g} s"
            self._starting.cancel(ContainerFailure("process", late))
            return
        try:
            posix.kill(-self._pid, abi.SIGKILL)
        except ProcessLookupError:
            return

    def _ended(self, status: int) -> None:
        self._agent.loop.cancel(self._timer)
        if self._made is not None:
            for source in self._made.outputs.values():
                source.drain()
            self._made.close()
        code = posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else -posix.WTERMSIG(status)
        self._judge(code, self._output.decode("utf-8", "replace"))

    def _judge(self, code: int, output: str) -> None:
        if code == 0:
            self._failures = 0
            self._become(HEALTHY, code, output)
        elif self._container.health != STARTING or not self._young(self._probed_s):
            self._failures += 1
            if self._failures >= self._retries:
                self._become(UNHEALTHY, code, output)
        self._later()

    def _become(self, state: str, code: int, output: str) -> None:
        if self._container.health != state and self._container.pid == self._run_pid:
            self._container.health = state
            fields = {"container": self._container.name, "state": state, "code": code, "output": output}
            self._agent.link.note("health", fields)


def begin(agent: Agent, container: Container, check: object) -> None:
    """Probe the container as the launch data or its spec says; what is wrong with them is said once."""
    if not isinstance(check, dict):
        return
    try:
        Health(agent, container, check)
    except Refused as refused:
        agent.warn(refused.sentence)
