"""The `exec` stream: a further process in a container, or in the zone itself, with its streams and its end."""

import posix

from runtime.init import abi, launch, mounts, process
from runtime.init.agent import params, stdio
from runtime.init.agent.container import Container
from runtime.init.agent.core import Agent
from runtime.init.agent.errors import Refused
from runtime.init.agent.starting import Starting
from runtime.init.agent.stdio import Stdio
from runtime.init.agent.stream import Handler, Outlet, Stream
from runtime.init.container.container import outcome
from runtime.init.failure import ContainerFailure

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.container.launched import Started

_PATH = ":".join(["/bin", *[f"{mounts.OVERLAY}/{name}" for name in ("usr/local/bin", "usr/sbin", "usr/bin")]])
_AT_ONCE = 4  # of a container's: more are no sooner done where there is one processor
_HANGUP_S = 2.0  # what nobody waits for is asked to end, and ended after this


class Turns:
    """Of a container: few of its execs are on their way to their command at once, the others wait, in order.

    Each is a copy of this program until then, with 3 MB of its own: fifty at once were more than a small zone had, and
    Linux killed what it could find.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: list[Callable[[], bool]] = []

    def ask(self, begin: "Callable[[], bool]") -> None:
        """Have it called when it is its turn; it says whether it takes it. Now, if it can be."""
        self._waiting.append(begin)
        self._next()

    def leave(self, begin: "Callable[[], bool]") -> None:
        """Its turn is not to come."""
        if begin in self._waiting:
            self._waiting.remove(begin)

    def give_back(self) -> None:
        """A turn that was taken is over."""
        self._taken -= 1
        self._next()

    def _next(self) -> None:
        while self._waiting and self._taken < _AT_ONCE:
            self._taken += self._waiting.pop(0)()


class Exec(Handler):
    """One process; the result comes when it has ended and all it wrote has been sent."""

    def __init__(self, agent: Agent, stream: Stream, container: Container | None, request: dict[str, object]) -> None:
        self._agent, self._stream, self._container, self._request = agent, stream, container, request
        self._exit: dict[str, object] | None = None
        self._used: dict[str, object] = {}
        self._oom_kills = 0 if container is None else container.runtime.oom_kills()
        self._turns = Turns() if container is None else container.turns or Turns()
        self._stdio, self._pid = Stdio(), 0
        self._outlets: list[Outlet] = []
        self._early: list[Callable[[], object]] | None = []  # what the host says before the process runs
        self._starting: Starting | None = None
        stream.handler = self
        if container is not None:
            container.turns = self._turns
        self._turns.ask(self._start)

    def _start(self) -> bool:
        """Its turn has come: begin. Is it on its way?"""
        request, self._request = self._request, {}
        try:
            began, failed = self._began, self._failed
            self._starting = start(self._agent, self._container, request, stdin=True, began=began, failed=failed)
        except Exception as error:
            self._stream.refuse(error)
        return self._starting is not None

    def _failed(self, error: Exception) -> None:
        self._stream.refuse(error)
        self._arrived()

    def _arrived(self) -> None:
        """It is over, or at its command. Others begin after what goes on now: a session's end may be theirs, too."""
        if self._starting is not None:
            self._starting = None
            self._agent.loop.after(0, self._turns.give_back)

    def _began(self, made: Stdio, pid: int) -> None:
        self._stdio, self._pid = made, pid
        self._arrived()
        self._agent.children[pid] = self._ended
        self._stream.event({"started": pid})
        for fd, source in made.outputs.items():
            outlet = self._stream.pour(fd, source)
            outlet.done = self._finish
            self._outlets.append(outlet)
        early, self._early = self._early or [], None
        try:
            for action in early:
                action()
        except Exception as error:
            self._stream.refuse(error)

    def data(self, fd: int, payload: bytes) -> None:
        """Input; what the process does not take any more is dropped."""
        if fd != 0:
            raise Refused("protocol", f"exec: expected bytes of descriptor 0, got some of {fd}")
        if self._early is not None:
            self._early.append(lambda: self.data(fd, payload))
        elif self._stdio.stdin is None or not self._stdio.stdin.open:
            self._stream.consumed(0, len(payload))
        else:
            self._stdio.stdin.feed(payload, lambda count: self._stream.consumed(0, count))

    def eof(self, fd: int) -> None:
        """No more input."""
        if self._early is not None:
            self._early.append(lambda: self.eof(fd))
        elif fd == 0 and self._stdio.stdin is not None and self._stdio.stdin.open:
            self._stdio.stdin.finish()

    def event(self, value: dict[str, object]) -> None:
        """{"resize": [rows, columns]} or {"signal": n}."""
        if self._early is not None:
            self._early.append(lambda: self.event(value))
            return
        if "resize" in value:
            self._stdio.resize(*stdio.size_of(value["resize"]))
        if "signal" in value and self._exit is None:
            posix.kill(self._pid, params.number(value, "signal", least=1, most=64))

    def closed(self) -> None:
        """Nobody waits: the process is hung up on, as by a terminal that has gone."""
        self._turns.leave(self._start)
        if self._starting is not None:
            self._starting.cancel(ContainerFailure("process", "nobody waits for the process any more"))
        self._stdio.close()
        if self._pid and self._exit is None:
            self._signal(abi.SIGHUP)
            self._signal(abi.SIGCONT)
            self._agent.loop.after(_HANGUP_S, lambda: self._signal(abi.SIGKILL))

    def _signal(self, number: int) -> None:
        """To the process and what it started: it leads a session and a group of its own."""
        if self._exit is None:
            try:
                posix.kill(-self._pid, number)
            except ProcessLookupError:
                return

    def _ended(self, status: int) -> None:
        self._exit, self._used = outcome(status), self._agent.used
        container = self._container
        # The container's count may have risen by another process, and an OOM killer has no other signal.
        killed = self._exit.get("signal") == abi.SIGKILL
        if killed and container is not None and container.running and container.runtime.oom_kills() > self._oom_kills:
            self._exit["oom"] = True
        if self._stream.over:
            return
        for source in self._stdio.outputs.values():
            source.drain()
        self._finish()

    def _finish(self) -> None:
        if self._exit is not None and all(outlet.ended for outlet in self._outlets):
            self._stream.succeed({"exit": self._exit, "rusage": self._used})


def start(
    agent: Agent,
    container: Container | None,
    request: dict[str, object],
    *,
    stdin: bool,
    began: "Callable[[Stdio, int], object]",
    failed: "Callable[[Exception], object]",
) -> Starting | None:
    """Run a process in a container (what it does not say is as for the container's first), or in the zone itself.

    began, failed: as of the Starting; None where that is over, as in the zone itself, which limits nothing.
    Raises:        Failure, Refused, OSError.
    """
    request = {key: value for key, value in request.items() if value is not None}
    if isinstance(request.get("user"), int):
        request["user"] = str(request["user"])
    if container is None:
        began(*_start_in_zone(agent, request))
        return None
    runtime = container.runtime
    terminal = request.get("tty") is True
    if terminal:
        request.setdefault("size", [24, 80])
    made = Stdio() if terminal else stdio.pipes(agent.loop, stdin=stdin)
    try:
        launch = runtime.begin_further(request, made.given)
    except BaseException:
        made.close()
        raise
    finally:
        made.close_given()

    def runs(process: "Started") -> None:
        try:
            began(stdio.terminal(agent.loop, process.terminal) if terminal else made, process.pid)
        finally:
            process.close()

    def does_not(error: Exception) -> None:
        made.close()
        failed(error)

    return Starting(agent, launch, launch.hear, began=runs, failed=does_not, runtime=runtime)


def _start_in_zone(agent: Agent, request: dict[str, object]) -> tuple[Stdio, int]:
    """There is little in the zone's own root: styrolite, and what the addons bring.

    Without no_new_privs, which a container that styrolite starts would inherit.
    """
    checked = launch.process_of(request, "process.")
    env = checked["env"]
    assert isinstance(env, list)
    if not any(str(entry).startswith("PATH=") for entry in env):
        checked["env"] = [*env, f"PATH={_PATH}"]
    if checked["tty"] or request.get("user"):
        raise Refused("unsupported", "exec in the zone itself: expected neither a terminal nor a user's name")
    made = stdio.pipes(agent.loop, stdin=True)
    given = [fd if fd is not None else -1 for fd in made.given]
    try:
        pid = process.start(checked, -1, (given[0], given[1], given[2]))
    except BaseException:
        made.close_given()
        made.close()
        raise
    made.close_given()
    return made, pid
