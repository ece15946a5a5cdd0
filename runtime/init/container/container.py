"""One container, from its cgroup to its removal. No loop of its own: who reaps children tells it what it reaped."""

import posix
import select

from runtime.init.abi import SIGKILL
from runtime.init.container import abi, calls, cgroup, launcher, steps
from runtime.init.container import spec as specs
from runtime.init.container.launched import Launch, Started
from runtime.init.failure import ContainerFailure, why

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

CREATED, RUNNING, PAUSED, STOPPED = "created", "running", "paused", "stopped"
# What a process run later takes from the container's first, unless it says otherwise.
_INHERITED = (
    *("env", "cwd", "uid", "gid", "groups", "user", "umask", "capabilities", "no_new_privileges", "seccomp"),
    *("seccomp_flags", "rlimits", "oom_score_adj"),
)


class Container:
    """See the package's docstring for what each call is for.

    id, plan:  as given and as planned.
    state:     created, running, paused or stopped.
    started:   pid, pidfd, terminal and status of the first process; None before start.
    exit:      {"code": n} or {"signal": n}, and "oom": bool; None before the end.
    """

    def __init__(self, name: str, spec: object, cgroups: str = cgroup.ROOT) -> None:
        """Plan it and make its cgroup. Raises ContainerFailure."""
        self.id = specs.check_id(name)
        self._given = spec if isinstance(spec, dict) else {}
        self.plan = steps.plan(spec)
        writes = self.plan["limits"]
        assert isinstance(writes, dict)
        self.cgroup = cgroup.Cgroup(self.id, writes, cgroups)
        self.state = CREATED
        self.started: Started | None = None
        self.exit: dict[str, object] | None = None

    def start(
        self,
        stdio: launcher.Stdio = (None, None, None),
        find: "Callable[[str], Container | None]" = lambda name: None,
    ) -> Started:
        """Start the first process, and wait until its command runs: begin and began in one."""
        launch = self.begin(stdio, find)
        started = self.began(launch.wait)
        assert started is not None
        return started

    def begin(self, stdio: launcher.Stdio, find: "Callable[[str], Container | None]") -> Launch:
        """Fork the first process.

        Shape:   stdio: descriptors for 0, 1, 2 (None: /dev/null), not used where process.tty is set.
                 find: the container of an id, for namespaces container:ID.
        Raises:  ContainerFailure: of the step that failed. The container is still "created" then and can be deleted.
        """
        self._expect("start", CREATED)
        joined = self._open_joined(find)
        try:
            return launcher.start(self.plan, stdio, self.cgroup.fd, joined)
        finally:
            for fd in joined:
                posix.close(fd)

    def began(self, hear: "Callable[[], Started | None]") -> Started | None:
        """What the first process has come to, by its launch. Raises as begin."""
        try:
            self.started = hear()
        except BaseException as error:
            self.cgroup.kill()  # what a failed start may have forked
            if isinstance(error, ContainerFailure) and self.oom_kills():
                raise ContainerFailure(error.reason, f"{error.sentence} (killed for want of memory)") from None
            raise
        if self.started is not None:
            self.state = RUNNING
        return self.started

    def enter(self, process: object, stdio: launcher.Stdio = (None, None, None)) -> Started:
        """Run a further process in the container, and wait until its command runs. Raises ContainerFailure."""
        return self.begin_further(process, stdio).wait()

    def begin_further(self, process: object, stdio: launcher.Stdio) -> Launch:
        """Fork a further process; what it does not say is as for the first. Raises ContainerFailure."""
        from runtime.init.container import further  # the first process starts without it

        # In a paused one it would wait for the end of the pause before it could say a word.
        self._expect("run a process in", RUNNING)
        started = self._running("run a process in")
        checked = specs.check_process(self._completed(process))
        maps = self.plan["maps"]
        denied = isinstance(maps, dict) and bool(maps["deny_setgroups"])
        planned = steps.process_plan(checked | {"init": False}, groups_denied=denied, entering=True)
        return further.enter(
            started.pid,
            started.pidfd,
            self._namespaces(),
            maps,
            checked | {"init": False},
            planned,
            stdio,
            self.cgroup.fd,
        )

    def exited(self, status: int) -> dict[str, object]:
        """The first process was reaped with this wait status; whatever is left of the container is killed."""
        assert self.started is not None
        if self.started.status >= 0:
            told = posix.read(self.started.status, 32)
            status = int(told) if told.isdigit() else status
        self.exit = dict(outcome(status)) | {"oom": self.oom_kills() > 0}
        self.state = STOPPED
        self.cgroup.kill()
        return self.exit

    def kill(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or to every process of the container. Raises ContainerFailure "state"."""
        started = self._running("signal")
        if not everyone:
            self._signal(started.pidfd, number)
        elif number == SIGKILL:
            self.cgroup.kill()
        else:
            for pid in self.cgroup.pids():
                try:
                    fd = posix.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                self._signal(fd, number)
                posix.close(fd)

    def stop(self, number: int | None = None, timeout_s: float | None = None) -> None:
        """Signal the first process, wait, and kill everything when it has not ended in time. Blocks; reaps nothing."""
        started, process = self._running("stop"), self.plan["process"]
        assert isinstance(process, dict)
        if self.state == PAUSED:
            self.freeze(frozen=False)
        self._signal(started.pidfd, number or process["stop_signal"])
        poll = select.poll()
        poll.register(started.pidfd, select.POLLIN)
        if not poll.poll(int((process["stop_timeout_s"] if timeout_s is None else timeout_s) * 1000)):
            self.cgroup.kill()

    def freeze(self, *, frozen: bool) -> None:
        """Pause or go on. Raises ContainerFailure."""
        self._running("pause" if frozen else "resume")
        self.cgroup.freeze(frozen=frozen)
        self.state = PAUSED if frozen else RUNNING

    def update(self, wanted: object) -> None:
        """Change limits; what is not named stays. Raises ContainerFailure "spec" or "cgroup"."""
        from runtime.init.container import limits

        self.cgroup.update(limits.check(wanted))

    def resize(self, rows: int, columns: int) -> None:
        """The window size of its terminal. Raises ContainerFailure "state" where it has none."""
        started = self._running("resize")
        if started.terminal < 0:
            raise ContainerFailure("state", f"container {self.id}: expected one with a terminal, got one without")
        calls.resize_terminal(started.terminal, rows, columns)

    def oom_kills(self) -> int:
        """How many processes of it were killed for want of memory; 0 where the controller is not there."""
        return self.cgroup.counts("memory.events").get("oom_kill", 0)

    def delete(self, *, force: bool = False) -> None:
        """Remove what is left of it. Raises ContainerFailure "state" while it runs, unless forced."""
        if self.state in (RUNNING, PAUSED) and not force:
            raise ContainerFailure("state", f"container {self.id}: expected it to be stopped, got {self.state}")
        self.cgroup.remove()
        if self.started is not None:
            self.started.close()
        self.state = STOPPED

    def _namespaces(self) -> int:
        """Flags of every namespace that is not the zone's."""
        flags, joins, spec = self.plan["flags"], self.plan["joins"], self.plan["spec"]
        assert isinstance(flags, int) and isinstance(joins, list) and isinstance(spec, dict)
        for flag, _ in joins:
            flags |= flag
        if self.plan["time"] is not None:
            flags |= abi.CLONE_NEWTIME
        return flags | (abi.CLONE_NEWCGROUP if spec["namespaces"]["cgroup"] == "own" else 0)

    def _open_joined(self, find: "Callable[[str], Container | None]") -> list[int]:
        joins = self.plan["joins"]
        assert isinstance(joins, list)
        opened: list[int] = []
        for _, name in joins:
            kind, _, target = name.partition(":")
            try:
                if kind == "path":
                    opened.append(posix.open(target, posix.O_RDONLY | posix.O_CLOEXEC))
                    continue
                other = find(target)
                if other is None or other.started is None or other.state not in (RUNNING, PAUSED):
                    raise ContainerFailure(
                        "namespace", f"joining the namespace {name}: expected it to run, it does not"
                    )
                opened.append(posix.dup(other.started.pidfd))
            except (OSError, ContainerFailure) as error:
                for fd in opened:
                    posix.close(fd)
                if isinstance(error, ContainerFailure):
                    raise
                raise ContainerFailure("namespace", f"joining the namespace {name}: {why(error)}") from None
        return opened

    def _completed(self, process: object) -> object:
        if not isinstance(process, dict):
            return process
        first = self._given.get("process", {})
        named = "user" in process or "uid" in process
        kept = [key for key in _INHERITED if key in first]
        # Who gives an own user wants none of the first one's ids.
        kept = [key for key in kept if not named or key not in ("uid", "gid", "groups", "user")]
        found = {key: first[key] for key in kept}
        if "user" in process and "env" in found:
            # Nor its home: the own one is in the container's passwd.
            found["env"] = [entry for entry in found["env"] if not str(entry).startswith("HOME=")]
        return found | process

    def _expect(self, verb: str, *states: str) -> None:
        if self.state not in states:
            raise ContainerFailure(
                "state", f"container {self.id}: to {verb} it: expected {' or '.join(states)}, got {self.state}"
            )

    def _running(self, verb: str) -> Started:
        self._expect(verb, RUNNING, PAUSED)
        assert self.started is not None
        return self.started

    def _signal(self, pidfd: int, number: int) -> None:
        try:
            calls.signal_process(pidfd, number)
        except ProcessLookupError:
            return  # it has just ended
        except OSError as error:
            raise ContainerFailure("state", f"container {self.id}: signal {number}: {why(error)}") from None


def outcome(status: int) -> dict[str, object]:
    """A wait status as {"code": n} or {"signal": n}."""
    if posix.WIFSIGNALED(status):
        return {"signal": posix.WTERMSIG(status)}
    return {"code": posix.WEXITSTATUS(status)}
