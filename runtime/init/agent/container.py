"""One container as the agent keeps it: its process, its output, its end."""

import posix
import time

from runtime.init import abi, mounts
from runtime.init.agent import cgroup, launcher, stdio
from runtime.init.agent.errors import Refused
from runtime.init.agent.loop import CHANGED
from runtime.init.agent.output import Output
from runtime.init.agent.stdio import Stdio
from runtime.init.failure import os_failure
from runtime.init.report import say

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.agent.core import Agent

CREATED, RUNNING, PAUSED, EXITED = "created", "running", "paused", "exited"


def exit_of(status: int, *, oom: bool) -> dict[str, object]:
    """{"code": n} or {"signal": n} of a wait status, with "oom" where the OOM killer sent the signal."""
    if not posix.WIFSIGNALED(status):
        return {"code": posix.WEXITSTATUS(status)}
    found: dict[str, object] = {"signal": posix.WTERMSIG(status)}
    if oom and posix.WTERMSIG(status) == abi.SIGKILL:
        found["oom"] = True
    return found


class Container:
    """State: created -> running (<-> paused) -> exited, from where it can be started again.

    process:    as in the launch data, defaults filled in.
    stdin_open: does it have a stdin that the host writes?
    ended:      called once, at the next end; what is added while none is running waits for the next.
    """

    def __init__(
        self,
        agent: "Agent",
        name: str,
        process: dict[str, object],
        *,
        stdin_open: bool = False,
        terminal_size: object = None,
        limits: dict[str, object] | None = None,
        healthcheck: object = None,
    ) -> None:
        self.name, self.process = name, process
        self.state = CREATED
        self.pid = 0
        self.exit: dict[str, object] | None = None
        self.started_s = self.exited_s = 0.0
        self.health = ""
        self.ended: list[Callable[[], object]] = []
        self.stdio: Stdio | None = None
        self._agent, self._stdin_open, self._size, self._limits = agent, stdin_open, terminal_size, limits or {}
        fds = (1,) if process["tty"] else (1, 2)
        self.outputs = {fd: Output(lambda: agent.link.attended, lambda: agent.link.expect()) for fd in fds}
        self._healthcheck = healthcheck
        self._kill_timer: int | None = None
        self._oom_fd = -1
        self._oom_kills = 0

    @property
    def running(self) -> bool:
        """Does it have a process?"""
        return self.state in (RUNNING, PAUSED)

    @property
    def drained(self) -> bool:
        """Has all been read that it wrote?"""
        return all(output.ended for output in self.outputs.values())

    @property
    def stored(self) -> bool:
        """Has the host acknowledged all of it?"""
        return self.drained and all(output.ring.start == output.ring.end for output in self.outputs.values())

    def describe(self) -> dict[str, object]:
        """What `list` says of it."""
        found: dict[str, object] = {"id": self.name, "state": self.state, "tty": bool(self.process["tty"])}
        if self.running:
            found["pid"] = self.pid
        if self.started_s:
            found["started"] = round(self.started_s, 3)
        if self.exit is not None:
            found["exit"] = self.exit
            found["exited"] = round(self.exited_s, 3)
        if self.health:
            found["health"] = self.health
        found["output"] = {str(fd): [output.ring.start, output.ring.end] for fd, output in self.outputs.items()}
        return found

    def start(self) -> None:
        """Run its process. Raises BootFailure, Refused."""
        if self.state not in (CREATED, EXITED):
            raise Refused("state", f"container {self.name}: expected it created or exited, got {self.state}")
        loop = self._agent.loop
        if self.process["tty"]:
            given = stdio.terminal(loop, self.open_root_or_none(), self._size)
        else:
            given = stdio.pipes(loop, stdin=self._stdin_open)
        try:
            cgroup_fd = self._cgroup()
            try:
                self.pid = launcher.start(self.name, self.process, given.given, cgroup_fd)
            finally:
                posix.close(cgroup_fd)
        except BaseException:
            given.close_given()
            given.close()
            raise
        given.close_given()
        self.stdio, self.state, self.exit = given, RUNNING, None
        self.started_s = time.time()
        self._watch_oom()
        self._agent.children[self.pid] = self._process_ended
        for fd, source in given.outputs.items():
            self.outputs[fd].attach(source)
        if self._healthcheck is not None:
            from runtime.init.agent import health

            health.begin(self._agent, self, self._healthcheck)

    def open_root(self) -> int:
        """A descriptor of its root; raises OSError."""
        return launcher.open_root(self.name, self.pid if self.running else 0)

    def open_root_or_none(self) -> int | None:
        """The same where there is none to be had."""
        try:
            return self.open_root()
        except OSError:
            return None

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to its first process, or to all."""
        self.must_run()
        if everyone:
            cgroup.signal_all(self.name, number)
        else:
            posix.kill(self.pid, number)

    def stop(self, number: int, timeout_s: float) -> None:
        """Ask it to end, and end it when it has not after the time."""
        self.must_run()
        posix.kill(self.pid, number)
        if self.state == PAUSED:
            self.pause(paused=False)
        self._agent.loop.cancel(self._kill_timer)
        self._kill_timer = self._agent.loop.after(timeout_s, self.kill)

    def kill(self) -> None:
        """End it now."""
        if self.running:
            try:
                cgroup.kill(self.name)
            except OSError:
                posix.kill(self.pid, abi.SIGKILL)

    def pause(self, *, paused: bool) -> None:
        """Freeze or thaw it."""
        self.must_run()
        cgroup.freeze(self.name, frozen=paused)
        self.state = PAUSED if paused else RUNNING

    def limit(self, limits: dict[str, object]) -> None:
        """Set limits, now and at the next start. Raises Refused."""
        if self.running:
            cgroup.limit(self.name, limits)
        self._limits.update(limits)

    def oom_killed_since_start(self) -> int:
        """How many processes of this run the OOM killer has taken."""
        return cgroup.oom_kills(self.name) - self._oom_kills

    def delete(self) -> None:
        """Let go of its root and cgroup. Raises Refused while it runs, BootFailure, OSError."""
        if self.running:
            raise Refused("state", f"container {self.name}: expected it to be stopped, got {self.state}")
        mounts.remove_root(self.name)
        cgroup.remove(self.name)

    def must_run(self) -> None:
        """Raises Refused where it does not run."""
        if not self.running:
            raise Refused("state", f"container {self.name}: expected it to run, got {self.state}")

    def _cgroup(self) -> int:
        try:
            cgroup_fd = cgroup.make_anew(self.name)
        except OSError as error:
            raise os_failure("mount", f"making the cgroup of {self.name}", error) from None
        try:
            cgroup.limit(self.name, self._limits)
        except BaseException:
            posix.close(cgroup_fd)
            raise
        self._oom_kills = cgroup.oom_kills(self.name)
        return cgroup_fd

    def _watch_oom(self) -> None:
        try:
            self._oom_fd = posix.open(f"{cgroup.path_of(self.name)}/memory.events", posix.O_RDONLY | posix.O_CLOEXEC)
            self._agent.loop.watch(self._oom_fd, CHANGED, self._oom_event)
        except OSError:
            self._oom_fd = -1  # this kernel does not count memory

    def _oom_event(self) -> None:
        posix.pread(self._oom_fd, 4096, 0)  # arms the next event
        kills = self.oom_killed_since_start()
        if kills > 0:
            self._agent.link.note("oom", {"container": self.name, "kills": kills})

    def _process_ended(self, status: int) -> None:
        loop = self._agent.loop
        loop.cancel(self._kill_timer)
        self._kill_timer = None
        if self._oom_fd >= 0:
            loop.forget(self._oom_fd)
            posix.close(self._oom_fd)
            self._oom_fd = -1
        self.exit = exit_of(status, oom=self.oom_killed_since_start() > 0)
        self.exited_s = time.time()
        try:
            cgroup.kill(self.name)  # what it leaves behind ends with it
        except OSError as error:
            say(f"agent: ending what {self.name} left behind: {error}")
        self.state, self.pid = EXITED, 0
        if self.stdio is not None:
            self.stdio.close_input()
        for output in self.outputs.values():
            output.drain()
        self._agent.link.note("exit", {"container": self.name} | self.exit)
        ended, self.ended = self.ended, []
        for callback in ended:
            callback()
