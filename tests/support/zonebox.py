"""The real program as pid 1 of namespaces: an initrd on a tmpfs, a squashfs behind a loop device, a pty as hvc1."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import pty
import subprocess
import tomllib
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.bundle.model import Bundle, Process
from pipeline.bundle.security import parse_confinement
from pipeline.initrd.stage import base_segment
from pipeline.oci import Descriptor, Digest
from runtime.host.daemon import confinement
from support import cgroups, zoneparts
from support.agenthost import AgentHost
from support.containers import cgroup_root, eventually
from support.namespaces import unshare_mount
from support.tools import require

# In a cgroup namespace of its own, so that boxes do not meet in the one cgroup2 tree this machine has: unpacks the
# initrd where nothing else is, puts the agent's device in it, and makes that the root: over the one there was, as a
# kernel does, and not a directory of it, in which nobody may have a user namespace (kernel/user_namespace.c,
# current_chrooted).
# $1: directory, $2: initrd, $3: launch data, $4: cgroup, $5: device of the agent or "".
OUTSIDE = """
set -e
mkdir -p "$1" "$1.cgroup2"
mount -t cgroup2 cgroup2 "$1.cgroup2"
mkdir "$1.cgroup2/$4"
echo 0 > "$1.cgroup2/$4/cgroup.procs"
exec unshare --cgroup sh -c '
set -e
ip link add vif0 type veth peer name peer0
mount -t tmpfs tmpfs "$1"
cd "$1"
cpio --quiet -idm < "$2"
cp "$3" zone/launch.json
if [ -n "$5" ]; then : > link; mount --bind "$5" link; fi
mount --move . /
exec chroot . /init
' sh "$@"
"""
REMOVE = """
mkdir -p "$1" && mount -t cgroup2 cgroup2 "$1" && [ ! -d "$1/$2" ] || find "$1/$2" -depth -type d -exec rmdir {} +
"""
PROGRAMS = ("sh", "cat", "ls", "id", "sleep", "mount", "readlink", "ip", "hostname", "dd", "stat")
_numbers = itertools.count()


def make_initrd(path: Path) -> Path:
    """The initrd without modules; skips where this machine cannot run it."""
    require("cpio", "unshare", "losetup", "ip", "mksquashfs")
    for name in ("squashfs", "overlay"):
        subprocess.run(["sh", "-c", f"modprobe {name}"], capture_output=True)
        if name not in Path("/proc/filesystems").read_text().split():
            pytest.skip(f"this machine's kernel has no {name}")
    path.write_bytes(base_segment(zoneparts.env().store.path(zoneparts.zone_init().elf.digest)))
    return path


@contextlib.contextmanager
def loop_device(image: Path, *, writable: bool = False) -> Iterator[str]:
    """A block device whose contents are a file's."""
    attach = ["losetup", "--find", "--show", *([] if writable else ["--read-only"]), str(image)]
    done = subprocess.run(attach, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device to be had: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


# A workload that idles until it is asked to end, and then ends with 7. Its processes are the same all the time: a test
# that looks for those beside them would else take one that is new for another's.
IDLE = {"argv": ["sh", "-c", "trap 'exit 7' TERM; sleep 1000000 & echo up; while :; do wait $!; sleep 1000000 & done"]}

NETWORK = {"mtu": 1400, "addresses": ["10.75.1.2/24"], "gateways": ["10.75.1.1"], "nameservers": [], "search": []}


def children(pid: int) -> list[int]:
    """The children of a process, oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Zone:
    """A zone that runs; `host` is the other end of its agent channel, where it has one."""

    def __init__(self, process: subprocess.Popen[str], host: AgentHost | None) -> None:
        self._process, self._host = process, host

    @property
    def host(self) -> AgentHost:
        assert self._host is not None
        return self._host

    @property
    def init_pid(self) -> int:
        """Pid 1 of the zone, as this machine numbers it. The zone must be up."""
        return children(self._process.pid)[0]

    @property
    def agent_pid(self) -> int:
        """The same of its agent."""
        return children(self.init_pid)[0]

    def said(self, timeout_s: float) -> tuple[str, str]:
        """All that it printed, and whoever ran it: stdout, stderr."""
        return self._process.communicate(timeout=timeout_s)

    def workload_ended(self, file: str) -> None:
        """Wait for a workload that makes a file as it ends, as this machine sees it: without a word from the zone."""

        def ended() -> bool:
            try:
                made = Path(f"/proc/{self.init_pid}/root/containers/main/root", file).exists()
                return made and not children(self.agent_pid)
            except (IndexError, OSError):  # not up yet
                return False

        assert eventually(ended)

    def wait(self) -> tuple[str, str]:
        """What it printed, and init's last word on how it ended."""
        out, err = self._process.communicate(timeout=60)
        lines = err.splitlines()
        said = [line for line in lines if line.startswith("zone: ") and not line.startswith("zone: phase")]
        assert said, err
        others = [line for line in lines if not line.startswith("zone: ")]
        return out + "".join(f"{line}\n" for line in others), said[-1]


@functools.cache
def _tidied() -> None:
    """Once a run: a pid comes again, and with it the names of what a killed run left."""
    with contextlib.suppress(pytest.skip.Exception):  # where no tree is mounted, nothing was left in it
        cgroups.remove_left_behind(Path(cgroup_root()))


@contextlib.contextmanager
def zone(
    directory: Path, initrd: Path, *, channel: bool = False, under: Sequence[str] = (), **launch: object
) -> Iterator[Zone]:
    """Run a zone; what is left of it afterwards is killed. under: a command that runs it, such as a tracer."""
    number = next(_numbers)
    base = directory / f"zone{number}"
    cgroup = f"{cgroups.own('zonebox')}-{number}"
    _tidied()
    extra = launch.pop("extra", {})
    assert isinstance(extra, dict)
    extra = {"device_timeout_s": 5} | extra | ({"agent_device": "/link"} if channel else {})
    (directory / f"launch{number}.json").write_bytes(zoneparts.launch_json(extra=extra, **launch))
    argv = [
        *under,
        *unshare_mount(),
        "--pid",
        "--fork",
        "--kill-child",
        "--net",
        "--uts",
        "--ipc",
        "sh",
        "-c",
        OUTSIDE,
        "sh",
    ]
    argv += [str(base), str(initrd), str(directory / f"launch{number}.json"), cgroup]
    with contextlib.ExitStack() as stack:
        host, device = None, ""
        if channel:
            master, slave = pty.openpty()
            stack.callback(os.close, master)
            stack.callback(os.close, slave)
            tty.setraw(slave)
            host, device = AgentHost(master), os.ttyname(slave)
        remove = [*unshare_mount(), "sh", "-c", REMOVE, "sh", str(base) + ".cgroup2", cgroup]
        stack.callback(subprocess.run, remove, capture_output=True)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*argv, device], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace"
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield Zone(process, host)


def sh(text: str, **keys: object) -> dict[str, object]:
    """The process of a shell script."""
    return {"argv": ["sh", "-c", text]} | keys


def confined(text: str, **keys: Any) -> dict[str, Any]:
    """What the agent is told of the container of a workload whose spec says this of it, in TOML; keys of its bundle."""
    blob = Descriptor("application/octet-stream", Digest.of(b""), 0)
    wanted = parse_confinement(tomllib.loads(text), subject="box")
    return confinement.container_keys(
        Bundle("box", blob, "6", (blob,), (), blob, Process(("sh",), ()), confinement=wanted, **keys)
    )


def cgroup_of(zone: Any) -> Path:
    """The directory of all the zone's containers."""
    path = Path(f"/proc/{zone.agent_pid}/cgroup").read_text().split("0::")[1].strip()
    return Path(f"{cgroup_root()}{path}/containers")


def config(script: str, **keys: object) -> bytes:
    """A config of Edera's styrolite, for the image of the zone's own workload."""
    command = {"executable": "/bin/sh", "arguments": ["-c", script], "environment": {"PATH": "/bin"}}
    whole = {"kind": "Create", "workload_id": "inner", "rootfs": "/containers/main/root", "exec": command} | keys
    return json.dumps(whole).encode()
