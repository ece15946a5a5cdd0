"""Directories of the host, given to a running domain and taken back.

    plug    both halves' nodes in one change; the guest's driver then offers rings, which `runtime.share` serves
    unplug  both halves' nodes removed, once nothing serves its rings any more; the guest's driver lets go by itself

Nothing here waits for the guest. A guest that still has the directory mounted gets no more answers.
Ledger:  "share" {domid, uuid, number, tag} before a directory is given, "share.gone" after it is taken back.
Source:  net/9p/trans_xen.c of Linux (xen_9pfs_front_probe, xen_9pfs_front_remove).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.boot import ninepfs, plugging
from runtime.boot.errors import BadSpec
from runtime.boot.nodes import SHARE, backend_path, frontend_path

if TYPE_CHECKING:
    from runtime.boot.domain import Domain


def plug_share(domain: Domain, tag: str, number: int, record: Callable[..., None]) -> None:
    """Give a running domain one more device.

    Raises:  BadSpec for a number that is taken, DomainGone; there is none then.
    """
    backend, frontend = _paths(domain, number)
    fields: dict[str, Any] = {"domid": domain.domid, "uuid": domain.uuid, "number": number, "tag": tag}
    taken = BadSpec(f"zone {domain.name}, share {number}", expected="a free number", got="it has such a share")
    record("share", **fields)
    try:
        # The guest may have written there what would be read as offered for this one.
        plugging.write(domain, ninepfs.plan_share(tag, number, domain.domid), backend, taken, stale=[frontend])
    except plugging.Refused as refusal:
        record("share.gone", **fields)
        raise refusal.fault from None


def unplug_share(domain: Domain, tag: str, number: int, record: Callable[..., None]) -> None:
    """Take it back: after its process has ended. One that is not there is fine, as is a domain that has ended."""
    plugging.remove(domain, *_paths(domain, number))
    record("share.gone", domid=domain.domid, uuid=domain.uuid, number=number, tag=tag)


def _paths(domain: Domain, number: int) -> tuple[str, str]:
    place = (SHARE, number)
    return backend_path(ninepfs.BACKEND_DOMID, domain.domid, *place), frontend_path(domain.domid, *place)
