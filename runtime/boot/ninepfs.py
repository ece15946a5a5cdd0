"""A directory of the host that a zone mounts by 9p: the xenstore nodes of its device's two halves.

The guest's driver makes the rings when it finds the device, and names them in its half (xen_9pfs_front_init); what is
offered stands in ours from the start. A guest finds the device by its tag.
Source:  xen/include/public/io/9pfs.h, docs/misc/9pfs.pandoc of Xen; net/9p/trans_xen.c of Linux.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtime.boot.model import Domid, EvtchnPort, GrantRef, Node
from runtime.boot.nodes import SHARE, XenbusState, backend_path, device_nodes, frontend_path
from runtime.boot.pvconsole import MOST_EVTCHN_PORTS, MOST_GRANT_REFS, decimal

BACKEND_DOMID = 0  # its back end is ours, and so always in this domain
VERSION = "1"
# Linux takes two, and nothing else.
MOST_RINGS = 2
# Of the data pages of a ring: 2^7, in halves of 256 KiB. Linux asks for messages of half of a half.
MOST_ORDER = 7


@dataclass(frozen=True)
class Offer:
    """What a front end offers as one ring: the grant of its page of indices, and its event channel."""

    reference: GrantRef
    port: EvtchnPort


def plan_share(tag: str, number: int, domid: Domid) -> list[Node]:
    """The nodes of a share. tag: what the guest mounts; number: which of the zone's it is."""
    backend = {
        "frontend": frontend_path(domid, SHARE, number),
        "frontend-id": str(domid),
        "online": "1",
        "versions": VERSION,
        "max-rings": str(MOST_RINGS),
        "max-ring-page-order": str(MOST_ORDER),
        "state": str(XenbusState.INIT_WAIT.value),
    }
    frontend = {
        "backend": backend_path(BACKEND_DOMID, domid, SHARE, number),
        "backend-id": str(BACKEND_DOMID),
        "tag": tag,
        "state": str(XenbusState.INITIALISING.value),
    }
    return device_nodes(domid, SHARE, number, backend=backend, frontend=frontend, backend_domid=BACKEND_DOMID)


def offered(read: Callable[[str], str | None], path: str) -> tuple[Offer, ...] | str:
    """The rings that a front end names, or a sentence where what it wrote can be none. read: gives a node's text."""
    version, count = read(f"{path}/version"), decimal(read(f"{path}/num-rings"), MOST_RINGS + 1)
    if version != VERSION or not count:
        return f"expected version {VERSION} and 1 to {MOST_RINGS} rings, got version {version!r:.20}, {count} rings"
    rings = []
    for number in range(count):
        reference = decimal(read(f"{path}/ring-ref{number}"), MOST_GRANT_REFS)
        port = decimal(read(f"{path}/event-channel-{number}"), MOST_EVTCHN_PORTS)
        if reference is None or not port:
            return f"expected a grant and an event channel for ring {number}, got {reference} and {port}"
        rings.append(Offer(GrantRef(reference), EvtchnPort(port)))
    return tuple(rings)
