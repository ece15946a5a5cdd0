"""Start a process in the zone itself: everything between fork and exec, each step fatal when it fails."""

import posix

from runtime.init import descriptors, kernel
from runtime.init.container.command import environment, execute
from runtime.init.failure import BootFailure, Failure, os_failure

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_ERROR_FD = 3


def start(process: dict[str, object], cgroup_fd: int, stdio: tuple[int, int, int]) -> int:
    """Fork into the cgroup and execute the process; returns its pid once the exec has happened.

    stdio:   what becomes descriptors 0, 1 and 2; each is 3 or higher, or -1 for /dev/null.
    Raises:  BootFailure of the child's step that failed: "user", "cwd", "command-127" (missing), "command-126"
             (cannot be executed), "workload" (the rest).
    """
    argv = process["argv"]
    if not isinstance(argv, list) or not argv:
        raise BootFailure("command-127", "neither the image nor the zone names a command")
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid = kernel.fork(cgroup_fd)
    except OSError as error:
        posix.close(reader)
        posix.close(writer)
        raise os_failure("workload", "starting a process", error) from None
    if pid == 0:
        _child(process, [str(word) for word in argv], stdio, writer)
    posix.close(writer)
    said = b""
    while chunk := posix.read(reader, 4096):
        said += chunk
    posix.close(reader)
    if said:
        posix.waitpid(pid, 0)
        reason, _, sentence = said.decode("utf-8", "replace").partition(" ")
        raise BootFailure(reason, sentence)
    return pid


def _child(
    process: dict[str, object],
    argv: list[str],
    stdio: tuple[int, int, int],
    error_fd: int,
) -> None:
    """Never returns: it becomes the process, or says why not and ends."""
    try:
        failure: Failure = BootFailure("workload", "the exec came back without an error")
        try:
            for fd, source in enumerate(stdio):
                if source >= 0:
                    posix.dup2(source, fd, inheritable=True)
            _session(process)
            if stdio[0] < 0:
                _step("opening /dev/null", _null_input)
            if error_fd != _ERROR_FD:
                error_fd = posix.dup2(error_fd, _ERROR_FD, inheritable=False)
            _prepare(process)
            execute(argv, environment(_list(process["env"])))
        except Failure as error:
            failure = error
        except OSError as error:  # of what has no words of its own
            failure = os_failure("workload", "taking it to its command", error)
        except BaseException as error:
            failure = BootFailure("workload", f"{type(error).__name__}: {error}")
        posix.write(error_fd, f"{failure.reason} {failure.sentence}".encode("utf-8", "replace")[:2048])
    finally:
        posix._exit(127)  # whatever happens, a second agent must not go on from here


def _session(process: dict[str, object]) -> None:
    """A session of its own, a terminal where there is one; the agent's protection from the OOM killer ends here."""
    _step("starting a session", posix.setsid)
    if process["tty"]:
        _step("taking the terminal", kernel.controlling_terminal, 0)
    _step("becoming what the OOM killer may take", _write, "/proc/self/oom_score_adj", b"0")


def _prepare(process: dict[str, object]) -> None:
    """Descriptors, limits, ids, directory, privileges, signals."""
    uid, gid = _number(process, "uid"), _number(process, "gid")
    groups = [group for group in _list(process["groups"]) if isinstance(group, int)]
    # Closed before the directory is changed: a cwd such as /proc/self/fd/7 must find nothing (CVE-2024-21626).
    _step("closing descriptors", kernel.close_from, _ERROR_FD + 1)
    _step("setting its limit of descriptors", descriptors.give_back)
    for fd in (1, 2):
        # So that a user other than root can open /dev/stdout again.
        _step(f"giving descriptor {fd} to user {uid}", posix.fchown, fd, uid, -1, reason="user")
    _step(f"setting the groups {groups}", posix.setgroups, groups, reason="user")
    _step(f"becoming group {gid}", posix.setresgid, gid, gid, gid, reason="user")
    _step(f"becoming user {uid}", posix.setresuid, uid, uid, uid, reason="user")
    _enter(str(process["cwd"]))
    _step("unblocking signals", kernel.block_signals, ())


def _step(what: str, action: "Callable[..., object]", *args: object, reason: str = "workload") -> None:
    try:
        action(*args)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError):
            raise os_failure(reason, what, error) from None
        raise BootFailure(reason, f"{what}: {error}") from None


def _null_input() -> None:
    posix.dup2(posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC), 0, inheritable=True)


def _write(path: str, data: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, data)
    finally:
        posix.close(fd)


def _enter(cwd: str) -> None:
    try:
        posix.chdir(cwd)
        here = posix.getcwd()
    except OSError as error:
        raise os_failure("cwd", f"working directory {cwd!r}", error) from None
    if not here.startswith("/"):
        raise BootFailure("cwd", f"working directory {cwd!r} lies outside the root")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _number(process: dict[str, object], key: str) -> int:
    value = process[key]
    if not isinstance(value, int):
        raise BootFailure("user", f"{key} is no number: {value!r}")
    return value
