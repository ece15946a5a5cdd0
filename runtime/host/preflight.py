"""What this machine lacks to boot zones, a sentence each: looked at by zoned when it starts, and by `zone host status`.

`gather` looks, `judge` decides; a machine that lacks much is told all of it at once.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.bundle.model import LEAST_MEMORY_MIB
from runtime import kernelmodules
from runtime.errors import RuntimeFault
from runtime.net.hostpools import FILE, clashes, read_routes
from runtime.net.pool import pools
from runtime.unixconnect import connect

PAGES_PER_MIB = 256
PV_KIND = "xen-3.0-x86_64"
XEN_FLOOR = "4.17"  # older ones get no security updates any more
KERNEL_FLOOR = "5.10"  # loop devices configured in one call (5.8), pidfds; the oldest that is still maintained
DEVICES = {"privcmd": "xen-privcmd", "hypercall": "xen-privcmd", "evtchn": "xen-evtchn", "gntdev": "xen-gntdev"}
MODULES = (*kernelmodules.NEEDED, *kernelmodules.LESS_WITHOUT)
TOOLS = {"ip": "iproute2", "nft": "nftables", "mke2fs": "e2fsprogs"}
LESS_WITHOUT = {"mke2fs": "scratch disks need it"}
_PATIENCE_S = 5.0  # for xenstored, which others may ask just now
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Lack:
    """Something that is missing. fatal: no zone can be booted without it."""

    sentence: str
    fatal: bool = True


@dataclass(frozen=True)
class Facts:
    """What was found.

    capabilities:  of /proc/xen/capabilities; None where there is none.
    devices:       names below /dev/xen.
    xenstored:     "" where it answers, else what was wrong.
    modules:       "loaded", "loadable" or "absent".
    namespaces:    how many user namespaces may be made: a network has one.
    xen:           version; "" where the hypervisor could not be asked, and `problem` says why.
    """

    root: bool = True
    capabilities: str | None = "control_d"
    devices: frozenset[str] = frozenset(DEVICES)
    xenstored: str = ""
    modules: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(MODULES, "loaded"))
    tools: frozenset[str] = frozenset(TOOLS)
    kernel: str = "6.1.0"
    namespaces: int = 1024
    xen: str = "4.17"
    kinds: tuple[str, ...] = (PV_KIND,)
    free_mib: int = 1024
    problem: str = ""
    clashes: tuple[tuple[str, str], ...] = ()  # an address pool, and what of this host's is in it


def preflight(*, xen_floor: str = XEN_FLOOR) -> tuple[Lack, ...]:
    """What this machine lacks; () where zones can be booted."""
    return judge(gather(), xen_floor=xen_floor)


def judge(facts: Facts, *, xen_floor: str = XEN_FLOOR) -> tuple[Lack, ...]:
    """Decide what is missing. Where Xen itself is, the rest would only be consequences of it."""
    if facts.capabilities is None:
        hint = "boot Xen, or mount -t xenfs xenfs /proc/xen where it runs"
        return (_lack("hypervisor", "this machine to run on Xen", "no /proc/xen/capabilities", hint),)
    if "control_d" not in facts.capabilities:
        return (_lack("this machine", "a control domain (dom0)", "a guest of Xen", "run zoned in dom0"),)
    return tuple(_lacks(facts, xen_floor))


def _lacks(facts: Facts, xen_floor: str) -> Iterator[Lack]:
    if not facts.root:
        yield _lack("zoned", "to run as root", "another user", "hypercalls need it")
    for name, module in DEVICES.items():
        if name not in facts.devices:
            yield _lack(f"/dev/xen/{name}", "the device", "none", f"modprobe {module}")
    if facts.xenstored:
        yield _lack("xenstored", "it to answer", facts.xenstored, "systemctl start xenstored")
    for module, state in facts.modules.items():
        if state == "absent":
            less = kernelmodules.LESS_WITHOUT.get(module, "")
            hint = ", ".join(filter(None, (f"kernel {facts.kernel} lacks it", less)))
            yield _lack(f"kernel module {module}", "it in this kernel", "none", hint, fatal=not less)
        elif state == "loadable" and module in kernelmodules.BACK_ENDS:
            yield _lack(f"kernel module {module}", "it loaded", "it is not", f"modprobe {module}")
    for tool, package in TOOLS.items():
        if tool not in facts.tools:
            hint = ", ".join(filter(None, (f"package {package}", LESS_WITHOUT.get(tool))))
            yield _lack(f"program {tool}", f"it in {_PATH}", "none", hint, fatal=tool not in LESS_WITHOUT)
    if _number(facts.kernel) < _number(KERNEL_FLOOR):
        yield _lack("kernel of dom0", f"{KERNEL_FLOOR} or later", facts.kernel)
    if facts.namespaces < 1:
        hint = "sysctl user.max_user_namespaces; a kernel without CONFIG_USER_NS has none"
        yield _lack("user namespaces", "them allowed", "none", hint)
    for pool, got in facts.clashes:
        hint = f"zones do not reach it; name another pool in {FILE}"
        yield _lack(f"address pool {pool}", "no address and no route of this host in it", got, hint, fatal=False)
    if facts.problem:
        yield _lack("hypervisor", "it to answer", facts.problem)
    else:
        yield from _lacks_of_xen(facts, xen_floor)


def _lacks_of_xen(facts: Facts, xen_floor: str) -> Iterator[Lack]:
    if PV_KIND not in facts.kinds:
        got = ", ".join(facts.kinds) or "none"
        yield _lack("hypervisor", f"PV guests ({PV_KIND})", got, "Xen was built or booted without PV")
    if _number(facts.xen) < _number(xen_floor):
        hint = "older ones have known holes that a PV guest can use"
        yield _lack("hypervisor", f"Xen {xen_floor} or later", facts.xen, hint, fatal=False)
    if facts.free_mib < LEAST_MEMORY_MIB:
        got, hint = f"{facts.free_mib} MiB", "stop a zone, or boot Xen with a smaller dom0_mem"
        yield _lack("memory", f"{LEAST_MEMORY_MIB} MiB free in Xen", got, hint, fatal=False)


def _lack(subject: str, expected: str, got: str, hint: str = "", *, fatal: bool = True) -> Lack:
    return Lack(str(RuntimeFault(subject, expected=expected, got=got, hint=hint)), fatal)


def _number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, "6.1.0-56-amd64" as (6, 1)."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def gather() -> Facts:
    """Look at this machine. Raises nothing: what cannot be looked at is missing."""
    release = platform.release()
    xen, kinds, free_mib, problem = _ask_xen()
    return Facts(
        root=os.geteuid() == 0,
        capabilities=_text(Path("/proc/xen/capabilities")),
        devices=frozenset(_names(Path("/dev/xen"))),
        xenstored=_ask_xenstored(),
        modules={module: _module_state(module, Path("/lib/modules", release)) for module in MODULES},
        tools=frozenset(tool for tool in TOOLS if shutil.which(tool, path=_PATH)),
        kernel=release,
        namespaces=int(_text(Path("/proc/sys/user/max_user_namespaces")) or 0),
        xen=xen,
        kinds=kinds,
        free_mib=free_mib,
        problem=problem,
        clashes=tuple(clashes(pools(), read_routes())),
    )


def _ask_xen() -> tuple[str, tuple[str, ...], int, str]:
    from runtime.boot.doors import Hypervisor
    from runtime.boot.privcmd import Privcmd

    try:
        door = Privcmd()
    except RuntimeFault as fault:
        return "", (), 0, str(fault)
    try:
        hypervisor = Hypervisor(door)
        free_mib = hypervisor.free_pages() // PAGES_PER_MIB
        return hypervisor.xen_version(), hypervisor.capabilities(), free_mib, ""
    except RuntimeFault as fault:
        return "", (), 0, str(fault)
    finally:
        door.close()


def _ask_xenstored() -> str:
    from runtime.boot.xenstore import socket_path

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            connect(probe, socket_path(), _PATIENCE_S)
        except OSError as error:
            return f"{socket_path()}: {error.strerror or error}"
    return ""


def _module_state(module: str, tree: Path) -> str:
    if Path("/sys/module", module).exists():
        return "loaded"
    wanted = re.compile(rf"/{module.replace('_', '[-_]')}\.ko")
    if wanted.search(_text(tree / "modules.builtin") or ""):
        return "loaded"
    return "loadable" if wanted.search(_text(tree / "modules.dep") or "") else "absent"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
