"""Disks of a running domain: given to it, and taken back.

    plug    both halves' nodes in one transaction; blkback and the guest's blkfront then connect by themselves
    unplug  back end: online 0, state 5 (closing); the guest closes, blkback follows to 6 and leaves; nodes removed

What the guest writes (its half's state) is not looked at: blkback's state, which only this host writes, says both.
Ledger:  "vbd" before a disk is given, "vbd.gone" after it is taken back.
Source:  xen/include/public/io/blkif.h, xenbus.h; drivers/block/xen-blkback/xenbus.c of Linux.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from runtime.boot import plugging, teardown, vbd
from runtime.boot.errors import BadSpec, DeviceFault, DomainGone
from runtime.boot.model import Disk, Domid
from runtime.boot.nodes import (
    UUID_NODE,
    XenbusState,
    backend_path,
    backend_root,
    domain_path,
    error_path,
    frontend_path,
)

if TYPE_CHECKING:
    from runtime.boot.domain import Domain
    from runtime.boot.xenstore import Transaction, XenStore

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.5  # a watch is a hint
_FIRST_PAUSE_S = 0.01
TIMEOUT_S = 30.0


def free_vdev(used: Collection[str]) -> str:
    """The first name that no disk has. Raises BadSpec where all sixteen are taken."""
    name = next((name for name in vbd.NAMES if name not in used), None)
    if name is None:
        raise BadSpec("disks", expected=f"at most {len(vbd.NAMES)}", got="one more")
    return name


def disks_of(xenstore: XenStore, domid: Domid, *, backend_domid: int = 0) -> dict[str, str]:
    """The disks a domain has now: name there to device here."""
    found = {}
    root = backend_root(backend_domid, domid, "vbd")
    for number in xenstore.children(root):
        name = xenstore.read(f"{root}/{number}/dev")
        if name is not None:
            found[name] = xenstore.read(f"{root}/{number}/physical-device-path") or ""
    return found


def plug_disk(domain: Domain, disk: Disk, record: Callable[..., None], *, timeout_s: float = TIMEOUT_S) -> None:
    """Give a running domain a disk; returns when both halves are connected. The domain's own records grow with it.

    Raises:  BadSpec for a name that is taken or a 17th disk; DomainGone; DeviceFault where the guest does not take it,
             which leaves nothing of it.
    """
    number = vbd.virtual_device(disk.vdev)
    device_number = vbd.device_number(disk.device)
    nodes = vbd.plan_vbd(disk, domain.domid, device_number=device_number, backend_domid=domain.backend_domid)
    path = backend_path(domain.backend_domid, domain.domid, "vbd", number)
    fields: dict[str, Any] = {"domid": domain.domid, "uuid": domain.uuid, "vdev": disk.vdev, "device": disk.device}
    taken = BadSpec(f"zone {domain.name}, disk {disk.vdev}", expected="a free name", got="it has such a disk")
    record("vbd", **fields)
    try:
        # A disk that was taken by force may have left words, which would be read as this one's.
        plugging.write(domain, nodes, path, taken, stale=[os.path.dirname(_error_path(domain, number))])
        _wait_state(domain, disk.vdev, number, XenbusState.CONNECTED, timeout_s)
    except plugging.Refused as refusal:
        record("vbd.gone", **fields)
        raise refusal.fault from None
    except BaseException:
        _remove(domain, number)
        _wait_backend_gone(domain, disk.vdev, number, timeout_s)
        record("vbd.gone", **fields)
        raise


def unplug_disk(
    domain: Domain, vdev: str, record: Callable[..., None], *, timeout_s: float = TIMEOUT_S, force: bool = False
) -> None:
    """Take a disk back; returns when this host's kernel has let go of the device. One that is not there is fine.

    force:   take it even where the guest does not give it back in time.
    Raises:  DeviceFault (temporary) where the guest holds on to it; the disk then stays as it is, and is being closed.
    """
    number = vbd.virtual_device(vdev)
    device = _close(domain, backend_path(domain.backend_domid, domain.domid, "vbd", number))
    if device is None:
        return
    if not device:  # who took it back before may not have seen the kernel let go
        _wait_backend_gone(domain, vdev, number, timeout_s)
        return
    try:
        _wait_state(domain, vdev, number, XenbusState.CLOSED, timeout_s)
    except (DeviceFault, DomainGone) as fault:
        if not force:
            raise
        log.warning("%s; taking it all the same", fault)
    _remove(domain, number)
    _wait_backend_gone(domain, vdev, number, timeout_s)
    record("vbd.gone", domid=domain.domid, uuid=domain.uuid, vdev=vdev, device=device)


def _close(domain: Domain, path: str) -> str | None:
    """Begin to take a disk back; its device here, "" where there is none, None where its domid is not its any more."""

    def close(transaction: Transaction) -> str | None:
        if transaction.read(f"{domain_path(domain.domid)}/{UUID_NODE}") != domain.uuid:
            return None
        device = transaction.read(f"{path}/physical-device-path")
        if device is None:
            return ""
        transaction.write(f"{path}/online", "0")
        transaction.write(f"{path}/state", str(XenbusState.CLOSING.value))
        return device

    return domain.xenstore.transaction(close)


def _wait_state(domain: Domain, vdev: str, number: int, wanted: XenbusState, timeout_s: float) -> None:
    path = backend_path(domain.backend_domid, domain.domid, "vbd", number)
    subject = f"zone {domain.name}, disk {vdev}"
    deadline = time.monotonic() + timeout_s
    with domain.xenstore.watch(f"{path}/state") as news:
        while True:
            found = domain.xenstore.read(f"{path}/state")
            if found == str(wanted.value) or (found is None and wanted is XenbusState.CLOSED):
                return
            problem = domain.xenstore.read(_error_path(domain, number))
            if problem and wanted is XenbusState.CONNECTED:
                raise DeviceFault(subject, expected="it connected", got=problem)
            if domain.shutdown_state() is not None:
                raise plugging.ended(domain)
            if time.monotonic() > deadline:
                raise DeviceFault(subject, expected=_WANTED[wanted], got=_state_text(found), temporary=True)
            news.wait(min(_LOOK_AGAIN_S, timeout_s))


_WANTED = {
    XenbusState.CONNECTED: "the zone to take it",
    XenbusState.CLOSED: "the zone to give it back",
}


def _state_text(found: str | None) -> str:
    known = {str(state.value): state.name.lower() for state in XenbusState}
    return f"its back end is still {known.get(found or '', 'without a state')}"


def _remove(domain: Domain, number: int) -> None:
    """Both halves' nodes, and what the kernel said of them; but not those of another domain that got this domid."""
    place = ("vbd", number)
    backend, frontend = backend_path(domain.backend_domid, domain.domid, *place), frontend_path(domain.domid, *place)
    plugging.remove(domain, backend, frontend, os.path.dirname(_error_path(domain, number)))


def _wait_backend_gone(domain: Domain, vdev: str, number: int, timeout_s: float) -> None:
    """blkback lets go of the device after its nodes are gone, which its probe may write again (see `teardown`)."""
    deadline, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    name = f"vbd-{domain.domid}-{number}"
    while not domain.backend_domid and name in teardown.backends(domain.domid):
        if time.monotonic() > deadline:
            got = f"its back end {name} stays"
            raise DeviceFault(f"zone {domain.name}, disk {vdev}", expected="it let go", got=got, temporary=True)
        time.sleep(pause)  # sysfs tells of no change
        pause = min(pause * 2, _LOOK_AGAIN_S)
        _remove(domain, number)


def _error_path(domain: Domain, number: int) -> str:
    return error_path(domain.backend_domid, domain.domid, "vbd", number)
