"""The zone spec: zones/NAME.toml, checked and with its defaults filled in."""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.health import parse_health
from pipeline.bundle.model import (
    ExtensionChoice,
    HealthWish,
    ModuleWish,
    Network,
    Port,
    Resources,
    RestartPolicy,
    Seccomp,
    Volume,
)
from pipeline.bundle.security import parse_seccomp
from pipeline.bundle.volumes import check_disks, parse_volume
from pipeline.errors import PipelineError
from pipeline.recipe import PROJECT, load

ZONES = PROJECT / "zones"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
DEFAULT_KERNEL = "recipe:debian-cloud"
DEFAULT_MEMORY_MIB = 256
RESTARTS = ("no", "on-failure", "always", "unless-stopped")


@dataclass(frozen=True)
class ZoneSpec:
    """What the user asked for, before any image has been looked at. None means: as the image says."""

    name: str
    image: str
    kernel: str = DEFAULT_KERNEL
    extensions: tuple[ExtensionChoice, ...] = ()
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    workdir: str | None = None
    hostname: str = ""
    resources: Resources = Resources()
    ports: tuple[Port, ...] = ()
    network: Network = Network()
    readonly_root: bool = False
    overlay_size_mib: int = 0
    modules: tuple[ModuleWish, ...] = ()
    verbose: bool = False
    cmdline_append: str = ""
    stop_signal: int | None = None
    stop_timeout_s: int = 10
    annotations: dict[str, str] = field(default_factory=dict)
    restart: RestartPolicy = RestartPolicy()
    stdin_open: bool = False
    tty: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    seccomp: Seccomp = Seccomp()
    health: HealthWish | None = None


def load_spec(name: str, directory: Path = ZONES) -> ZoneSpec:
    """Read and check the spec of a zone.

    Raises:  UnknownName with near names; BadRecipe or BadSpec naming file, key, expected and got.
    """
    if not NAME.fullmatch(name):
        raise BadSpec(f"zone {name!r}", expected="a name of letters, digits, - and _, at most 63", got="another")
    document = load(directory, name, kind="zone", schema=ZONES / "zone.schema.json")
    return parse_spec(name, document, subject=str(directory / f"{name}.toml"))


def parse_spec(name: str, document: dict[str, Any], *, subject: str) -> ZoneSpec:
    """Turn a document that fits the schema into a ZoneSpec; checks what a schema cannot say."""
    resources, dns, root = (document.get(key, {}) for key in ("resources", "dns", "root"))
    kernel_options, stop, security = (document.get(key, {}) for key in ("kernel_options", "stop", "security"))
    ports = tuple(parse_port(text, subject=f"{subject}: key ports") for text in document.get("ports", []))
    _refuse_double_ports(ports, subject)
    for address in dns.get("nameservers", []):
        _address(address, subject=f"{subject}: key dns.nameservers")
    network = document.get("network", {})
    if network.get("isolated") and not network.get("name"):
        raise BadSpec(f"{subject}: key network.isolated", expected="network.name beside it", got="a private network")
    return ZoneSpec(
        name=name,
        image=document["image"],
        kernel=document.get("kernel", DEFAULT_KERNEL),
        extensions=_extensions(document.get("extensions", []), subject=f"{subject}: key extensions"),
        command=_tuple(document.get("command")),
        args=_tuple(document.get("args")),
        env=document.get("env", {}),
        user=document.get("user"),
        workdir=document.get("workdir"),
        hostname=document.get("hostname", hostname_of(name)),
        resources=parse_resources(resources, subject=f"{subject}: key resources"),
        ports=ports,
        network=Network(
            network.get("mtu", 1500),
            tuple(dns.get("nameservers", [])),
            tuple(dns.get("search", [])),
            network.get("name", ""),
            network.get("isolated", False),
        ),
        readonly_root=root.get("readonly", False),
        overlay_size_mib=root.get("overlay_size_mib", 0),
        modules=_modules(kernel_options.get("modules", []), subject=f"{subject}: key kernel_options.modules"),
        verbose=kernel_options.get("verbose", False),
        cmdline_append=kernel_options.get("cmdline_append", ""),
        stop_signal=signal_number(stop["signal"], subject=f"{subject}: key stop.signal") if "signal" in stop else None,
        stop_timeout_s=stop.get("timeout_s", 10),
        annotations=document.get("annotations", {}),
        restart=parse_restart(document.get("restart", "no"), subject=f"{subject}: key restart"),
        stdin_open=document.get("stdin_open", False),
        tty=document.get("tty", False),
        labels=document.get("labels", {}),
        volumes=_volumes(document.get("volumes", []), subject=f"{subject}: key volumes"),
        seccomp=_seccomp(security, subject=f"{subject}: key security.seccomp"),
        health=parse_health(document.get("healthcheck")),
    )


def check_references(spec: ZoneSpec, parse: Callable[[str], object], directory: Path = ZONES) -> None:
    """Parse every image reference of a spec; the error for a wrong one names the file and the key."""
    references = {"image": spec.image, "kernel": spec.kernel}
    references |= {f"extensions[{index}]": choice.image for index, choice in enumerate(spec.extensions)}
    for key, reference in references.items():
        try:
            parse(reference)
        except PipelineError as error:
            subject = f"{directory / spec.name}.toml: key {key}: {error.subject}"
            raise type(error)(subject, expected=error.expected, got=error.got, hint=error.hint) from None


def parse_resources(given: dict[str, int], *, subject: str) -> Resources:
    """Memory and vCPUs, each with what it may become while the zone runs: as it is, unless a maximum is given."""
    memory_mib, vcpus = given.get("memory_mib", DEFAULT_MEMORY_MIB), given.get("vcpus", 1)
    found = Resources(memory_mib, given.get("memory_max_mib", memory_mib), vcpus, given.get("vcpus_max", vcpus))
    for key, initial, most in (
        ("memory_max_mib", found.memory_mib, found.memory_max_mib),
        ("vcpus_max", found.vcpus, found.vcpus_max),
    ):
        if most < initial:
            raise BadSpec(f"{subject}.{key}", expected=f"at least {initial}, what the zone begins with", got=f"{most}")
    return found


def parse_restart(text: str, *, subject: str) -> RestartPolicy:
    """`no`, `on-failure[:MAX]`, `always` or `unless-stopped`."""
    name, colon, most = text.partition(":")
    if name not in RESTARTS or (colon and (name != "on-failure" or not re.fullmatch("[1-9][0-9]{0,5}", most))):
        raise BadSpec(subject, expected="no, on-failure[:MAX], always or unless-stopped", got=repr(text))
    return RestartPolicy(name, int(most or 0))


def _seccomp(security: dict[str, str], *, subject: str) -> Seccomp:
    return parse_seccomp(security["seccomp"], subject=subject) if "seccomp" in security else Seccomp()


def _volumes(items: list[Any], *, subject: str) -> tuple[Volume, ...]:
    """Each as `-v` has it, each target once."""
    found = tuple(parse_volume(text, subject=f"{subject}[{index}]") for index, text in enumerate(items))
    _refuse_twice([volume.target for volume in found], "target", subject)
    check_disks(found, subject=subject)
    return found


def _extensions(items: list[Any], *, subject: str) -> tuple[ExtensionChoice, ...]:
    """`"REFERENCE"` or `{ image = "REFERENCE", override = true }`, each image once."""
    found = tuple(ExtensionChoice(item) if isinstance(item, str) else ExtensionChoice(**item) for item in items)
    _refuse_twice([choice.image for choice in found], "image", subject)
    return found


def _modules(items: list[Any], *, subject: str) -> tuple[ModuleWish, ...]:
    """`"NAME"` or `{ name = "NAME", parameters = "…" }`, each module once, however its hyphens are written."""
    found = tuple(ModuleWish(item) if isinstance(item, str) else ModuleWish(**item) for item in items)
    wishes = tuple(replace(wish, name=wish.name.replace("-", "_")) for wish in found)
    _refuse_twice([wish.name for wish in wishes], "module", subject)
    return wishes


def _refuse_twice(names: list[str], what: str, subject: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise BadSpec(f"{subject}[{index}]", expected=f"each {what} once", got=f"{name} again")


def parse_port(text: str, *, subject: str) -> Port:
    """A port rule `[ADDRESS:]HOST_PORT:ZONE_PORT[/tcp]`; the address is 127.0.0.1 unless given."""
    match = re.fullmatch(r"(?:(\[[^\]]+\]|[^:\[\]]+):)?(\d+):(\d+)(?:/(tcp))?", text)
    if match is None:
        raise BadSpec(subject, expected='a port rule such as "8080:80"', got=repr(text))
    address = (match[1] or "127.0.0.1").strip("[]")
    _address(address, subject=subject)
    for digits in (match[2], match[3]):
        if not 1 <= int(digits) <= 65535:
            raise BadSpec(subject, expected="ports from 1 to 65535", got=repr(text))
    return Port(address, int(match[2]), int(match[3]), match[4] or "tcp")


def signal_number(text: str, *, subject: str) -> int:
    """The number of a signal given as SIGTERM, TERM, 15 or SIGRTMIN+3 (x86-64 Linux numbers)."""
    name = text.upper().removeprefix("SIG")
    if name.isdigit() and 1 <= int(name) <= 64:
        return int(name)
    if match := re.fullmatch(r"RTMIN(?:\+(\d+))?", name):
        return 34 + int(match[1] or 0)
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise BadSpec(subject, expected="a signal such as SIGTERM", got=repr(text)) from None


def hostname_of(name: str) -> str:
    """A host name made from a zone's name: what may not stand in one becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:63] or "zone"


def _address(text: str, *, subject: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise BadSpec(subject, expected="an IPv4 or IPv6 address", got=repr(text)) from None


def _refuse_double_ports(ports: tuple[Port, ...], subject: str) -> None:
    seen: set[tuple[str, int]] = set()
    for port in ports:
        key = (port.host_address, port.host_port)
        if key in seen:
            raise BadSpec(f"{subject}: key ports", expected="each host port once", got=f"{key[0]}:{key[1]} twice")
        seen.add(key)


def _tuple(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)
