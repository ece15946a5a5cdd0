"""Xen and xenstore against the ledgers. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.boot import pvconsole
from runtime.boot.abi.hypercall import DOMID_FIRST_RESERVED
from runtime.boot.nodes import CONSOLE, SHARE, backend_path, domain_path, frontend_path
from runtime.boot.vbd import virtual_device
from runtime.boot.vif import HANDLE
from runtime.host.check.expected import Expected, ExpectedDomain
from runtime.host.check.model import Device, Finding, Found

NO_LEDGER = "in no ledger"


def gone(zone: str) -> str:
    """The problem of what a ledger names and the host has not."""
    return f"in the ledger of zone {zone}, but gone"


def remove_zone(zone: str) -> str:
    """The remedy for what only a ledger has left."""
    return f"zone rm -f {zone}"


def compare_ledgers(expected: Expected) -> Iterator[Finding]:
    """Ledgers that name more than could be read."""
    for name, why in sorted(expected.unread.items()):
        yield Finding("ledger", name, f"it cannot be read: {why}")


def compare_domains(expected: Expected, found: Found) -> Iterator[Finding]:
    """Domains in no ledger, dying ones, and those a ledger has that are gone. Other toolstacks' are none of ours."""
    for domain in found.domains:
        what = f"{domain.domid} ({domain.uuid})"
        if domain.dying:
            problem = f"it ended, but {domain.pages} pages of it are still held by somebody"
            yield Finding("domain", what, problem, "end the process or back end that maps them")
        elif domain.uuid not in expected.domains and not _is_foreign(domain.domid, found):
            yield Finding("domain", what, NO_LEDGER, f"xl destroy {domain.domid}")
    alive = {domain.uuid for domain in found.domains}
    for lost in expected.domains.values():
        if lost.uuid not in alive:
            yield Finding("domain", lost.uuid, gone(lost.zone), remove_zone(lost.zone))


def _is_foreign(domid: int, found: Found) -> bool:
    """Does another toolstack own this domain? It has a tree, and not ours."""
    return domid in found.homes and found.homes[domid] is None


def compare_trees(expected: Expected, found: Found) -> Iterator[Finding]:
    """/local/domain/*: trees of domains that are gone, trees of another domain than the one that runs."""
    uuids = {domain.domid: domain.uuid for domain in found.domains}
    for domid, owner in sorted(found.homes.items()):
        path = domain_path(domid)
        if domid not in uuids:
            yield Finding("xenstore", path, "the tree of a domain that is gone", f"xenstore-rm {path}")
        elif owner is not None and owner != uuids[domid]:
            problem = f"it says domain {owner}, Xen says {uuids[domid]}"
            yield Finding("xenstore", path, problem, f"xenstore-rm {path}")
    for domain in _running(expected, found):
        if domain.domid not in found.homes:
            yield Finding("xenstore", domain_path(domain.domid or 0), gone(domain.zone), remove_zone(domain.zone))


def compare_devices(expected: Expected, found: Found) -> Iterator[Finding]:
    """Both halves of every device, and what the kernel has of them."""
    alive = {domain.domid for domain in found.domains}
    for device in sorted(found.backends):
        if device.domid not in alive:
            path = backend_path(0, device.domid, device.kind, int(device.number))
            yield Finding("xenstore", path, "a back end for a domain that is gone", f"xenstore-rm {path}")
    for device, text in sorted(found.errors.items()):
        path = f"/local/domain/0/error/backend/{device.kind}/{device.domid}"
        if device.domid not in alive:
            problem = "what the kernel said about a domain that is gone"
            yield Finding("xenstore", path, problem, f"xenstore-rm {path}")
        elif expected.domain_of(device.domid) is not None:
            yield Finding("xenstore", path, f"the kernel says: {text}")
    for name in sorted(found.kernel):
        kind, domid, _ = name.split("-", 2)
        if int(domid) not in alive:
            yield Finding("device", name, f"the kernel still has the {kind} of a domain that is gone")
    for domain in _running(expected, found):
        yield from _compare_devices_of(domain, found)


def _compare_devices_of(domain: ExpectedDomain, found: Found) -> Iterator[Finding]:
    domid = domain.domid or 0
    wanted = {Device("vbd", domid, str(virtual_device(vdev))): vdev for vdev in domain.disks}
    wanted |= {Device(SHARE, domid, str(number)): "a directory" for number in domain.shares}
    if domain.has_vif:
        wanted[Device("vif", domid, str(HANDLE))] = "its network"
    if domain.has_channel:
        wanted[Device(CONSOLE, domid, str(pvconsole.NUMBER))] = "its agent's channel"
    mine = {device for device in found.backends if device.domid == domid}
    for device in sorted(wanted.keys() - mine):
        path = backend_path(domain.backend_domid, domid, device.kind, int(device.number))
        yield Finding("xenstore", path, gone(domain.zone), remove_zone(domain.zone))
    for device in sorted(mine - wanted.keys()):
        if device.kind in ("vbd", "vif", SHARE, CONSOLE):
            path = backend_path(domain.backend_domid, domid, device.kind, int(device.number))
            yield Finding("xenstore", path, f"a device of zone {domain.zone} {NO_LEDGER}", f"xenstore-rm {path}")
    fronts = {device for device in found.frontends if device.domid == domid}
    for device in sorted(mine - fronts):
        path = frontend_path(domid, device.kind, int(device.number))
        problem = f"zone {domain.zone} has lost its half of a device"
        yield Finding("xenstore", path, problem, remove_zone(domain.zone))


def compare_channels(found: Found) -> Iterator[Finding]:
    """Event channels of dom0 that wait for a domain that is gone: somebody holds them, and will for ever."""
    alive = {0, *(domain.domid for domain in found.domains)}
    for channel in found.channels:
        if channel.remote_domid not in alive and channel.remote_domid < DOMID_FIRST_RESERVED:
            problem = f"it leads to domain {channel.remote_domid}, which is gone"
            yield Finding("event channel", f"{channel.port} of dom0", problem, "end the process that holds it")


def compare_grants(found: Found) -> Iterator[Finding]:
    """Pages of dying domains that are still mapped, with by whom."""
    for domain in found.domains:
        users: dict[int, int] = {}
        for grant in found.grants.get(domain.domid, ()) if domain.dying else ():
            if grant.in_use:
                users[grant.domid] = users.get(grant.domid, 0) + 1
        for user, count in sorted(users.items()):
            problem = f"domain {user} still maps {count} pages of this dying domain"
            yield Finding("grant", f"{domain.domid} ({domain.uuid})", problem, "end the process or back end there")


def _running(expected: Expected, found: Found) -> Iterator[ExpectedDomain]:
    """Domains of a ledger, with their domid, that Xen has too."""
    alive = {domain.uuid for domain in found.domains if not domain.dying}
    for domain in expected.domains.values():
        if domain.uuid in alive and domain.domid is not None:
            yield domain
