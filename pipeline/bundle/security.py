"""What a spec says of the workload's rights and bounds: system calls, capabilities, namespaces, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.bundle.capabilities import parse_capabilities
from pipeline.bundle.errors import BadSpec
from pipeline.bundle.limits import parse_limits, parse_rlimits
from pipeline.bundle.model import Confinement, Seccomp
from pipeline.seccomp import filters

UNCONFINED = "unconfined"
OWN, ZONE = "own", "zone"
# A user namespace's root is this user of the zone, who owns nothing there.
STRICT_MAP = [[0, 65536, 65536]]
MAX_ID = (1 << 32) - 2  # (uid_t)-1 is no id: user_namespaces(7)
_PROFILE_LIMIT_BYTES = 1 << 20


def parse_confinement(document: dict[str, Any], *, subject: str) -> Confinement | None:
    """What a document that fits the schema says of its workload's container; None where that is nothing.

    Raises:  BadSpec naming the key.
    """
    security = document.get("security", {})
    given = security.get("capabilities", {})
    keys = ("add", "drop", "ambient")
    add, drop, ambient = (f"{subject}: key security.capabilities.{key}" for key in keys)
    found = Confinement(
        capabilities=parse_capabilities(*(given.get(key, []) for key in keys), subjects=(add, drop, ambient)),
        no_new_privs=security.get("no_new_privs"),
        namespaces=_namespaces(security.get("namespaces", {}), f"{subject}: key security.namespaces"),
        limits=parse_limits(document.get("limits", {}), subject=f"{subject}: key limits"),
        rlimits=parse_rlimits(document.get("rlimits", {}), subject=f"{subject}: key rlimits"),
        init=document.get("init", False),
        refuse=tuple(sorted(security.get("refuse", ()))) or None,
    )
    if found.init and found.namespaces.get("pid") == ZONE:
        raise BadSpec(f"{subject}: key init", expected="security.namespaces.pid own beside it", got="that of the zone")
    if found.namespaces.get("net") == OWN and document.get("ports"):
        expected = "no ports beside an own one, in which the zone's interface is not"
        raise BadSpec(f"{subject}: key security.namespaces.net", expected=expected, got="both")
    return found if found != Confinement() else None


def _namespaces(given: dict[str, Any], subject: str) -> dict[str, Any]:
    found = dict(given)
    if (user := found.get("user")) == OWN:
        found["user"] = {"uid_maps": STRICT_MAP, "gid_maps": STRICT_MAP}
    elif isinstance(user, dict):
        for key in ("uid_maps", "gid_maps"):
            for index, (inside, outside, count) in enumerate(user[key]):
                if not count or max(inside, outside) + count - 1 > MAX_ID:
                    expected, got = f"a count from 1 on, and ids up to {MAX_ID}", f"{[inside, outside, count]}"
                    raise BadSpec(f"{subject}.user.{key}[{index}]", expected=expected, got=got)
    return found


def parse_seccomp(text: str, *, subject: str) -> Seccomp:
    """`unconfined`, or a file with a profile: the `linux.seccomp` of the OCI runtime specification, as JSON.

    Raises:  BadSpec; for a profile no filter can be made of, too, so that nothing is built for a zone that cannot run.
    """
    if text == UNCONFINED:
        return Seccomp(unconfined=True)
    profile = _read(text, subject)
    try:
        filters.compile(profile)
        filters.flags(profile)
    except filters.BadProfile as error:
        raise BadSpec(f"{subject}: {text}", got=str(error)) from error
    return Seccomp(profile=profile)


def _read(path: str, subject: str) -> dict[str, Any]:
    try:
        with open(Path(path), "rb") as file:
            data = file.read(_PROFILE_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        got = f"{path}: {error.strerror if isinstance(error, OSError) else error}"
        raise BadSpec(subject, expected=f"{UNCONFINED}, or a file with a profile", got=got) from error
    if len(data) > _PROFILE_LIMIT_BYTES:
        raise BadSpec(f"{subject}: {path}", expected=f"at most {_PROFILE_LIMIT_BYTES} bytes", got="more")
    try:
        profile = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSpec(f"{subject}: {path}", expected="a profile as JSON", got=str(error)) from error
    if not isinstance(profile, dict):
        raise BadSpec(f"{subject}: {path}", expected="a profile, an object", got=type(profile).__name__)
    return profile
