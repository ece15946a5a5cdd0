"""Looks at Xen and xenstore. What cannot be seen becomes a sentence in `unseen`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.boot import machine
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Domid
from runtime.boot.nodes import UUID_NODE, domain_path
from runtime.errors import RuntimeFault
from runtime.host.check.model import Device, Found, FoundDomain

if TYPE_CHECKING:
    from runtime.boot.xenstore import XenStore

_BACKENDS = "/local/domain/0/backend"
_ERRORS = "/local/domain/0/error/backend"
_WORDS = 200  # of what the kernel wrote


def look_at_xen(hypervisor: Hypervisor, found: Found) -> None:
    """Domains; event channels of dom0; grants of dying domains. Raises HypervisorFault where Xen does not answer."""
    for info in hypervisor.domains():
        if info.domid:
            found.domains.append(FoundDomain(info.domid, info.uuid, info.dying, info.tot_pages))
    try:
        found.channels.extend(machine.channels(hypervisor, Domid(0)))
    except RuntimeFault as fault:
        found.unseen.append(f"event channels of dom0: {fault}")
    for domain in found.domains:
        if domain.dying:
            try:
                found.grants[domain.domid] = machine.grants(hypervisor, Domid(domain.domid))
            except RuntimeFault as fault:
                found.unseen.append(f"grants of domain {domain.domid}: {fault}")


def look_at_xenstore(xenstore: XenStore, found: Found) -> None:
    """Trees, both halves of devices, the kernel's words on back ends. Raises XenstoreFault."""
    for domid in _numbers(xenstore.children("/local/domain")):
        if not domid:
            continue
        home = domain_path(domid)
        found.homes[domid] = xenstore.read(f"{home}/{UUID_NODE}")
        try:
            _look_at_frontends(xenstore, domid, found)
        except RuntimeFault as fault:
            found.unseen.append(f"front ends of domain {domid}: {fault}")
    for kind in xenstore.children(_BACKENDS):
        for domid in _numbers(xenstore.children(f"{_BACKENDS}/{kind}")):
            for number in _numbers(xenstore.children(f"{_BACKENDS}/{kind}/{domid}")):
                found.backends.add(Device(kind, domid, str(number)))
    for kind in xenstore.children(_ERRORS):
        for domid in _numbers(xenstore.children(f"{_ERRORS}/{kind}")):
            for number in _numbers(xenstore.children(f"{_ERRORS}/{kind}/{domid}")):
                text = xenstore.read(f"{_ERRORS}/{kind}/{domid}/{number}/error") or ""
                if text:
                    found.errors[Device(kind, domid, str(number))] = text[:_WORDS]


def _look_at_frontends(xenstore: XenStore, domid: int, found: Found) -> None:
    """The guest owns these directories: it may make any names in them, and more than xenstored can list."""
    home = f"{domain_path(domid)}/device"
    for kind in xenstore.children(home):
        # Only numbers are devices.
        for number in _numbers(xenstore.children(f"{home}/{kind}")) if kind.isascii() and kind.isalnum() else ():
            found.frontends.add(Device(kind, domid, str(number)))


def _numbers(names: list[str]) -> list[int]:
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 10)
