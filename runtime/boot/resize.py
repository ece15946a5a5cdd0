"""Memory and vCPUs of a running domain: what is written to change them, and what Xen says of the result.

The guest does the work: its balloon driver follows D/memory/target, its hotplug code D/cpu/N/availability. Xen's own
limit follows the target, so that a guest cannot take back what it was asked to give.
Source:  docs/misc/xenstore-paths.pandoc of Xen; drivers/xen/xen-balloon.c and cpu_hotplug.c of Linux.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.bundle.model import LEAST_MEMORY_MIB
from runtime.boot.abi.start_info import PAGE_SIZE
from runtime.boot.doors import DomainInfo, Hypervisor
from runtime.boot.errors import BadSpec, DomainGone, OutOfMemory
from runtime.boot.model import Domid, Node
from runtime.boot.nodes import UUID_NODE, availability_nodes, domain_path
from runtime.boot.plan import PAGES_PER_MIB, SLACK_KIB

if TYPE_CHECKING:
    from runtime.boot.xenstore import Transaction, XenStore

# What Xen counts to a domain beside the memory its kernel sees: shared_info, grant frames.
_TOLERANCE_PAGES = SLACK_KIB // 4


@dataclass(frozen=True)
class Resources:
    """What a domain has and may have.

    memory_mib:      what it was asked to have.
    memory_max_mib:  what it may be asked to have at most, fixed when it was built.
    memory_now_mib:  what Xen counts.
    limit_mib:       what Xen would let it take.
    vcpus:           those asked to be online; vcpus_now are those that are, of vcpus_max made.
    """

    memory_mib: int
    memory_max_mib: int
    memory_now_mib: int
    limit_mib: int
    vcpus: int
    vcpus_now: int
    vcpus_max: int

    @property
    def settled(self) -> bool:
        """Has the guest done what it was asked for?"""
        return self.vcpus == self.vcpus_now and abs(self.memory_mib - self.memory_now_mib) * PAGES_PER_MIB <= (
            _TOLERANCE_PAGES
        )


def plan_memory(name: str, target_mib: int, *, domid: Domid, max_mib: int, least_mib: int) -> list[Node]:
    """The nodes that ask for a size. Raises BadSpec."""
    if not least_mib <= target_mib <= max_mib:
        expected = f"{least_mib} to {max_mib} MiB"
        hint = "with less it does not go on"
        if target_mib > max_mib:
            hint = "the most it may have was fixed when it was started: memory_max"
        raise BadSpec(f"zone {name}, memory", expected=expected, got=f"{target_mib} MiB", hint=hint)
    return [Node(f"{domain_path(domid)}/memory/target", str(target_mib << 10))]


def plan_vcpus(name: str, count: int, *, domid: Domid, most: int) -> list[Node]:
    """The nodes that ask for a number of vCPUs. Raises BadSpec."""
    if not 1 <= count <= most:
        hint = "the most it may have was fixed when it was started: vcpus_max"
        raise BadSpec(f"zone {name}, vcpus", expected=f"1 to {most}", got=str(count), hint=hint)
    return availability_nodes(domid, online=count, most=most)


def set_memory(
    hypervisor: Hypervisor,
    xenstore: XenStore,
    domid: Domid,
    uuid: str,
    target_mib: int,
    *,
    least_mib: int = LEAST_MEMORY_MIB,
) -> Resources:
    """Ask a running domain to have this much memory; does not wait for it (`Resources.settled`).

    least_mib: what it goes on with.
    Raises:  BadSpec below that, and beyond the maximum it was built with; OutOfMemory where Xen has not that much
             left; DomainGone.
    """
    info, name, now = _look(hypervisor, xenstore, domid, uuid)
    nodes = plan_memory(name, target_mib, domid=domid, max_mib=now.memory_max_mib, least_mib=least_mib)
    missing = target_mib * PAGES_PER_MIB - info.tot_pages
    free = hypervisor.free_pages()
    if missing > free:
        expected = f"{-(-missing // PAGES_PER_MIB)} MiB of free memory in Xen"
        raise OutOfMemory(f"zone {name}", expected=expected, got=f"{free // PAGES_PER_MIB} MiB")
    limit_kib = (target_mib << 10) + SLACK_KIB
    with ExitStack() as undo:
        if target_mib >= now.memory_mib:
            # First, or the guest asks for what it may not have yet; but what it was not asked to have it may not take.
            undo.callback(hypervisor.set_max_memory, domid, info.max_pages * PAGE_SIZE >> 10)
            hypervisor.set_max_memory(domid, limit_kib)
        _write(xenstore, domid, uuid, name, nodes)
        undo.pop_all()
    # Below what it has is fine: Xen takes nothing away, but gives nothing back either.
    hypervisor.set_max_memory(domid, limit_kib)
    return resources(hypervisor, xenstore, domid, uuid)


def set_vcpus(hypervisor: Hypervisor, xenstore: XenStore, domid: Domid, uuid: str, count: int) -> Resources:
    """Ask a running domain to have so many vCPUs online; does not wait for it. Raises BadSpec, DomainGone."""
    _, name, now = _look(hypervisor, xenstore, domid, uuid)
    _write(xenstore, domid, uuid, name, plan_vcpus(name, count, domid=domid, most=now.vcpus_max))
    return resources(hypervisor, xenstore, domid, uuid)


def resources(hypervisor: Hypervisor, xenstore: XenStore, domid: Domid, uuid: str) -> Resources:
    """What a domain has and was asked to have. Raises DomainGone."""
    return _look(hypervisor, xenstore, domid, uuid)[2]


def _look(hypervisor: Hypervisor, xenstore: XenStore, domid: Domid, uuid: str) -> tuple[DomainInfo, str, Resources]:
    home = domain_path(domid)
    info = hypervisor.domain_info(domid)
    if info is None or info.uuid != uuid or info.dying or xenstore.read(f"{home}/{UUID_NODE}") != uuid:
        raise DomainGone(f"domain {domid}", expected=f"that of uuid {uuid}", got="it has ended")
    # All of these nodes are the host's own, which the guest may only read.
    words = [xenstore.read(f"{home}/cpu/{cpu}/availability") for cpu in xenstore.children(f"{home}/cpu")]
    found = Resources(
        memory_mib=_mib(xenstore.read(f"{home}/memory/target")),
        memory_max_mib=_mib(xenstore.read(f"{home}/memory/static-max")),
        memory_now_mib=round(info.tot_pages / PAGES_PER_MIB),
        limit_mib=info.max_pages // PAGES_PER_MIB,
        vcpus=words.count("online"),
        vcpus_now=info.online_vcpus,
        vcpus_max=len(words),
    )
    return info, xenstore.read(f"{home}/name") or str(domid), found


def _mib(kib: str | None) -> int:
    return int(kib or 0) >> 10


def _write(xenstore: XenStore, domid: Domid, uuid: str, name: str, nodes: list[Node]) -> None:
    """Write the nodes as one change, and only where the tree is still this domain's: it may end meanwhile."""

    def write(transaction: Transaction) -> None:
        if transaction.read(f"{domain_path(domid)}/{UUID_NODE}") != uuid:
            raise DomainGone(f"zone {name}", expected="it running", got="it has ended")
        transaction.apply(nodes)

    xenstore.transaction(write)
