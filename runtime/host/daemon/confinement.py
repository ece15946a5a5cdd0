"""What a container may, unless its spec says otherwise: capabilities, and the seccomp filter that fits them.

Filters are compiled here, on the host: the zone installs what it is given (runtime/init/container).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

from pipeline.bundle.model import Seccomp
from pipeline.seccomp import filters, profile
from runtime.host.daemon.errors import BadRequest

# What containerd gives a container: pkg/oci/spec.go, defaultUnixCaps. The zone's runtime has the same by default.
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
ALL = "ALL"
# What ALL stands for in the zone's runtime: include/uapi/linux/capability.h.
EVERY_CAPABILITY = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)


def expanded(capabilities: Iterable[str], *, dropped: Collection[str] = ()) -> list[str]:
    """Each capability once and by its own name, ALL as what it stands for, without those that are dropped.

    A filter is made for names: with ALL among them it would allow no more than for none.
    """
    names = [name for word in capabilities for name in (EVERY_CAPABILITY if word == ALL else (word,))]
    return [name for name in dict.fromkeys(names) if name not in dropped]


def default_filter(capabilities: Sequence[str] = CAPABILITIES) -> str:
    """The default profile's filter for a container with these in its bounding set, as the zone's runtime takes it."""
    return _compiled(tuple(sorted(expanded(capabilities))))


@lru_cache(maxsize=64)
def _compiled(capabilities: tuple[str, ...]) -> str:
    """Compiled once: nearly all containers have the same capabilities, and so the same filter."""
    return filters.compile(profile.default([f"CAP_{name}" for name in capabilities])).hex()


def process_keys(seccomp: Seccomp, zone: str) -> dict[str, Any]:
    """What the process of the zone's workload gets for it. Raises BadRequest for a profile that is none."""
    if seccomp.unconfined:
        return {}
    if seccomp.profile is None:
        return {"seccomp": default_filter()}
    try:
        found = {"seccomp": filters.compile(seccomp.profile).hex()}
        flags = filters.flags(seccomp.profile)
    except filters.BadProfile as error:
        raise BadRequest(f"bundle of zone {zone}", got=str(error)) from error
    return found | ({"seccomp_flags": flags} if flags else {})
