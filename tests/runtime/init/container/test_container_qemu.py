"""Limits of containers under the real zone kernel, whose cgroup v2 tree has every controller. Emulated, without Xen."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from support import zoneparts
from support.tools import require

from pipeline import newc
from pipeline.fetch.model import FetchResult
from pipeline.layers import Spools
from pipeline.unpack import UnpackParams, open_rootfs
from pipeline.unpack import run as unpack

pytestmark = [pytest.mark.slow, pytest.mark.network]

CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on rdinit=/start"
PROGRAMS = ("sh", "cat", "ls", "id", "sleep", "mount", "cp", "mkdir", "chroot", "dd", "sync", "rmdir")
# pivot_root refuses the root of an initramfs, as init knows: away from it first.
START = """#!/bin/sh
export PATH=/bin
mkdir -p /new /proc
mount -t tmpfs tmpfs /new
cp -a /bin /etc /lib /lib64 /bundles /tests /new 2>/dev/null
cp -a /usr /new 2>/dev/null
cd /new
mkdir -p proc sys dev tmp root/bin root/tmp
cp -a bin etc lib lib64 root 2>/dev/null
cp -a usr root 2>/dev/null
mount --move . /
exec chroot . /bin/sh /tests
"""
TESTS = """
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec </dev/null
cd /sys/fs/cgroup
say() { echo "== $*"; }
say limits
styrolite --bundle /bundles/limits --id limits &
pid=$!
while ! cat containers/limits/cgroup.procs 2>/dev/null | cat | { read x && [ -n "$x" ]; }; do sleep 0.1; done
cd containers/limits
for f in memory.max memory.high memory.low memory.swap.max cpu.max cpu.weight pids.max cpuset.cpus memory.min; do
  [ -e $f ] && { read value < $f; say "$f $value"; }
done
cd /sys/fs/cgroup
wait $pid
say "code $?"
say oom; styrolite --bundle /bundles/oom; say "code $?"
say pids; styrolite --bundle /bundles/pids; say "code $?"
say cpu; styrolite --bundle /bundles/cpu; say "code $?"
say io; echo "controllers $(cat cgroup.controllers)"; styrolite --bundle /bundles/io; say "code $?"
say absent; styrolite --bundle /bundles/absent; say "code $?"
say inside; styrolite --bundle /bundles/inside; say "code $?"
say end
ls containers
echo 1 > /proc/sys/kernel/sysrq
echo o > /proc/sysrq-trigger
sleep 100
"""


def bundle(script: str, resources: dict) -> dict:
    caps = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
        },
        "root": {"path": "/root"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "cgroup", "network")],
            "resources": resources,
        },
    }


BUNDLES = {
    "limits": bundle(
        "sleep 3; exit 3",
        {
            "memory": {"limit": 64 << 20, "reservation": 8 << 20, "swap": 64 << 20},
            "cpu": {"shares": 2, "quota": 20000, "period": 50000, "cpus": "0"},
            "pids": {"limit": 30},
            "unified": {"memory.high": "50331648", "memory.min": "4194304"},
        },
    ),
    "oom": bundle("exec dd if=/dev/zero of=/dev/null bs=96M count=1", {"memory": {"limit": 24 << 20}}),
    "pids": bundle("sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait; echo never", {"pids": {"limit": 3}}),
    "cpu": bundle(
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu.stat",
        {"cpu": {"quota": 10000, "period": 100000}},
    ),
    "io": bundle(
        "cat /sys/fs/cgroup/io.max",
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}],
                "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 50}],
            }
        },
    ),
    "absent": bundle("echo never", {"unified": {"memory.nothing": "1"}}),
    "inside": bundle(
        "ls /sys/fs/cgroup | { while read f; do case $f in memory.max|pids.max) cat /sys/fs/cgroup/$f;; esac; done; };"
        "echo max > /sys/fs/cgroup/memory.max; cat /proc/self/cgroup; ls /proc/xen /sys/hypervisor",
        {"memory": {"limit": 32 << 20}, "pids": {"limit": 9}},
    ),
}


def tree(directory: Path, prefix: str) -> list[newc.Entry]:
    found = []
    for path in sorted(directory.rglob("*")):
        name = f"{prefix}{path.relative_to(directory)}"
        found.append(newc.directory(name) if path.is_dir() else newc.file(name, path.read_bytes(), mode=0o755))
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the console said, by section."""
    require("qemu-system-x86_64")
    env, image = zoneparts.env(), zoneparts.zone_kernel().image
    program = env.store.read(zoneparts.zone_init().elf.digest)
    fetched = FetchResult("recipe:debian-cloud", image.manifest, image.config, image.layers, image.diff_ids)
    directory = tmp_path_factory.mktemp("qemu")
    with Spools(env.store) as spools:
        rootfs = open_rootfs(env.store, unpack(UnpackParams(fetched), env), spools)
        (directory / "kernel").write_bytes(rootfs.read("kernel/image"))
    entries = tree(zoneparts.small_root(directory / "root", PROGRAMS), "")
    entries += [newc.file("bin/styrolite", program, mode=0o755), newc.file("start", START.encode(), mode=0o755)]
    entries += [newc.file("tests", TESTS.encode()), newc.directory("bundles"), newc.directory("dev")]
    entries.append(newc.Entry("dev/console", 0o20600, rdev=(5, 1)))
    for name, config in BUNDLES.items():
        entries += [
            newc.directory(f"bundles/{name}"),
            newc.file(f"bundles/{name}/config.json", json.dumps(config).encode()),
        ]
    (directory / "initrd").write_bytes(newc.archive(entries))
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio"]
    argv += ["-no-reboot", "-kernel", directory / "kernel", "-initrd", directory / "initrd", "-append", CMDLINE]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    text = done.stdout.decode(errors="replace").replace("\r", "")
    assert "== end" in text, text[-3000:]
    parts = re.split(r"^== (\w+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_limits_can_be_read_back(said):
    values = dict(re.findall(r"^== ([a-z]+\.[\w.]+) (.+)$", said["limits"], flags=re.M))
    assert said["limits"].endswith("== code 3\n")
    assert values == {
        "memory.max": str(64 << 20),
        "memory.high": "50331648",
        "memory.low": str(8 << 20),
        "memory.min": "4194304",
        **({"memory.swap.max": "0"} if "memory.swap.max" in values else {}),
        "cpu.max": "20000 50000",
        "cpu.weight": "1",
        "pids.max": "30",
        "cpuset.cpus": "0",
    }


def test_what_needs_too_much_memory_is_killed_and_that_is_told(said):
    assert "styrolite: the command was killed by signal 9, for want of memory\n== code 137" in said["oom"]


def test_no_more_processes_than_allowed(said):
    assert "fork" in said["pids"] and "never" not in said["pids"]


def test_a_quota_of_time_throttles(said):
    assert int(re.search(r"nr_throttled (\d+)", said["cpu"])[1]) > 0


def test_a_limit_of_a_disk_that_is_not_there_fails_the_start(said):
    assert "io" in re.search(r"^controllers (.*)$", said["io"], flags=re.M)[1].split()
    assert "setting io.max to 254:0 rbps=1048576 wiops=50: No such device\n== code 125" in said["io"]


def test_a_limit_the_kernel_does_not_have_fails_the_start(said):
    assert "failed (cgroup): cgroup bundle-" in said["absent"]
    assert "setting memory.nothing to 1: No such file or directory\n== code 125" in said["absent"]


def test_inside_its_limits_can_be_read_but_not_changed(said):
    assert f"{32 << 20}\n9\n" in said["inside"] and "Read-only file system" in said["inside"]
    assert "0::/\n" in said["inside"]


def test_nothing_is_left_of_the_cgroups(said):
    listed = said["end"].split()
    assert "cgroup.procs" in listed and not [name for name in listed if name.startswith(("limits", "bundle"))]
