"""Configs of containers with every key that is taken, and what becomes of them when a value is another."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

NAMESPACES = ("user", "mount", "pid", "time", "uts", "network", "cgroup", "ipc")
FULL_BUNDLE: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 0, "gid": 0, "umask": 63, "additionalGids": [0]},
        "args": ["sh"],
        "env": ["PATH=/bin"],
        "cwd": "/tmp",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "web",
    "domainname": "example.org",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/x", "type": "bind", "source": "/s", "options": ["rbind", "ro"]},
        {"destination": "/x", "type": "none", "source": "none", "options": ["bind", "remount", "nosuid"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in NAMESPACES],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "timeOffsets": {"boottime": {"secs": 5, "nanosecs": 0}},
        "devices": [
            {"path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 0, "gid": 0}
        ],
        "resources": {
            "memory": {"limit": 1 << 30, "swap": 3 << 29, "reservation": 1 << 20, "useHierarchy": True},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 64},
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
            "unified": {"memory.high": "max"},
            "devices": [{"allow": False, "access": "rwm"}],
        },
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}
_NSID = {"base_nsid": 0, "base_hostid": 1000, "remap_count": 1}
FULL_CREATE: dict[str, Any] = {
    "kind": "Create",
    "workload_id": "w",
    "rootfs": "/r",
    "rootfs_readonly": True,
    "exec": {
        "executable": "/bin/sh",
        "arguments": ["-c", "true"],
        "working_directory": "/tmp",
        "environment": {"A": "1"},
        "uid": 0,
        "gid": 0,
        "supplemental_gids": [7],
        "process_limits": {"open_files": 64},
        "no_new_privs": True,
        "oom_score_adj": 1,
        "seccomp": {"instructions": [[6, 0, 0, 0x7FFF0000]]},
    },
    "uid_mappings": [_NSID],
    "gid_mappings": [_NSID],
    "mounts": [
        {
            "source": "/src",
            "target": "dst",
            "fstype": "none",
            "bind": True,
            "recurse": True,
            "unshare": True,
            "safe": True,
            "create_mountpoint": True,
            "read_only": True,
            "data": None,
        }
    ],
    "masked_paths": ["/a"],
    "readonly_paths": ["/b"],
    "limits": {"memory.max": "256M"},
    "cgroupfs": "/sys/fs/cgroup",
    "hostname": "h",
    "mutations": [{"kind": "CreateDir", "target": "/made"}],
    "namespaces": ["Mount", "Uts", "User", "Time"],
    "setgroups_deny": False,
    "capabilities": {"raise": ["CAP_CHOWN"], "raise_ambient": ["CAP_KILL"], "drop": ["ALL"]},
    "skip_two_stage_userns": False,
}
_ATTACHED = ("exec", "workload_id", "cgroupfs", "namespaces", "capabilities")
FULL_ATTACH: dict[str, Any] = {"kind": "Attach", "pid": 7} | {key: FULL_CREATE[key] for key in _ATTACHED}
_OTHERS = (None, True, False, 0, -1, 1 << 70, 1.5, "", "x", "a\0b", [], [1], [None], [[]], {}, {"a": 1})


def changed(config: dict[str, Any], others: Iterable[Any] = _OTHERS) -> Iterator[tuple[str, dict[str, Any]]]:
    """The config with one value, however deep, in turn replaced by each of some of every type; and which it was."""
    for path in _paths(config):
        for other in others:
            found = inner = copy.deepcopy(config)
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = copy.deepcopy(other)
            yield f"{'.'.join(map(str, path))} = {other!r}", found


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from _paths(inner, (*above, key))
