"""The command styrolite: `styrolite CONFIG.json` (`-`: standard input), and `styrolite --bundle DIR [--id ID]`.

It starts one container with its own standard streams, forwards signals, and ends as the command ended: with its code,
with 128 + n where signal n killed it, with 125 where the container did not come to be, 126 or 127 where the command
cannot be executed or is not there.
"""

import posix
import time

from runtime.init import jsonread
from runtime.init.abi import SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH
from runtime.init.container import abi, bundle, calls, cgroup, foreground, further, membership, steps, wrap
from runtime.init.container import spec as specs
from runtime.init.container.container import Container, outcome
from runtime.init.failure import ContainerFailure, why
from runtime.init.launch import read_file

USAGE = "usage: styrolite CONFIG.json | styrolite - | styrolite --bundle DIR [--id ID]"
FORWARDED = (SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2)
WATCHED = (SIGCHLD, SIGWINCH, *FORWARDED)
_CODES = {"command-127": 127, "command-126": 126}
_NAMES = {"mount": "mnt"} | {name: name for name in ("uts", "ipc", "pid", "net", "cgroup", "time", "user")}
_FLAGS = {"mount": abi.CLONE_NEWNS} | steps.FLAGS
_BEGAN = 17  # of /proc/PID/stat, the field starttime (22) behind ppid (4)


def main(arguments: list[str]) -> int:
    """The exit code. Says what went wrong on standard error."""
    try:
        if len(arguments) == 1 and (arguments[0] == "-" or not arguments[0].startswith("-")):
            return _run_config(arguments[0])
        if len(arguments) in (2, 4) and arguments[0] == "--bundle" and arguments[2:3] in ([], ["--id"]):
            return _run_bundle(arguments[1], arguments[3] if len(arguments) == 4 else f"bundle-{posix.getpid()}")
    except ContainerFailure as failure:
        _say(f"failed ({failure.reason}): {failure.sentence}")
        return _CODES.get(failure.reason, 125)
    except OSError as error:  # of what has no words of its own
        _say(f"failed (process): {why(error)}")
        return 125
    _say(USAGE)
    return 125


def _run_config(path: str) -> int:
    config = _read(path)
    kind = config.get("kind")
    permitted = calls.capget()[1]
    if kind == "Create":
        uptime_s = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        name, spec = wrap.create(config, permitted=permitted, uptime_s=uptime_s, pid=posix.getpid())
        root = _cgroups(config.get("cgroupfs"), wanted=bool(spec["limits"] or config.get("cgroupfs")))
        return _run(name, spec, root)
    if kind == "Attach":
        return _attach(config, permitted)
    raise ContainerFailure("spec", f"styrolite config: key kind: expected Create or Attach, got {kind!r:.80}")


def _run_bundle(directory: str, name: str) -> int:
    config = _read(f"{directory}/config.json")
    spec = bundle.spec_of(config, directory if directory.startswith("/") else f"{posix.getcwd()}/{directory}")
    profile = bundle.seccomp_of(config)
    if profile is not None:
        # Nothing else in a zone compiles filters; those of zones come compiled from the host.
        from pipeline.seccomp import filters

        process = spec["process"]
        assert isinstance(process, dict)
        try:
            process["seccomp"], process["seccomp_flags"] = filters.compile(profile).hex(), filters.flags(profile)
        except ValueError as error:
            raise ContainerFailure("seccomp", f"config.json: {error}") from None
    return _run(name, spec, _cgroups(None, wanted=bool(spec["limits"])))


def _run(name: str, spec: dict[str, object], cgroups: str) -> int:
    # What a failed start leaves is removed before anything is said, and signals find the container from the first on.
    signal_fd = foreground.watch(WATCHED)
    container = Container(name, spec, cgroups)
    try:
        process = container.plan["process"]
        assert isinstance(process, dict)
        started = container.start((None, None, None) if process["tty"] else (0, 1, 2))
        status = foreground.follow(started, signal_fd, FORWARDED)
        return _code(container.exited(status))
    finally:
        container.delete(force=True)


def _attach(config: dict[str, object], permitted: int) -> int:
    supervisor, names, process = wrap.attach(config, permitted=permitted)
    target = _first_child(supervisor)
    checked = specs.check_process(process)
    try:
        pidfd = posix.pidfd_open(target)
        # A namespace it shares with us needs no joining, and a user namespace refuses it.
        flags = sum(_FLAGS[name] for name in names if not _same_namespace(target, _NAMES[name]))
        maps = {f"{key}_maps": _maps(target, key) for key in ("uid", "gid")} if flags & abi.CLONE_NEWUSER else None
        denied = maps is not None and read_file(f"/proc/{target}/setgroups", 16).strip() == b"deny"
    except OSError as error:
        raise ContainerFailure("namespace", f"attaching to process {target}: {why(error)}") from None
    cgroup_fd = membership.of_process(target, _cgroups(config.get("cgroupfs"), wanted=True))
    signal_fd = foreground.watch(WATCHED)
    planned = steps.process_plan(checked, groups_denied=denied, entering=True)
    started = further.enter(target, pidfd, flags, maps, checked, planned, (0, 1, 2), cgroup_fd).wait()
    return _code(outcome(foreground.follow(started, signal_fd, FORWARDED)))


def _first_child(supervisor: int) -> int:
    """The container's first process: the child of the styrolite that watches over it.

    The younger of two: the stage that made it may not be gone yet.
    """
    found: list[tuple[int, int]] = []
    for name in posix.listdir("/proc"):
        if name.isdigit():
            try:
                stat = read_file(f"/proc/{name}/stat", 4096)
            except OSError:
                continue  # it has just ended
            # The name in parentheses may have any character; Documentation/filesystems/proc.rst, "stat".
            state, parent, *rest = stat.rpartition(b")")[2].split()
            if int(parent) == supervisor and state not in (b"Z", b"X"):
                found.append((int(rest[_BEGAN]), int(name)))
    if not found:
        raise ContainerFailure("namespace", f"attaching: expected a child of process {supervisor}, got none")
    return max(found)[1]


def _same_namespace(pid: int, name: str) -> bool:
    ours, theirs = posix.stat(f"/proc/self/ns/{name}"), posix.stat(f"/proc/{pid}/ns/{name}")
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def _maps(pid: int, kind: str) -> list[list[int]]:
    lines = read_file(f"/proc/{pid}/{kind}_map").split(b"\n")
    return [[int(word) for word in line.split()] for line in lines if line]


def _cgroups(given: object, *, wanted: bool) -> str:
    """The cgroup v2 tree to use; "" for none, where no limit is wanted and none can be made."""
    path = given if isinstance(given, str) and given else cgroup.ROOT
    return path if wanted or cgroup.usable(path) else ""


def _read(path: str) -> dict[str, object]:
    """A document; `-` is what standard input has, which the command then finds at its end."""
    try:
        document = jsonread.parse(read_file("/proc/self/fd/0" if path == "-" else path))
    except OSError as error:
        raise ContainerFailure("spec", f"reading {path}: {why(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ContainerFailure("spec", f"{path}: expected JSON, got {error}") from None
    if not isinstance(document, dict):
        raise ContainerFailure("spec", f"{path}: expected an object, got {document!r:.80}")
    return document


def _code(exit_: dict[str, object]) -> int:
    """The exit code for an outcome, which is said where it was no exit."""
    if "signal" in exit_:
        _say(
            f"the command was killed by signal {exit_['signal']}" + (", for want of memory" if exit_.get("oom") else "")
        )
        return 128 + int(str(exit_["signal"]))
    return int(str(exit_["code"]))


def _say(line: str) -> None:
    posix.write(2, f"styrolite: {line}\n".encode("utf-8", "backslashreplace"))
