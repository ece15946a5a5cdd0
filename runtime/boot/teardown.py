"""Undoes a boot from its ledger records alone: finished or not, in this process or a later one, once or again.

Records (each is written before what it names is taken; the ledger adds nothing to them that is needed here):
  domain    name, uuid                             a domain of this uuid may exist
  xenstore  domid, uuid, backend_domid, disks,     trees of this domain may exist
            shares
  vbd       domid, uuid, vdev, device              a disk was plugged in since (`hotplug.py`); "vbd.gone": taken back.
                                                   `workload`: whose it is, where it is not the zone's own (as of loop)
  share     domid, uuid, number, tag               a directory likewise (`shareplug.py`); path: which. "share.gone"
  console   domid, uuid, mfn, port, log            its console may be bound (`domain.adopt` binds it again)
  channel   domid, uuid                            its agent channel may be bound, where its nodes say (likewise)
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.boot.doors import Hypervisor
from runtime.boot.errors import TeardownFault
from runtime.boot.model import Domid
from runtime.boot.nodes import UUID_NODE, domain_path, stale_paths

if TYPE_CHECKING:
    from runtime.boot.xenstore import Transaction, XenStore

log = logging.getLogger(__name__)

Record = Mapping[str, Any]
_BACKENDS = Path("/sys/bus/xen-backend/devices")  # of this domain; named KIND-DOMID-NUMBER
_INTERFACES = Path("/sys/class/net")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2


def teardown(records: Iterable[Record], hypervisor: Hypervisor, xenstore: XenStore, *, timeout_s: float = 30.0) -> None:
    """Destroy the domains and remove the trees the records name; wait until Xen and the back ends have let them go.

    Raises:  TeardownFault where a domain is still dying, or a back end still there, after timeout_s (temporary:
             call again later);
             HypervisorFault, XenstoreFault.
    """
    kept = list(records)
    uuids = {str(record["uuid"]): str(record.get("name", "")) for record in kept if record["kind"] == "domain"}
    for uuid in uuids:
        info = hypervisor.find_domain(uuid)
        if info is not None and not info.dying:
            log.info("destroying domain %d (%s)", info.domid, uuid)
            hypervisor.destroy_domain(info.domid)
    for record in kept:
        if record["kind"] == "xenstore":
            _remove_trees(record, hypervisor, xenstore)
    deadline = time.monotonic() + timeout_s
    for uuid, name in uuids.items():
        _wait_gone(hypervisor, uuid, name, deadline)
    for record in kept:
        if record["kind"] == "xenstore" and not int(record.get("backend_domid", 0)):
            _wait_backends_gone(record, hypervisor, xenstore, deadline)


def _remove_trees(record: Record, hypervisor: Hypervisor, xenstore: XenStore) -> None:
    domid, uuid = Domid(int(record["domid"])), str(record["uuid"])
    owner = hypervisor.domain_info(domid)
    if owner is not None and owner.uuid != uuid:
        return  # the domid has been given to another domain, which cleared these trees when it was built

    def remove(transaction: Transaction) -> None:
        found = transaction.read(f"{domain_path(domid)}/{UUID_NODE}")
        if found is None or found == uuid:
            for path in stale_paths(domid, backend_domid=int(record.get("backend_domid", 0))):
                transaction.remove(path)

    xenstore.transaction(remove)


def _wait_gone(hypervisor: Hypervisor, uuid: str, name: str, deadline: float) -> None:
    pause = _FIRST_PAUSE_S
    while (info := hypervisor.find_domain(uuid)) is not None:
        if time.monotonic() > deadline:
            raise TeardownFault(
                f"domain {info.domid} of zone {name}",
                got=f"still dying, {info.tot_pages} pages held by a back end or a mapping",
                temporary=True,
            )
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


def _wait_backends_gone(record: Record, hypervisor: Hypervisor, xenstore: XenStore, deadline: float) -> None:
    """Wait for the kernel's halves of the devices: it takes the vif's interface away after the domain is gone.

    A driver that was being given its device while the trees went writes its features into them afterwards, which makes
    them again (netback_probe, xen_blkbk_probe), and the kernel keeps a device for as long as its node is there. So they
    are removed for as long as something stays, and once more for what was written last.
    """
    domid = Domid(int(record["domid"]))
    pause = _FIRST_PAUSE_S
    while left := backends(domid):
        if hypervisor.domain_info(domid) is not None:
            return  # they are those of the next domain of this id
        if time.monotonic() > deadline:
            raise TeardownFault(f"domain {domid}", got=f"its back ends {', '.join(left)} stay", temporary=True)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
        _remove_trees(record, hypervisor, xenstore)


def backends(domid: Domid) -> list[str]:
    """The back ends of a domain, and its interfaces in this network namespace.

    The kernel takes a device off the bus's list before it asks the driver to let go (bus_remove_device in
    drivers/base/bus.c), so that an interface may outlast its back end's entry.
    """
    backends = [name for name in _names(_BACKENDS) if name.split("-")[1:2] == [str(domid)]]
    return sorted(backends + [name for name in _names(_INTERFACES) if name.startswith(f"vif{domid}.")])


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
