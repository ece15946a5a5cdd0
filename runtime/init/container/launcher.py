"""Fork the processes of containers, and take them to their command.

A container without a user or time namespace, and without namespaces of others, is cloned straight from the caller.
Otherwise a stage process lies between: see stage.py.

What they say on their way is heard in launched.py.
"""

import _socket
import posix
from _struct import pack

from runtime.init import descriptors, kernel
from runtime.init.container import abi, calls, command, mounter, procfs, tail
from runtime.init.container.launched import MAX_MESSAGE_BYTES, Launch
from runtime.init.failure import ContainerFailure, Failure, why

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable
    from typing import Any

_SOCKET, _STATUS, PROC, _EXTRA = 3, 4, 5, 6
Stdio = tuple[int | None, int | None, int | None]
Step = tuple[object, ...]


class Child:
    """What a forked process has: the socket at 3, a pipe for a reaper at 4, the zone's /proc at 5, extras behind."""

    def __init__(self, stdio: Stdio, socket_fd: int, status_fd: int, extra: list[int]) -> None:
        # Until it is the container's, nobody who shares an id with it may look into it or at its program.
        calls.prctl(abi.PR_SET_DUMPABLE, 0)
        null = posix.open("/dev/null", posix.O_RDWR)
        proc = posix.open("/proc", posix.O_RDONLY | posix.O_DIRECTORY)
        wanted = [null if fd is None else fd for fd in (*stdio, socket_fd, status_fd if status_fd >= 0 else None, proc)]
        wanted += extra
        copies = [_copy_above(fd, len(wanted)) for fd in wanted]
        for place, copy in enumerate(copies):
            posix.dup2(copy, place, inheritable=place < 3)
        kernel.close_from(len(wanted))
        self.extra = list(range(_EXTRA, len(wanted)))
        self.given = tuple(fd is not None for fd in stdio)
        self.watched = status_fd >= 0
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, _SOCKET)
        self._terminal: tuple[int, int] | None = None

    def say(self, kind: bytes, text: str = "") -> None:
        """Tell whoever started us."""
        _tell(self.socket, kind, text)

    def give_terminal(self, pair: tuple[int, int]) -> None:
        """Hand the master over and keep the slave."""
        self.socket.sendmsg([b"T"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("i", pair[0]))])
        posix.close(pair[0])
        self._terminal = pair

    def finish(
        self,
        process: dict[str, object],
        steps: list[Step],
        apart: "Callable[[], None] | None" = None,
        first_free: int = _STATUS,
    ) -> None:
        """The rest of a process's way, which ends in its command; descriptors from first_free on are closed on it."""
        argv, env = process["argv"], process["env"]
        assert isinstance(argv, list) and isinstance(env, list)
        if self.watched:
            from runtime.init.container import reaper  # see _import_for

            first_free = PROC
        way = tail.Tail(
            self._terminal, given=self.given, first_free=first_free, ready=lambda: self.say(b"R"), apart=apart
        )
        way.run(steps)
        if self.watched:
            reaper.run(_STATUS, [_SOCKET], lambda: tail.start_session(0 if process["tty"] else None))
        variables = command.environment(env)
        if way.home:
            variables.setdefault("HOME", way.home)
        command.execute(argv, variables)


def start(plan: dict[str, object], stdio: Stdio, cgroup_fd: int, joined: list[int]) -> Launch:
    """Begin the first process of a container.

    Shape:   joined: for each of plan["joins"] a descriptor of the namespace, or a pidfd of a process in it.
    Raises:  ContainerFailure; so does the launch, of the step that failed. Nothing of the container is left then.
    """
    process, flags = plan["process"], plan["flags"]
    assert isinstance(process, dict) and isinstance(flags, int)
    staged = plan["maps"] is not None or plan["time"] is not None or bool(joined)

    if staged:
        from runtime.init.container import stage  # see _import_for

    def run(child: Child) -> None:
        set_oom_score(process)
        if staged:
            stage.be_stage(child, plan)
        work = mounter.Mounter()
        do(work, plan["stage"])
        be_container(child, work, plan)

    return launch(run, abi.CLONE_NEWNS if staged else flags, cgroup_fd, process, stdio, staged=staged, extra=joined)


def be_container(child: Child, work: mounter.Mounter, plan: dict[str, object]) -> None:
    """The container's first process, from its namespaces on; never returns but by ContainerFailure."""
    process, steps = plan["process"], plan["tail"]
    assert isinstance(process, dict) and isinstance(steps, list)
    do(work, plan["inside"])
    if work.terminal is not None:
        child.give_terminal(work.terminal)
    child.finish(process, steps)


def do(work: mounter.Mounter, steps: object) -> None:
    """Steps of a plan. Raises ContainerFailure naming the one that failed."""
    assert isinstance(steps, list)
    identity = procfs.Identity(PROC)
    for step in steps:
        named = procfs.REASONS.get(step[0])
        try:
            (identity if named else work).do(step)
        except OSError as error:
            reason, what = (named[0], named[1].format(*step[1:])) if named else mounter.describe(step)
            raise ContainerFailure(reason, f"{what}: {mounter.words(error)}") from None


def call(reason: str, what: str, action: "Callable[..., object]", *arguments: object) -> "Any":
    """What it gives. Raises ContainerFailure saying what failed."""
    try:
        return action(*arguments)
    except OSError as error:
        raise ContainerFailure(reason, f"{what}: {mounter.words(error)}") from None


def set_oom_score(process: dict[str, object]) -> None:
    """Inherited by whoever is forked from here; from a user namespace it could not be set."""
    value = process["oom_score_adj"]
    if value is not None:
        what = f"setting oom_score_adj to {value}"
        call("process", what, procfs.write, PROC, "self/oom_score_adj", str(value).encode())


def _copy_above(fd: int, low: int) -> int:
    copy = posix.dup(fd)
    while copy < low:
        copy = posix.dup(fd)
    return copy


def launch(
    run: "Callable[[Child], None]",
    flags: int,
    cgroup_fd: int,
    process: dict[str, object],
    stdio: Stdio,
    *,
    staged: bool,
    extra: list[int],
) -> Launch:
    """Fork, and go on with `run` in the child."""
    _import_for(process)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    reader, writer = posix.pipe2(posix.O_CLOEXEC) if process["init"] else (-1, -1)
    try:
        pid = calls.clone(flags, cgroup_fd)
        if pid == 0:
            _run_child(run, stdio, theirs, writer, extra)
        return Launch(ours, pid, reader, staged=staged)
    except OSError as error:
        ours.close()
        if reader >= 0:
            posix.close(reader)
        raise ContainerFailure("namespace", f"starting a process in its namespaces: {why(error)}") from None
    finally:
        theirs.close()
        if writer >= 0:
            posix.close(writer)


def _import_for(process: dict[str, object]) -> None:
    """What only few take; in the child, whose root is another, there may be nothing to import it from."""
    for key, name in (("init", "reaper"), ("tty", "terminal")):
        if process[key]:
            __import__(f"runtime.init.container.{name}")


def _run_child(
    run: "Callable[[Child], None]", stdio: Stdio, theirs: _socket.socket, status_fd: int, extra: list[int]
) -> None:
    """Never returns: it becomes the command, or says why not and ends."""
    told = theirs
    try:
        try:
            child = call("process", "taking its descriptors", Child, stdio, theirs.fileno(), status_fd, extra)
            told = child.socket
            call("rlimit", "setting its limit of descriptors", descriptors.give_back)
            run(child)
            failure: Failure = ContainerFailure("process", "the exec came back without an error")
        except Failure as error:
            failure = error
        except OSError as error:  # of what has no words of its own
            failure = ContainerFailure("process", f"taking it to its command: {why(error)}")
        except BaseException as error:
            failure = ContainerFailure("process", f"{type(error).__name__}: {error}")
        _tell(told, b"F", f"{failure.reason} {failure.sentence}")
    finally:
        posix._exit(127)  # whatever happens, a second caller must not go on from here


def _tell(told: _socket.socket, kind: bytes, text: str) -> None:
    told.send((kind + text.encode("utf-8", "replace"))[:MAX_MESSAGE_BYTES])
