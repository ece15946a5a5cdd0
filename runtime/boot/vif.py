"""The network interface of a zone: the xenstore nodes of its two halves.

hotplug-status is not among them: netback holds the guest back until it is written, which `Domain.connect_vif` does
after the interface is wired.
Source:  xen/include/public/io/netif.h; drivers/net/xen-netback/xenbus.c (netback_probe reads "script").
"""

from __future__ import annotations

from runtime.boot.model import Domid, Node, Vif
from runtime.boot.nodes import XenbusState, backend_path, device_nodes, frontend_path

HANDLE = 0


def plan_vif(vif: Vif, domid: Domid, *, backend_domid: int = 0) -> list[Node]:
    """The nodes of a vif."""
    backend = {
        "frontend": frontend_path(domid, "vif", HANDLE),
        "frontend-id": str(domid),
        "online": "1",
        "mac": vif.mac,
        "handle": str(HANDLE),
        "type": "vif",
        # Nothing runs it, but without the node netback's probe fails ("2 reading script").
        "script": "/bin/true",
        "state": str(XenbusState.INITIALISING.value),
    }
    frontend = {
        "backend": backend_path(backend_domid, domid, "vif", HANDLE),
        "backend-id": str(backend_domid),
        "mac": vif.mac,
        "handle": str(HANDLE),
        "mtu": str(vif.mtu),
        "state": str(XenbusState.INITIALISING.value),
    }
    return device_nodes(domid, "vif", HANDLE, backend=backend, frontend=frontend, backend_domid=backend_domid)


def interface_name(domid: Domid) -> str:
    """The name Linux's netback gives the host half."""
    return f"vif{domid}.{HANDLE}"
