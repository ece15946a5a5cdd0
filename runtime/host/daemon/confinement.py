"""What a container may, unless its spec says otherwise: capabilities, and the seccomp filter that fits them.

Filters are compiled here, on the host: the zone installs what it is given (runtime/init/container).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pipeline.bundle.capabilities import ALL as ALL
from pipeline.bundle.capabilities import CAPABILITIES as CAPABILITIES
from pipeline.bundle.capabilities import EVERY_CAPABILITY as EVERY_CAPABILITY
from pipeline.bundle.capabilities import expanded as expanded
from pipeline.bundle.model import Bundle, Capabilities, Confinement, Seccomp
from pipeline.seccomp import filters, profile
from runtime.host.daemon.errors import BadRequest

SETS = ("bounding", "effective", "permitted")
# What an ipc namespace keeps, below kernel/: ipc/ipc_sysctl.c, ipc/mq_sysctl.c. As runtime/init/container/sysctl.py has
# them, which is the zone's, and not on a host.
IPC_SYSCTLS = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "auto_msgmni")

# What a spec refuses, and the agent's methods that it stands for; docs/in-zone.md.
REFUSED = {
    "attach": ("stdin",),
    "cp": ("stat", "copy_in", "copy_out"),
    "dial": ("dial",),
    "exec": ("exec",),
    "network": ("network",),
    "sysctl": ("sysctl",),
    "workloads": ("create",),
}


def default_filter(capabilities: Sequence[str] = CAPABILITIES) -> str:
    """The default profile's filter for a container with these in its bounding set, as the zone's runtime takes it."""
    return _compiled(tuple(sorted(expanded(capabilities))))


@lru_cache(maxsize=64)
def _compiled(capabilities: tuple[str, ...]) -> str:
    """Compiled once: nearly all containers have the same capabilities, and so the same filter."""
    return filters.compile(profile.default([f"CAP_{name}" for name in capabilities])).hex()


def sets(capabilities: Capabilities) -> dict[str, list[str]]:
    """The sets of a process as the zone's runtime takes them; those that are left out are empty."""
    found = {name: list(capabilities.bounding) for name in SETS}
    ambient = list(capabilities.ambient)
    return found | ({"inheritable": ambient, "ambient": ambient} if ambient else {})


def container_keys(bundle: Bundle) -> dict[str, Any]:
    """What the spec of the zone's workload gets for what its bundle says. Raises BadRequest for a profile that is none.

    Shape:   keys of runtime.init.container; those without a value are left out.
    """
    wanted = bundle.confinement or Confinement()
    keys = {
        "process": process_keys(bundle.seccomp, bundle.name, wanted),
        "namespaces": dict(wanted.namespaces),
        "limits": limit_keys(wanted.limits),
        "sysctl": _own_sysctls(bundle.sysctls, wanted.namespaces),
    }
    return {key: value for key, value in keys.items() if value}


def process_keys(seccomp: Seccomp, zone: str, wanted: Confinement | None = None) -> dict[str, Any]:
    """The same for its process."""
    wanted = wanted or Confinement()
    found: dict[str, Any] = {}
    if wanted.capabilities is not None:
        found["capabilities"] = sets(wanted.capabilities)
    if wanted.no_new_privs is not None:
        found["no_new_privileges"] = wanted.no_new_privs
    if wanted.rlimits:
        found["rlimits"] = {name: list(pair) for name, pair in wanted.rlimits.items()}
    if wanted.init:
        found["init"] = True
    bounding = CAPABILITIES if wanted.capabilities is None else wanted.capabilities.bounding
    return found | _filter(seccomp, zone, bounding)


def refused(bundle: Bundle) -> list[str]:
    """The methods that the zone's agent is not to carry out. Raises BadRequest for a word that is none."""
    words = (bundle.confinement.refuse if bundle.confinement else None) or ()
    for word in words:
        if word not in REFUSED:
            subject, expected = f"bundle of zone {bundle.name}, refuse", f"words of {', '.join(REFUSED)}"
            raise BadRequest(subject, expected=expected, got=f"{word!r:.60}")
    return [method for word in words for method in REFUSED[word]]


def limit_keys(limits: dict[str, str]) -> dict[str, Any]:
    """Files of the cgroup by their own names."""
    return {"unified": dict(limits)} if limits else {}


def _own_sysctls(sysctls: dict[str, str], namespaces: dict[str, Any]) -> dict[str, str]:
    """Those of the spec that an ipc namespace keeps, where the workload has its own: it does not see the zone's.

    A net namespace of its own begins as the kernel has it and has no interface; what is said of net is the zone's.
    """
    own = namespaces.get("ipc", "own") == "own"
    paths = {key: key if "/" in key else key.replace(".", "/") for key in sysctls} if own else {}
    kept = {f"kernel/{name}" for name in IPC_SYSCTLS}
    return {key: sysctls[key] for key, path in paths.items() if path in kept or path.startswith("fs/mqueue/")}


def _filter(seccomp: Seccomp, zone: str, bounding: Sequence[str]) -> dict[str, Any]:
    if seccomp.unconfined:
        return {}
    if seccomp.profile is None:
        return {"seccomp": default_filter(bounding)}
    try:
        found = {"seccomp": filters.compile(seccomp.profile).hex()}
        flags = filters.flags(seccomp.profile)
    except filters.BadProfile as error:
        raise BadRequest(f"bundle of zone {zone}", got=str(error)) from error
    return found | ({"seccomp_flags": flags} if flags else {})
