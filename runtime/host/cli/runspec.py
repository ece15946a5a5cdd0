"""The options of `zone run` as a zone spec."""

from __future__ import annotations

import re
import secrets
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.bundle.health import LEAST_S, MOST_RETRIES, MOST_S
from pipeline.bundle.model import ExtensionChoice
from pipeline.bundle.spec import DEFAULT_KERNEL, NAME, ZoneSpec, hostname_of, parse_spec, signal_number
from runtime.host.cli.confined import BadOption as BadOption
from runtime.host.cli.confined import confinement_document
from runtime.host.cli.environment import environment

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def spec_of(arguments: Namespace) -> ZoneSpec:
    """What was asked for. Raises BadOption, BadSpec, BadEnvironment."""
    if arguments.rm and arguments.restart not in (None, "no"):
        raise BadOption("--rm", expected="no --restart beside it", got=arguments.restart)
    name = arguments.name or name_of(arguments.image)
    if not NAME.fullmatch(name):
        raise BadOption(f"--name {name!r}", expected="letters, digits, - and _, at most 63", got="another")
    hostname = arguments.hostname or hostname_of(name)
    if not _HOSTNAME.fullmatch(hostname):
        raise BadOption(f"--hostname {hostname!r}", expected="letters, digits and hyphens, at most 63", got="another")
    document = {
        "image": arguments.image,
        "kernel": arguments.kernel or DEFAULT_KERNEL,
        "hostname": hostname,
        "ports": arguments.publish,
        "volumes": arguments.volume,
        "network": _network(arguments),
        "dns": {"nameservers": arguments.dns, "search": arguments.dns_search, "options": arguments.dns_option},
        "resources": _resources(arguments),
        "restart": arguments.restart or "no",
        "labels": dict(_label(text) for text in arguments.label),
        "env": dict(text.split("=", 1) for text in environment(arguments.env, arguments.env_file)),
        "user": arguments.user,
        "workdir": arguments.workdir,
        "tty": arguments.tty,
        "stdin_open": arguments.interactive,
        "root": {
            "readonly": arguments.read_only,
            **({} if arguments.scratch is None else {"scratch": arguments.scratch}),
        },
        "stop": {} if arguments.stop_timeout is None else {"timeout_s": arguments.stop_timeout},
        "healthcheck": _health(arguments),
        **confinement_document(arguments),
        **_command(arguments),
    }
    spec = parse_spec(name, document, subject="zone run")
    if arguments.workdir is not None and not arguments.workdir.startswith("/"):
        raise BadOption("--workdir", expected="an absolute path", got=repr(arguments.workdir))
    signal = arguments.stop_signal
    return replace(
        spec,
        extensions=tuple(ExtensionChoice(reference) for reference in arguments.extension),
        stop_signal=None if signal is None else signal_number(signal, subject="--stop-signal"),
    )


def _network(arguments: Namespace) -> dict[str, Any]:
    if arguments.isolated and not arguments.network:
        raise BadOption("--isolated", expected="--network NAME beside it", got="none: a private network has one zone")
    given: dict[str, Any] = {"egress": arguments.egress}
    if arguments.bandwidth is not None:
        given["bandwidth"] = arguments.bandwidth
    if arguments.network:
        given |= {"name": arguments.network, "isolated": arguments.isolated}
    if arguments.network_engine:
        given["engine"] = arguments.network_engine
    if arguments.mtu is not None:
        given["mtu"] = arguments.mtu
    if arguments.ip:
        given["address"] = arguments.ip
    return given


def _resources(arguments: Namespace) -> dict[str, int]:
    given = {
        "memory_mib": arguments.memory,
        "memory_max_mib": arguments.memory_max,
        "vcpus": arguments.cpus,
        "vcpus_max": arguments.cpus_max,
    }
    return {key: value for key, value in given.items() if value is not None}


def _command(arguments: Namespace) -> dict[str, list[str]]:
    """As docker: COMMAND replaces Cmd alone, --entrypoint replaces Entrypoint and drops Cmd."""
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if arguments.entrypoint is not None:
        return {"command": [arguments.entrypoint, *argv] if arguments.entrypoint else argv}
    return {"args": argv} if argv else {}


def _health(arguments: Namespace) -> dict[str, Any] | None:
    """None: as the image says."""
    given = {
        "command": arguments.health_cmd,
        "interval_s": arguments.health_interval,
        "timeout_s": arguments.health_timeout,
        "start_period_s": arguments.health_start_period,
        "start_interval_s": arguments.health_start_interval,
        "retries": arguments.health_retries,
    }
    found = {key: value for key, value in given.items() if value is not None}
    if arguments.no_healthcheck and found:
        raise BadOption("--no-healthcheck", expected="no --health option beside it", got="both")
    if arguments.no_healthcheck:
        return {"disable": True}
    for key, value in found.items():
        _check_health(key, value)
    return found or None


def _check_health(key: str, value: Any) -> None:
    option = "--health-" + ("cmd" if key == "command" else key.removesuffix("_s").replace("_", "-"))
    if key == "command":
        if not value or "\0" in value or len(value) > 4096:
            raise BadOption(option, expected="a command of at most 4096 characters", got=repr(value)[:80])
    elif key == "retries":
        if not 1 <= value <= MOST_RETRIES:
            raise BadOption(option, expected=f"1 to {MOST_RETRIES}", got=str(value))
    elif not (0 if key == "start_period_s" else LEAST_S) <= value <= MOST_S:
        raise BadOption(option, expected="a time from 1ms to a year", got=f"{value:g} s")


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key or re.search(r"[\0-\x20]", key):
        raise BadOption(f"--label {text!r}", expected="KEY=VALUE", got="another")
    return key, value


def name_of(image: str) -> str:
    """A name for a zone of an image: the last word of what its reference names, and four digits: `nginx-3fa2`."""
    from pipeline.fetch.reference import ArchiveReference, LayoutReference, RegistryReference, parse

    match parse(image):
        case RegistryReference(repository=repository):
            base = repository.rpartition("/")[2]
        case LayoutReference(directory=directory):
            base = Path(directory).absolute().name
        case ArchiveReference(file=file):
            base = Path(file).stem
        case recipe:
            base = recipe.name
    return f"{hostname_of(base)[:58].rstrip('-')}-{secrets.token_hex(2)}"
