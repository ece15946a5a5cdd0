"""The zone spec: zones/NAME.toml, checked and with its defaults filled in."""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.bundle.bandwidth import parse_bandwidth
from pipeline.bundle.dns import parse_dns
from pipeline.bundle.egress import BadRule, parse_rule
from pipeline.bundle.errors import BadSpec
from pipeline.bundle.health import parse_health
from pipeline.bundle.model import (
    ENGINES,
    Confinement,
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
from pipeline.bundle.ports import check_ports, parse_ports
from pipeline.bundle.scratch import parse_scratch
from pipeline.bundle.security import parse_confinement, parse_seccomp
from pipeline.bundle.volumes import check_disks, modules_of, parse_volume
from pipeline.errors import PipelineError
from pipeline.recipe import PROJECT, UnknownName, load

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
    scratch: str = ""
    scratch_mib: int = 0
    modules: tuple[ModuleWish, ...] = ()
    verbose: bool = False
    cmdline_append: str = ""
    sysctls: dict[str, str] = field(default_factory=dict)
    stop_signal: int | None = None
    stop_timeout_s: int | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    restart: RestartPolicy = RestartPolicy()
    stdin_open: bool = False
    tty: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    seccomp: Seccomp = Seccomp()
    health: HealthWish | None = None
    confinement: Confinement | None = None


def load_spec(name: str, directory: Path = ZONES) -> ZoneSpec:
    """Read and check the spec of a zone.

    Raises:  UnknownName with near names; BadRecipe or BadSpec naming file, key, expected and got.
    """
    if not NAME.fullmatch(name):
        raise BadSpec(f"zone {name!r}", expected="a name of letters, digits, - and _, at most 63", got="another")
    document = load(directory, name, kind="zone", schema=ZONES / "zone.schema.json")
    return parse_spec(name, document, subject=str(directory / f"{name}.toml"))


def load_zones(
    names: Iterable[str], parse: Callable[[str], object], directory: Path = ZONES
) -> tuple[dict[str, ZoneSpec], dict[str, PipelineError]]:
    """The specs of zones, and why some have none: what one file says, or names and is not there, is no other's trouble.

    parse:   reads an image reference, as in `check_references`.
    Raises:  UnknownName.
    """
    good, refused = {}, {}
    for name in names:
        try:
            spec = load_spec(name, directory)
            check_references(spec, parse, directory)
            good[name] = spec
        except UnknownName:
            raise
        except PipelineError as error:
            refused[name] = error
    return good, refused


def parse_spec(name: str, document: dict[str, Any], *, subject: str) -> ZoneSpec:
    """Turn a document that fits the schema into a ZoneSpec; checks what a schema cannot say."""
    resources, network, dns, root = (document.get(key, {}) for key in ("resources", "network", "dns", "root"))
    kernel_options, stop, security = (document.get(key, {}) for key in ("kernel_options", "stop", "security"))
    ports = _ports(document.get("ports", []), subject=f"{subject}: key ports")
    scratch, scratch_mib = _scratch(root, subject=f"{subject}: key root.scratch")
    volumes = _volumes(document.get("volumes", []), subject=f"{subject}: key volumes")
    modules = _modules(kernel_options.get("modules", []), subject=f"{subject}: key kernel_options.modules")
    named = {wish.name for wish in modules}
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
        network=_network(network, dns, subject),
        readonly_root=root.get("readonly", False),
        overlay_size_mib=root.get("overlay_size_mib", 0),
        scratch=scratch,
        scratch_mib=scratch_mib,
        modules=(*modules, *(wish for wish in modules_of(volumes) if wish.name not in named)),
        verbose=kernel_options.get("verbose", False),
        cmdline_append=kernel_options.get("cmdline_append", ""),
        sysctls={key: str(value) for key, value in kernel_options.get("sysctls", {}).items()},
        stop_signal=signal_number(stop["signal"], subject=f"{subject}: key stop.signal") if "signal" in stop else None,
        stop_timeout_s=stop.get("timeout_s"),
        annotations=document.get("annotations", {}),
        restart=parse_restart(document.get("restart", "no"), subject=f"{subject}: key restart"),
        stdin_open=document.get("stdin_open", False),
        tty=document.get("tty", False),
        labels=document.get("labels", {}),
        volumes=volumes,
        seccomp=_seccomp(security, subject=f"{subject}: key security.seccomp"),
        health=parse_health(document.get("healthcheck")),
        confinement=parse_confinement(document, subject=subject),
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


def _ports(items: list[str], *, subject: str) -> tuple[Port, ...]:
    """Each as `-p` has it, each port of the host once."""
    found = tuple(port for text in items for port in parse_ports(text, subject=subject))
    check_ports(found, subject=subject)
    return found


def _own_address(text: str, subject: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise BadSpec(subject, expected="an IPv4 or IPv6 address", got=repr(text)[:120]) from None


def _network(network: dict[str, Any], dns: dict[str, list[str]], subject: str) -> Network:
    if network.get("isolated") and not network.get("name"):
        raise BadSpec(f"{subject}: key network.isolated", expected="network.name beside it", got="a private network")
    engine = network.get("engine", "")
    if engine not in ("", *ENGINES):
        raise BadSpec(f"{subject}: key network.engine", expected=" or ".join(ENGINES), got=repr(engine)[:80])
    if engine == "pasta" and network.get("name"):
        expected = "engine splice beside network.name: pasta is for a private network"
        raise BadSpec(f"{subject}: key network.engine", expected=expected, got="pasta")
    keys = ("nameservers", "search", "options")
    resolver = parse_dns(
        *(dns.get(key, []) for key in keys),
        subjects=(f"{subject}: key dns.nameservers", f"{subject}: key dns.search", f"{subject}: key dns.options"),
    )
    return Network(
        mtu=network.get("mtu", 1500),
        nameservers=resolver.nameservers,
        search=resolver.search,
        options=resolver.options,
        egress=parse_egress(network.get("egress", []), subject=f"{subject}: key network.egress"),
        bandwidth_bit_s=(
            parse_bandwidth(network["bandwidth"], subject=f"{subject}: key network.bandwidth")
            if "bandwidth" in network
            else 0
        ),
        name=network.get("name", ""),
        isolated=network.get("isolated", False),
        address=_own_address(network.get("address", ""), f"{subject}: key network.address"),
        engine=engine,
    )


def parse_egress(texts: Sequence[str], *, subject: str) -> tuple[str, ...]:
    """Egress rules, each with single blanks. Raises BadSpec."""
    for index, text in enumerate(texts):
        try:
            parse_rule(text)
        except BadRule as error:
            raise BadSpec(f"{subject}[{index}]", expected=error.expected, got=repr(text)[:120]) from None
    return tuple(" ".join(text.split()) for text in texts)


def _seccomp(security: dict[str, str], *, subject: str) -> Seccomp:
    return parse_seccomp(security["seccomp"], subject=subject) if "seccomp" in security else Seccomp()


def _volumes(items: list[Any], *, subject: str) -> tuple[Volume, ...]:
    """Each as `-v` has it, each target once."""
    found = tuple(parse_volume(text, subject=f"{subject}[{index}]") for index, text in enumerate(items))
    _refuse_twice([volume.target for volume in found], "target", subject)
    check_disks(found, subject=subject)
    return found


def _scratch(root: dict[str, Any], *, subject: str) -> tuple[str, int]:
    """A device or the size of a disk, which is what it bounds what is written by."""
    if "scratch" not in root:
        return "", 0
    if "overlay_size_mib" in root:
        raise BadSpec(subject, expected="no root.overlay_size_mib beside it", got="both")
    return parse_scratch(root["scratch"], subject=subject)


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


def signal_number(text: str, *, subject: str) -> int:
    """The number of a signal given as SIGTERM, TERM, 15 or SIGRTMIN+3 (x86-64 Linux numbers)."""
    name = text.upper().removeprefix("SIG")
    if re.fullmatch(r"[0-9]{1,2}", name) and 1 <= int(name) <= 64:
        return int(name)
    if (match := re.fullmatch(r"RTMIN(?:\+([0-9]{1,2}))?", name)) and int(match[1] or 0) <= 30:
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


def _tuple(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)
