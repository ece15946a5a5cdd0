"""What the workload's process is: the image config, with what the spec says laid over it."""

from __future__ import annotations

import posixpath
from typing import Any

from pipeline.bundle.accounts import resolve_user
from pipeline.bundle.errors import BadImageConfig
from pipeline.bundle.model import Process
from pipeline.bundle.spec import ZoneSpec, signal_number

STOP_TIMEOUT_S = 10
_MOST_STOP_TIMEOUT_S = 3600  # as stop.timeout_s of zones/zone.schema.json
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def resolve_process(spec: ZoneSpec, config: dict[str, Any], *, passwd: bytes, group: bytes) -> Process:
    """Lay the spec over the image's config.

    Semantics: `command` replaces Entrypoint and drops Cmd; `args` replaces Cmd; `env` wins over Env; PATH and HOME
               have a value in any case.
    Raises:    BadImageConfig, NoSuchUser, BadSpec.
    Source:    OCI image specification, config.md.
    """
    subject = image_of(spec)
    image = inner(config, subject)
    entrypoint = spec.command if spec.command is not None else _strings(image, "Entrypoint", subject)
    default_args = () if spec.command is not None else _strings(image, "Cmd", subject)
    argv = (*entrypoint, *(spec.args if spec.args is not None else default_args))
    if not argv:
        raise BadImageConfig(
            subject, expected="an Entrypoint or Cmd", got="neither", hint="give the zone a `command` in its spec"
        )
    account = resolve_user(
        spec.user if spec.user is not None else _string(image, "User", subject),
        passwd=passwd,
        group=group,
        subject=subject,
    )
    environment = dict(_split_env(text, subject) for text in _strings(image, "Env", subject)) | spec.env
    environment.setdefault("PATH", DEFAULT_PATH)
    environment.setdefault("HOME", account.home or "/")
    environment.setdefault("HOSTNAME", spec.hostname)
    if spec.tty:
        environment.setdefault("TERM", "xterm")
    for text in (*argv, *environment, *environment.values()):
        if "\0" in text:
            raise BadImageConfig(subject, expected="arguments and environment without NUL", got=repr(text)[:80])
    signal_text = _string(image, "StopSignal", subject)
    stop_signal = spec.stop_signal or (
        signal_number(signal_text, subject=f"{subject}: StopSignal") if signal_text else 15
    )
    return Process(
        argv=argv,
        env=tuple(f"{key}={value}" for key, value in environment.items()),
        cwd=_workdir(spec.workdir or _string(image, "WorkingDir", subject) or "/", subject),
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        tty=spec.tty,
        stop_signal=stop_signal,
        stop_timeout_s=_stop_timeout_s(image, subject) if spec.stop_timeout_s is None else spec.stop_timeout_s,
    )


def _stop_timeout_s(image: dict[str, Any], subject: str) -> int:
    """Docker's StopTimeout, which a committed container's image has."""
    value = image.get("StopTimeout")
    if value is None:
        return STOP_TIMEOUT_S
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_STOP_TIMEOUT_S:
        raise BadImageConfig(
            subject,
            expected=f"0 to {_MOST_STOP_TIMEOUT_S} seconds as StopTimeout",
            got=repr(value)[:120],
            hint="give the zone a `stop.timeout_s` in its spec",
        )
    return value


def image_of(spec: ZoneSpec) -> str:
    """What a sentence about the image of a zone begins with."""
    return f"image {spec.image} of zone {spec.name}"


def inner(config: dict[str, Any], subject: str) -> dict[str, Any]:
    """The part of an image's config that says how to run it. Raises BadImageConfig."""
    found = config.get("config") or {}
    if not isinstance(found, dict):
        raise BadImageConfig(subject, expected="an object under config", got=type(found).__name__)
    return found


def _workdir(path: str, subject: str) -> str:
    path = path if path.startswith("/") else f"/{path}"
    # A directory below /proc could lead out of the root through a file descriptor (CVE-2024-21626).
    if posixpath.normpath(path).lstrip("/").split("/")[0] == "proc" or "\0" in path:
        raise BadImageConfig(subject, expected="a WorkingDir outside /proc", got=repr(path)[:120])
    return path


def _strings(config: dict[str, Any], key: str, subject: str) -> tuple[str, ...]:
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadImageConfig(subject, expected=f"a list of strings as {key}", got=repr(value)[:120])
    return tuple(value)


def _string(config: dict[str, Any], key: str, subject: str) -> str:
    value = config.get(key) or ""
    if not isinstance(value, str):
        raise BadImageConfig(subject, expected=f"a string as {key}", got=repr(value)[:120])
    return value


def _split_env(text: str, subject: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise BadImageConfig(subject, expected="Env entries KEY=VALUE", got=repr(text)[:120])
    return key, value
