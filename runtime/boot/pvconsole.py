"""The second console of a zone, hvc1, which carries the agent channel: the xenstore nodes of its two halves.

The first console needs no nodes: the guest learns of it from start_info. Linux takes the number in hvcN from the last
digit of the device's path, and makes ring and event channel itself (xencons_probe in drivers/tty/hvc/hvc_xen.c).
Source:  xen/include/public/io/console.h, docs/misc/console.txt of Xen.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.boot.model import Domid, EvtchnPort, GrantRef, Node
from runtime.boot.nodes import CONSOLE, XenbusState, backend_path, device_nodes, frontend_path

NUMBER = 1
BACKEND_DOMID = 0  # of this domain, whoever serves the disks: the agent's words are for its zoned
MOST_EVTCHN_PORTS = 1 << 17  # xen/include/public/event_channel.h, EVTCHN_FIFO_NR_CHANNELS
MOST_GRANT_REFS = 1 << 32


@dataclass(frozen=True)
class Published:
    """What a front end offers to be served with."""

    reference: GrantRef
    port: EvtchnPort


def plan_console(domid: Domid) -> list[Node]:
    """The nodes of hvc1. `type` says that it is none for xenconsoled, should one run here."""
    backend = {
        "frontend": frontend_path(domid, CONSOLE, NUMBER),
        "frontend-id": str(domid),
        "online": "1",
        "state": str(XenbusState.INIT_WAIT.value),
    }
    frontend = {
        "backend": backend_path(BACKEND_DOMID, domid, CONSOLE, NUMBER),
        "backend-id": str(BACKEND_DOMID),
        "type": "zonewright",
        "state": str(XenbusState.INITIALISING.value),
    }
    return device_nodes(domid, CONSOLE, NUMBER, backend=backend, frontend=frontend, backend_domid=BACKEND_DOMID)


def frontend_state(text: str | None) -> XenbusState:
    """A guest-written state; UNKNOWN for what is none."""
    number = decimal(text, len(XenbusState))
    return XenbusState.UNKNOWN if number is None else XenbusState(number)


def published(reference: str | None, port: str | None) -> Published | None:
    """What the guest wrote as ring-ref and port, or None where that cannot be such."""
    reference_number, port_number = decimal(reference, MOST_GRANT_REFS), decimal(port, MOST_EVTCHN_PORTS)
    if reference_number is None or not port_number:
        return None
    return Published(GrantRef(reference_number), EvtchnPort(port_number))


def decimal(text: str | None, end: int) -> int | None:
    """A decimal number below `end`."""
    if text is None or len(text) > 10 or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number < end else None
