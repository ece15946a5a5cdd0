"""What `zone run` says of the workload's container, as docker names it, and the same as keys of a zone spec."""

from __future__ import annotations

import re
from argparse import Namespace
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import LIMIT, Parser, complete

SECURITY = (
    "seccomp=unconfined, seccomp=FILE with a profile (linux.seccomp of an OCI bundle), or no-new-privileges[=false] "
    "(set by default)"
)
CAPABILITY = "beyond the 14 every workload has: NET_ADMIN, …, ALL"
ULIMIT = "NAME=SOFT[:HARD] for its processes, -1 for none: nofile=1024:4096"
SYSCTL = "a setting of the zone's kernel: vm.swappiness=10"
NAMESPACES = {"pid": "processes", "ipc": "IPC", "uts": "host name", "cgroupns": "cgroup tree", "userns": "users"}
OWNERS = ("own", "zone")
DEFAULT_PERIOD_US = 100_000
_SYSCTL_KEY = re.compile(r"[a-z0-9_]+([./][A-Za-z0-9_-]+)+")


class BadOption(RuntimeFault):
    """An option of `zone run` with a value that cannot be."""


def confinement_arguments(parser: Parser) -> None:
    """The options of what a workload may do and use."""
    added = parser.add_argument("--cap-add", action="append", default=[], metavar="CAPABILITY", help=CAPABILITY)
    text = "one it is not to have; ALL: none but those added"
    dropped = parser.add_argument("--cap-drop", action="append", default=[], metavar="CAPABILITY", help=text)
    complete(added, "capabilities")
    complete(dropped, "capabilities")
    security = parser.add_argument("--security-opt", action="append", default=[], metavar="OPTION", help=SECURITY)
    complete(security, "security")
    for name, what in NAMESPACES.items():
        text = f"its {what}: own{' (of which root is nobody outside)' if name == 'userns' else ''} or zone"
        default = "zone" if name == "userns" else "own"
        parser.add_argument(f"--{name}", choices=OWNERS, metavar="WHOSE", help=f"{text} (default: {default})")
    parser.add_argument("--init", action="store_true", help="a reaper as its first process, the command under it")
    parser.add_argument("--pids-limit", type=int, metavar="N", help="processes it may have at once; -1: any number")
    parser.add_argument("--cpu-quota", type=int, metavar="US", help="microseconds of CPU in each period")
    parser.add_argument("--cpu-period", type=int, metavar="US", help=f"of --cpu-quota (default: {DEFAULT_PERIOD_US})")
    parser.add_argument("--cpuset-cpus", metavar="CPUS", help="vCPUs it may run on: 0-1,3")
    limit = parser.add_argument("--limit", action="append", default=[], metavar="KEY=VALUE", help=LIMIT)
    complete(limit, "limits")
    ulimit = parser.add_argument("--ulimit", action="append", default=[], metavar="LIMIT", help=ULIMIT)
    complete(ulimit, "rlimits")
    parser.add_argument("--sysctl", action="append", default=[], metavar="KEY=VALUE", help=SYSCTL)


def confinement_document(arguments: Namespace) -> dict[str, Any]:
    """The keys of a zone spec that say it. Raises BadOption, BadSpec."""
    from pipeline.bundle.limits import parse_ulimit

    rlimits = dict(parse_ulimit(text, subject="--ulimit") for text in arguments.ulimit)
    return {
        "security": _security(arguments),
        "limits": _limits(arguments),
        "rlimits": {name: list(pair) for name, pair in rlimits.items()},
        "init": arguments.init,
        "kernel_options": {"sysctls": dict(_sysctl(text) for text in arguments.sysctl)},
    }


def _security(arguments: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    given: Any
    for option in arguments.security_opt:
        key, equals, value = option.partition("=")
        if key == "no-new-privileges" and (value in ("true", "false") or not equals):
            key, given = "no_new_privs", value != "false"
        elif key == "seccomp" and value:
            given = value
        elif key == "refuse" and value:
            given = value.split(",")
        else:
            expected = "seccomp=unconfined, seccomp=FILE, no-new-privileges[=true|false] or refuse=exec,cp"
            raise BadOption(f"--security-opt {option!r}", expected=expected, got="another")
        if key in found:
            raise BadOption("--security-opt", expected=f"{option.partition('=')[0]} once", got=f"{option} again")
        found[key] = given
    whose = {name.removesuffix("ns"): getattr(arguments, name) for name in NAMESPACES}
    return found | {
        "capabilities": {"add": arguments.cap_add, "drop": arguments.cap_drop},
        "namespaces": {name: value for name, value in whose.items() if value is not None},
    }


def _limits(arguments: Namespace) -> dict[str, str]:
    from pipeline.bundle.limits import split_assignment

    if arguments.cpu_period is not None and arguments.cpu_quota is None:
        raise BadOption("--cpu-period", expected="--cpu-quota beside it", got="none")
    short = {
        "--pids-limit": ("pids.max", arguments.pids_limit),
        "--cpu-quota": ("cpu.max", arguments.cpu_quota),
        "--cpuset-cpus": ("cpuset.cpus", arguments.cpuset_cpus),
    }
    found = {file: str(value) for file, value in short.values() if value is not None}
    if arguments.pids_limit == -1:
        found["pids.max"] = "max"
    if arguments.cpu_quota is not None:
        period_us = DEFAULT_PERIOD_US if arguments.cpu_period is None else arguments.cpu_period
        found["cpu.max"] = f"{arguments.cpu_quota} {period_us}"
    for text in arguments.limit:
        file, value = split_assignment(text, subject="--limit")
        if file in found:
            raise BadOption("--limit", expected=f"{file} once", got=f"{text} again")
        found[file] = value
    return found


def _sysctl(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not _SYSCTL_KEY.fullmatch(key) or not equals or not re.fullmatch(r"[\x20-\x7e]{1,256}", value):
        raise BadOption(f"--sysctl {text!r}", expected="KEY=VALUE such as vm.swappiness=10", got="another")
    return key, value
