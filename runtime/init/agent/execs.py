"""The `exec` stream: a further process in a container, or in the zone itself, with its streams and its end."""

import posix

from runtime.init import abi, launch
from runtime.init.agent import cgroup, launcher, params, stdio
from runtime.init.agent.container import Container, exit_of
from runtime.init.agent.core import Agent
from runtime.init.agent.errors import Refused
from runtime.init.agent.stdio import Stdio
from runtime.init.agent.stream import Handler, Outlet, Stream

_HANGUP_S = 2.0  # what nobody waits for is asked to end, and ended after this


class Exec(Handler):
    """One process; the result comes when it has ended and all it wrote has been sent."""

    def __init__(self, agent: Agent, stream: Stream, container: Container | None, request: dict[str, object]) -> None:
        self._agent, self._stream, self._container = agent, stream, container
        self._exit: dict[str, object] | None = None
        self._oom_kills = cgroup.oom_kills(container.name) if container is not None else 0
        self._stdio, self._pid = _start(agent, container, request)
        agent.children[self._pid] = self._ended
        stream.handler = self
        stream.event({"started": self._pid})
        self._outlets: list[Outlet] = []
        for fd, source in self._stdio.outputs.items():
            outlet = stream.pour(fd, source)
            outlet.done = self._finish
            self._outlets.append(outlet)

    def data(self, fd: int, payload: bytes) -> None:
        """Input; what the process does not take any more is dropped."""
        if fd != 0:
            raise Refused("protocol", f"exec: expected bytes of descriptor 0, got some of {fd}")
        if self._stdio.stdin is None or not self._stdio.stdin.open:
            self._stream.consumed(0, len(payload))
        else:
            self._stdio.stdin.feed(payload, lambda count: self._stream.consumed(0, count))

    def eof(self, fd: int) -> None:
        """No more input."""
        if fd == 0 and self._stdio.stdin is not None and self._stdio.stdin.open:
            self._stdio.stdin.finish()

    def event(self, value: dict[str, object]) -> None:
        """{"resize": [rows, columns]} or {"signal": n}."""
        if "resize" in value:
            self._stdio.resize(*stdio.size_of(value["resize"]))
        if "signal" in value and self._exit is None:
            posix.kill(self._pid, params.number(value, "signal", least=1, most=64))

    def closed(self) -> None:
        """Nobody waits: the process is hung up on, as by a terminal that has gone."""
        self._stdio.close()
        if self._exit is None:
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
        name = self._container.name if self._container is not None else ""
        self._exit = exit_of(status, oom=bool(name) and cgroup.oom_kills(name) > self._oom_kills)
        if self._stream.over:
            return
        for source in self._stdio.outputs.values():
            source.drain()
        self._finish()

    def _finish(self) -> None:
        if self._exit is not None and all(outlet.ended for outlet in self._outlets):
            self._stream.succeed({"exit": self._exit})


def process_of(request: dict[str, object], container: Container | None, root_fd: int | None) -> dict[str, object]:
    """The process of a request, filled in: user names become numbers, cwd and env those of the container.

    user:    "name", "uid", "name:group" or a number; without one, uid, gid and groups as given, else the container's.
    Raises:  Refused, BootFailure.
    """
    own = container.process if container is not None else {}
    process: dict[str, object] = {"cwd": own.get("cwd", "/"), "env": own.get("env", [])}
    if "uid" not in request:
        process |= {key: own[key] for key in ("uid", "gid", "groups") if key in own}
    process |= {key: value for key, value in request.items() if key not in ("user", "size") and value is not None}
    user = request.get("user")
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if isinstance(user, str) and user and root_fd is not None:
        from runtime.init.agent import users

        process["uid"], process["gid"], process["groups"], home = users.resolve_in(root_fd, user)
        env = process["env"]
        if home and isinstance(env, list) and not any(str(entry).startswith("HOME=") for entry in env):
            process["env"] = [*env, f"HOME={home}"]
    return launch.process_of(process, "process.")


def _start(agent: Agent, container: Container | None, request: dict[str, object]) -> tuple[Stdio, int]:
    root_fd = None
    if container is not None:
        container.must_run()
        root_fd = container.open_root()
    try:
        process = process_of(request, container, root_fd)
        if process["tty"]:
            made = stdio.terminal(agent.loop, root_fd, request.get("size"))
        else:
            made = stdio.pipes(agent.loop, stdin=True)
    finally:
        if root_fd is not None:
            posix.close(root_fd)
    try:
        pid = run(container, process, made)
    except BaseException:
        made.close_given()
        made.close()
        raise
    made.close_given()
    return made, pid


def run(container: Container | None, process: dict[str, object], made: Stdio) -> int:
    """Start it in the container's cgroup and namespaces, or in the zone itself."""
    if container is None:
        return launcher.start_in_zone(process, made.given)
    cgroup_fd = cgroup.directory(container.name)
    try:
        return launcher.enter(container.pid, process, made.given, cgroup_fd)
    finally:
        posix.close(cgroup_fd)
