"""OCI bundles as tools write them, run."""

import copy

import pytest
from support import containers
from support.containers import live

from runtime.init.container import bundle

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
SAFE = ["nosuid", "noexec", "nodev"]
# What `runc spec` of runc 1.2 writes.
RUNC_SPEC = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "runc",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*SAFE, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": SAFE},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*SAFE, "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*SAFE, "relatime", "ro"],
        },
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": [
            *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
            *("/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}


def written(script):
    """The container spec of RUNC_SPEC with the root of all tests, for a shell's script."""
    config = copy.deepcopy(RUNC_SPEC)
    config["root"]["path"] = str(containers.root())
    config["process"]["args"] = ["sh", "-c", script]
    return bundle.spec_of(config, "/")


def test_what_runc_writes_runs_unchanged_on_a_terminal():
    script = "readlink /proc/self/fd/0; hostname; ulimit -n; cat /proc/keys; echo x > /x; read x"
    with live(written(script)) as box:
        *said, last = [box.line().strip() for _ in range(4)]
        assert said == ["/dev/pts/0", "runc", "1024"] and last.endswith("Read-only file system")
        assert box.run("readlink /proc/self/fd/0; exit 4", tty=True) == ("/dev/pts/1\r\n", {"code": 4})
        (terminals,) = [line for line in box.run("mount")[0].splitlines() if " on /dev/pts " in line]
        assert "(rw,nosuid,noexec,relatime," in terminals
