"""The xenstore tree of a domain: paths, permissions, nodes.

The first permission names the owner and what every other domain may do; it is always `n` (nothing), never `b`, which
would let any zone of the host write the node. Children take their parent's permissions, so one per directory is enough.
Source:  docs/misc/xenstore-paths.pandoc, docs/misc/xenstore.txt of Xen.
"""

from __future__ import annotations

from enum import Enum

from runtime.boot.model import DomainSpec, Domid, Node

UUID_NODE = "zone/uuid"  # below the domain's path: whose tree this is, as domids are used again
BACKEND_KINDS = ("vbd", "vif")
CONSOLE, SHARE = "console", "9pfs"  # their back ends are ours, and so always in this domain


class XenbusState(Enum):
    """State of a device's half. Source: xen/include/public/io/xenbus.h."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6


def domain_path(domid: int) -> str:
    """The home of a domain."""
    return f"/local/domain/{domid}"


def frontend_path(domid: int, kind: str, number: int) -> str:
    """A device's half in the guest."""
    return f"{domain_path(domid)}/device/{kind}/{number}"


def backend_root(backend_domid: int, domid: int, kind: str) -> str:
    """All back ends of one kind that serve a domain."""
    return f"{domain_path(backend_domid)}/backend/{kind}/{domid}"


def backend_path(backend_domid: int, domid: int, kind: str, number: int) -> str:
    """A device's half in the domain that serves it."""
    return f"{backend_root(backend_domid, domid, kind)}/{number}"


def error_path(backend_domid: int, domid: int, kind: str, number: int) -> str:
    """Where the kernel writes why a back end failed (xenbus_dev_error)."""
    return f"{domain_path(backend_domid)}/error/backend/{kind}/{domid}/{number}/error"


def device_nodes(
    domid: Domid, kind: str, number: int, *, backend: dict[str, str], frontend: dict[str, str], backend_domid: int
) -> list[Node]:
    """Both halves of a device: each owned by its side and readable by the other."""
    sides = (
        (backend_path(backend_domid, domid, kind, number), (f"n{backend_domid}", f"r{domid}"), backend),
        (frontend_path(domid, kind, number), (f"n{domid}", f"r{backend_domid}"), frontend),
    )
    nodes: list[Node] = []
    for path, perms, values in sides:
        nodes.append(Node(path, None, perms))
        nodes.extend(Node(f"{path}/{key}", value) for key, value in values.items())
    return nodes


def availability_nodes(domid: Domid, *, online: int, most: int) -> list[Node]:
    """Which vCPUs a guest is to use. Without them it complains once per vCPU that it cannot read its state."""
    home = domain_path(domid)
    return [Node(f"{home}/cpu/{vcpu}/availability", "online" if vcpu < online else "offline") for vcpu in range(most)]


def plan_domain_nodes(spec: DomainSpec, domid: Domid) -> list[Node]:
    """The domain's own tree, without devices.

    D/zone/state belongs to the guest (its init reports there); D/zone/control is the host's word to it.
    """
    home = domain_path(domid)
    host_owned, guest_owned = ("n0", f"r{domid}"), (f"n{domid}",)
    nodes = [Node(home, None, host_owned)]
    nodes += [
        Node(f"{home}/{key}", value)
        for key, value in (
            ("name", spec.name),
            ("domid", str(domid)),
            ("type", "PV"),
            ("memory/static-max", str(spec.most_memory_mib * 1024)),
            ("memory/target", str(spec.memory_mib * 1024)),
            (UUID_NODE, spec.uuid),
        )
    ]
    nodes += availability_nodes(domid, online=spec.vcpus, most=spec.most_vcpus)
    nodes.append(Node(f"{home}/zone/control", None, host_owned))
    # control/shutdown and the features are how a guest tells what it can be asked for, as under libxl.
    control = ("shutdown", "sysrq", "feature-poweroff", "feature-reboot", "feature-suspend")
    for name in ("device", "data", "drivers", "feature", "attr", "error", *(f"control/{word}" for word in control)):
        nodes.append(Node(f"{home}/{name}", None, guest_owned))
    nodes.append(Node(f"{home}/zone/state", None, guest_owned))
    return nodes


def stale_paths(domid: int, *, backend_domid: int = 0) -> list[str]:
    """Every root a domain of this id has, for removal; the kernel's words on why a back end failed are among them."""
    backends = [backend_root(backend_domid, domid, kind) for kind in BACKEND_KINDS]
    errors = [f"{domain_path(backend_domid)}/error/backend/{kind}/{domid}" for kind in BACKEND_KINDS]
    return [domain_path(domid), *backends, *errors, *(backend_root(0, domid, kind) for kind in (CONSOLE, SHARE))]
