"""Real containers on this machine: zsys built for this interpreter, a root of some programs, and a short way to run."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import select
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.recipe import PROJECT
from runtime.init.failure import ContainerFailure
from support import cgroups

PROGRAMS = ("sh", "cat", "ls", "id", "sleep", "mount", "umount", "readlink", "dd", "stat", "mknod", "hostname", "chmod")
# What does any system call: `call NUMBER ARGUMENT…` prints its result and errno. @TEXT is a string.
CALL = """
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
int main(int argc, char **argv)
{
    long words[7] = {0};
    for (int i = 1; i < argc && i < 8; i++)
        words[i - 1] = argv[i][0] == '@' ? (long)(argv[i] + 1) : strtol(argv[i], 0, 0);
    errno = 0;
    long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
    printf("%ld %d\\n", result, errno);
}
"""


@functools.cache
def directory() -> Path:
    """Where this run keeps what it builds."""
    return Path(tempfile.mkdtemp(prefix="zonewright-containers-"))


@functools.cache
def zsys() -> ModuleType:
    """The C part of the zone's program as an extension of this interpreter; other tests' stub gets its functions."""
    headers = sysconfig.get_paths()["include"]
    if not Path(headers, "Python.h").exists():
        pytest.skip(f"no Python.h in {headers}")
    built = directory() / "zsys.so"
    gcc("-shared", "-fPIC", f"-I{headers}", "-o", built, PROJECT / "runtime" / "init" / "zsys.c")
    stub = sys.modules.get("zsys")  # loading puts the module itself there
    loader = importlib.util.spec_from_file_location("zsys", built)
    assert loader is not None and loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    if stub is not None:
        vars(stub).update({name: getattr(module, name) for name in ("syscall", "addr", "clone3")})
    return module


def gcc(*words: object) -> None:
    """Compile, or skip where there is no compiler."""
    try:
        subprocess.run(["gcc", "-O1", *map(str, words)], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no gcc")


def cgroup_root() -> str:
    """This machine's cgroup v2 tree; beside v1 it is found elsewhere, and may have no controllers."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return place
    pytest.skip("no cgroup v2 tree is mounted")


def cgroup(name: str = "test") -> Path:
    """Where the cgroup of this run's container of that name is."""
    return Path(cgroup_root(), "containers", cgroups.own(name))


@functools.cache
def _tidied() -> None:
    """Once a run: what killed ones left would be there for all later ones."""
    cgroups.remove_left_behind(Path(cgroup_root(), "containers"))


@functools.cache
def root() -> Path:
    """A root directory with PROGRAMS and `call`."""
    from support import zoneparts

    made = zoneparts.small_root(directory() / "root", PROGRAMS)
    (made / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\njoe:x:1234:55::/home/joe:/bin/sh\n")
    (made / "etc" / "group").write_text("root:x:0:\nstaff:x:55:\nwheel:x:7:joe\naudio:x:8:joe\n")
    (made / "call.c").write_text(CALL)
    gcc("-static", "-o", made / "bin" / "call", made / "call.c")
    (made / "bin" / "text").write_text("not a program\n")
    (made / "bin" / "text").chmod(0o755)
    (made / "bin" / "orphan").write_text("#!/opt/none/sh\n")
    (made / "bin" / "orphan").chmod(0o755)
    return made


def spec(script: str | list[str], process: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """A container spec with the root above, for a shell's script or an argv."""
    argv = ["sh", "-c", script] if isinstance(script, str) else script
    return {"root": {"path": str(root())}, "process": {"argv": argv} | (process or {})} | keys


class Live:
    """A container that runs, with its output on a pipe."""

    def __init__(self, wanted: dict[str, Any], name: str, cgroups: str, find: Any = lambda name: None) -> None:
        from runtime.init.container.container import Container

        self.container = Container(name, wanted, cgroups)
        self._reader, writer = os.pipe()
        try:
            self.started = self.container.start((None, writer, writer), find)
        except BaseException:
            self.container.delete()
            os.close(self._reader)
            raise
        finally:
            os.close(writer)

    def run(self, script: str | list[str], stdin: int | None = None, **process: Any) -> tuple[str, dict[str, Any]]:
        """A further process in it: (output, exit)."""
        from runtime.init.container.container import outcome

        argv = ["sh", "-c", script] if isinstance(script, str) else script
        reader, writer = os.pipe()
        try:
            started = self.container.enter({"argv": argv} | process, (stdin, writer, writer))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        text = drain(reader if started.terminal < 0 else started.terminal)
        _, status = os.waitpid(started.pid, 0)
        os.close(reader)
        started.close()
        return text, outcome(status)

    def line(self, timeout_s: float = 60.0) -> str:
        """The next line of its output."""
        said = b""
        source = self._reader if self.started.terminal < 0 else self.started.terminal
        while not said.endswith(b"\n"):
            assert select.select([source], [], [], timeout_s)[0], f"no line came; so far {said!r}"
            said += os.read(source, 1)
        return said.decode()

    def wait(self) -> tuple[str, dict[str, Any]]:
        """(the rest of its output, exit)."""
        text = drain(self._reader if self.started.terminal < 0 else self.started.terminal)
        _, status = os.waitpid(self.started.pid, 0)
        return text, self.container.exited(status)

    def close(self) -> None:
        """End it and remove it."""
        if self.container.exit is None and self.container.state != "stopped":
            self.container.cgroup.kill()
            os.kill(self.started.pid, 9)
            os.waitpid(self.started.pid, 0)
        self.container.delete(force=True)
        os.close(self._reader)


def drain(fd: int, timeout_s: float = 120.0) -> str:
    """What comes until the end; a terminal's end is EIO."""
    said = b""
    while True:
        assert select.select([fd], [], [], timeout_s)[0], f"no end came; so far {said!r}"
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            return said.decode(errors="replace")
        said += chunk


@contextlib.contextmanager
def live(wanted: dict[str, Any], name: str = "test", **keys: Any) -> Iterator[Live]:
    """A running container; nothing of it is left afterwards. Its cgroup is this run's own."""
    _tidied()
    found = Live(wanted, cgroups.own(name), cgroup_root(), **keys)
    try:
        yield found
    finally:
        found.close()


def run(wanted: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(output, exit) of a container that ends by itself."""
    with live(wanted) as container:
        return container.wait()


def mounts() -> set[str]:
    """What is mounted where containers could leave something; what others do meanwhile below /run and /tmp is not."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if str(directory()) in line or not line.split()[4].startswith(("/run/", "/tmp/"))}


def eventually(condition: Any, timeout_s: float = 60.0) -> bool:
    """Wait for what has no event of its own."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def refused(wanted: dict[str, Any]) -> ContainerFailure:
    """The failure a spec is refused with."""
    with pytest.raises(ContainerFailure) as caught, live(wanted):
        pass
    return caught.value


def status_of(text: str) -> dict[str, str]:
    """/proc/PID/status, as a mapping."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
