"""One container as the agent keeps it: its process, its output, its end.

The container runtime (runtime.init.container) makes and enters it. The root is mounted by the agent, so that files can
be copied before the start and after the end, and a container that is started again finds what it has written.
"""

import posix
import time

from runtime.init import abi, mounts
from runtime.init.agent import cgroup, stdio
from runtime.init.agent.errors import Refused
from runtime.init.agent.loop import CHANGED
from runtime.init.agent.output import Output
from runtime.init.agent.starting import Starting
from runtime.init.agent.stdio import Stdio
from runtime.init.container.container import Container as Runtime
from runtime.init.failure import Failure
from runtime.init.launch import read_file

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.agent.core import Agent
    from runtime.init.agent.execs import Turns
    from runtime.init.container.launched import Started

CREATED, RUNNING, PAUSED, STOPPED = "created", "running", "paused", "stopped"
_AGAIN_S = 0.05


class Container:
    """State: created -> running (<-> paused) -> stopped, from where it can be started again.

    spec:       of the container runtime, without its root's path.
    stdin_open: does it have a stdin that the host writes?
    ended:      called once, at the next end, that of a start that fails too; what is added while none is running waits
                for the next.
    """

    def __init__(
        self,
        agent: "Agent",
        name: str,
        spec: dict[str, object],
        *,
        stdin_open: bool = False,
        healthcheck: object = None,
    ) -> None:
        process, root = spec.get("process"), spec.get("root")
        # The agent's own protection from the OOM killer is not passed on.
        self.process: dict[str, object] = {"oom_score_adj": 0}
        self.process |= process if isinstance(process, dict) else {}
        self.name, self.state = name, CREATED
        self.pid = 0
        self.exit: dict[str, object] | None = None
        self.started_s = self.stopped_s = 0.0
        self.health = ""
        self.ended: list[Callable[[], object]] = []
        self.stdio: Stdio | None = None
        self.turns: Turns | None = None  # of its execs, once there are any
        readonly = isinstance(root, dict) and root.get("readonly") is True
        place = {"path": mounts.root_of(name), "replace": True, "readonly": readonly}
        self._spec = spec | {"process": self.process, "root": place}
        self._agent, self._stdin_open, self._healthcheck = agent, stdin_open, healthcheck
        self._terminal = self.process.get("tty") is True
        fds = (1,) if self._terminal else (1, 2)
        self.outputs = {fd: Output(lambda: agent.link.attended, lambda: agent.link.expect()) for fd in fds}
        self._runtime: Runtime | None = None
        self._starting: Starting | None = None
        self._asked_to_stop = 0  # the signal, while it was starting
        self._early: list[Callable[[], object]] = []  # other signals
        self._kill_timer: int | None = None
        self._again_timer: int | None = None
        self._oom_fd = -1
        self._oom_kills = 0

    @property
    def running(self) -> bool:
        """Does it have a process?"""
        return self.state in (RUNNING, PAUSED)

    @property
    def active(self) -> bool:
        """Does it have a process, or is about to?"""
        return self.running or self._starting is not None

    @property
    def drained(self) -> bool:
        """Has all been read that it wrote?"""
        return self.state == CREATED or all(output.ended for output in self.outputs.values())

    @property
    def runtime(self) -> Runtime:
        """The container runtime's side of it. Raises Refused where it does not run."""
        if not self.running or self._runtime is None:
            raise Refused("state", f"container {self.name}: expected it to run, got {self.state}")
        return self._runtime

    def describe(self) -> dict[str, object]:
        """What `list` says of it."""
        found: dict[str, object] = {"id": self.name, "state": self.state, "tty": self._terminal}
        if self.running:
            found["pid"] = self.pid
        if self.started_s:
            found["started"] = round(self.started_s, 3)
        if self.exit is not None:
            found["exit"] = self.exit
            found["stopped"] = round(self.stopped_s, 3)
        if self.health:
            found["health"] = self.health
        found["output"] = {str(fd): [output.ring.start, output.ring.end] for fd, output in self.outputs.items()}
        return found

    def start(self, began: "Callable[[], object]", failed: "Callable[[Exception], object]") -> Starting:
        """Begin to run its process; tells when it does, or why it cannot. Raises Failure, Refused."""
        if self.active:
            state = self.state if self.running else "one that starts"
            raise Refused("state", f"container {self.name}: expected it created or stopped, got {state}")
        self._expect_clear()
        loop = self._agent.loop
        given = Stdio() if self._terminal else stdio.pipes(loop, stdin=self._stdin_open)
        try:
            # A cgroup of its own for each run: since 6.14, and in the stable kernels that took "cgroup: fix race
            # between fork and cgroup.kill", what is forked into one that was ever killed is killed, too.
            runtime = self._runtime = Runtime(self.name, self._spec)
            launch = runtime.begin(given.given, self._agent.runtime_of)
        except BaseException:
            given.close()
            self._forget_run()
            raise
        finally:
            given.close_given()

        def runs(process: "Started") -> None:
            nonlocal given
            self._starting = None
            if self._terminal:
                given = stdio.terminal(loop, process.terminal)
            self._runs(runtime, process, given)
            began()

        def does_not(error: Exception) -> None:
            self._starting, self._asked_to_stop, self._early = None, 0, []
            if self.running:  # what could not be done with it ended it
                self._agent.children.pop(self.pid, None)
                self.state, self.pid = STOPPED, 0
            self._forget_stop()
            self._forget_oom()
            given.close()
            for output in self.outputs.values():
                output.drain()  # what was attached has been closed
            self._agent.attempt(f"what is left of container {self.name}", self._forget_run)
            failed(error)
            self._tell_the_end()

        def hear(ended: int) -> "Started | None":
            return runtime.began(lambda: launch.hear(ended))

        self._starting = Starting(self._agent, launch, hear, began=runs, failed=does_not)
        return self._starting

    def _runs(self, runtime: Runtime, process: "Started", given: Stdio) -> None:
        """Its command does; what is done with a process from now on."""
        loop = self._agent.loop
        self.pid, self.stdio, self.state, self.exit = process.pid, given, RUNNING, None
        self.started_s, self._oom_kills = time.time(), 0
        for fd, source in given.outputs.items():
            self.outputs[fd].attach(source)
        self._oom_fd = runtime.cgroup.watch()
        if self._oom_fd >= 0:
            loop.watch(self._oom_fd, CHANGED, self._oom_event)
        self._agent.children[self.pid] = self._process_ended
        if self._healthcheck is not None:
            from runtime.init.agent import health

            health.begin(self._agent, self, self._healthcheck)
        early, self._early = self._early, []
        for send in early:
            self._agent.attempt(f"a signal for container {self.name}", send)
        number, self._asked_to_stop = self._asked_to_stop, 0
        if number:
            self._ask_to_stop(number)

    def open_root(self) -> int:
        """A descriptor of its root, as its processes see it where there are any. Raises OSError."""
        path = f"/proc/{self.pid}/root" if self.running else mounts.root_of(self.name)
        return posix.open(path, abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to its first process, or to all, where it starts once it runs. Raises Failure, Refused."""
        if self._starting is not None:
            self._early.append(lambda: self.signal(number, everyone=everyone))
        else:
            self.runtime.kill(number, everyone=everyone)

    def stop(self, number: int | None, timeout_s: float | None) -> None:
        """Ask it to end, and end it when it has not after the time; without either as its process says."""
        runtime = self._runtime if self._starting is not None else self.runtime
        assert runtime is not None
        process = runtime.plan["process"]
        assert isinstance(process, dict)
        number = process["stop_signal"] if number is None else number
        self._forget_stop()
        seconds = process["stop_timeout_s"] if timeout_s is None else timeout_s
        # First: what cannot even be asked is ended, too.
        self._kill_timer = self._agent.loop.after(seconds, self.kill)
        if self.running:
            self._ask_to_stop(number)
        else:  # it gets the signal once it runs
            self._asked_to_stop = number

    def kill(self) -> None:
        """End it now, where it runs or is about to."""
        if self.active and self._runtime is not None:
            self._runtime.cgroup.kill()

    def _ask_to_stop(self, number: int) -> None:
        self.runtime.kill(number)
        if self.state == PAUSED:
            self.freeze(frozen=False)
        self._look_again(number)

    def _look_again(self, number: int) -> None:
        if not takes(self.pid, number):
            self._again_timer = self._agent.loop.after(_AGAIN_S, lambda: self._signal_again(number))

    def _signal_again(self, number: int) -> None:
        """It has just begun and had no handler for its stop signal: it gets it once it has one.

        The first of a pid namespace never gets a signal that would have its default action (kernel/signal.c,
        sig_task_ignored), and so a workload that is to stop as it starts would run until it is killed.
        """
        self._again_timer = None
        if self.running and takes(self.pid, number):
            self.runtime.kill(number)
        elif self.running:
            self._look_again(number)

    def _forget_stop(self) -> None:
        for timer in (self._kill_timer, self._again_timer):
            self._agent.loop.cancel(timer)
        self._kill_timer = self._again_timer = None

    def freeze(self, *, frozen: bool) -> None:
        """Ask the kernel to freeze or thaw it; cgroup.is_frozen tells when that is done."""
        runtime = self.runtime
        cgroup.freeze(self.name, frozen=frozen)
        self.state = runtime.state = PAUSED if frozen else RUNNING
        for starting in self._agent.starting:
            if starting.runtime is runtime:
                starting.hold(held=frozen)

    def limit(self, limits: dict[str, object]) -> None:
        """Set limits, now and at the next start. Raises Failure."""
        if self.active and self._runtime is not None:
            self._runtime.update(limits)
        known = self._spec.get("limits")
        self._spec["limits"] = (known if isinstance(known, dict) else {}) | limits

    def delete(self) -> None:
        """Let go of its root and cgroup. Raises Refused while it runs, Failure."""
        if self.active:
            state = self.state if self.running else "one that starts"
            raise Refused("state", f"container {self.name}: expected it to be stopped, got {state}")
        self._expect_clear()
        mounts.remove_root(self.name)

    def runtime_if_running(self) -> Runtime | None:
        """For containers that share its namespaces."""
        return self._runtime if self.running else None

    def clear(self) -> bool:
        """Let go of the last run. Is nothing left of it? Not as long as a process of it is there still. Raises Failure.

        One that was killed may take its time: at its cpu.max, or while the kernel waits for a disk.
        """
        if self._runtime is not None and not self.active:
            if not self._runtime.cgroup.leave():
                return False
            self._runtime.delete(force=True)
            self._runtime = None
        return True

    def _expect_clear(self) -> None:
        if not self.clear():
            raise Refused("cgroup", f"container {self.name}: expected no process of its last run, one does not end")

    def _forget_run(self) -> None:
        if not self.clear():
            self._agent.loop.after(_AGAIN_S, self._forget_run)

    def _oom_event(self) -> None:
        posix.pread(self._oom_fd, 4096, 0)  # arms the next event
        kills = self.runtime.oom_kills()
        if kills > self._oom_kills:
            self._oom_kills = kills
            self._agent.link.note("oom", {"container": self.name, "kills": kills})

    def _forget_oom(self) -> None:
        if self._oom_fd >= 0:
            self._agent.loop.forget(self._oom_fd)
            posix.close(self._oom_fd)
            self._oom_fd = -1

    def _process_ended(self, status: int) -> None:
        runtime = self.runtime
        self._forget_stop()
        self._forget_oom()
        try:
            found = runtime.exited(status)  # and ends what is left of it
        except Failure as failure:
            self._agent.warn(failure.sentence)
            found = runtime.exit or {}
        self.exit = {key: value for key, value in found.items() if value is not False}
        self.stopped_s = time.time()
        self.state, self.pid = STOPPED, 0
        if self.stdio is not None:
            self.stdio.close_input()
        for output in self.outputs.values():
            output.drain()
        self._agent.link.note("exit", {"container": self.name} | self.exit)
        self._tell_the_end()

    def _tell_the_end(self) -> None:
        ended, self.ended = self.ended, []
        for callback in ended:
            self._agent.attempt(f"the end of container {self.name}", callback)


def takes(pid: int, number: int) -> bool:
    """Does a process catch a signal, or keep it for later? One that is gone takes any."""
    try:
        text = read_file(f"/proc/{pid}/status").decode("ascii", "replace")
    except OSError:
        return True
    return signal_taken(text, number)


def signal_taken(status: str, number: int) -> bool:
    """The same, by what /proc/PID/status says."""
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigCgt:", "SigBlk:"))]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
