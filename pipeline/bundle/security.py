"""What a spec says of the workload's rights: which system calls it may make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Seccomp
from pipeline.seccomp import filters

UNCONFINED = "unconfined"
_PROFILE_LIMIT_BYTES = 1 << 20


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
