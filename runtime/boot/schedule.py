"""A domain's share of the CPUs: its weight counts where more wants to run than can.

Both schedulers that Xen's command line can name for machines of many domains have weights: credit2, the default since
4.12, and credit. A domain starts with 256 (docs/misc/xen-command-line, xen/common/sched/credit2.c).
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.boot.abi import domctl as abi
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault
from runtime.boot.model import Domid

_SCHEDULERS = (abi.SCHEDULER_CREDIT2, abi.SCHEDULER_CREDIT)


@dataclass(frozen=True)
class Share:
    """weight: beside that of the others; cap: percent of a CPU it has at most, 0 for no limit."""

    weight: int
    cap: int


def share(hypervisor: Hypervisor, domid: Domid) -> Share:
    """A domain's share. Raises HypervisorFault; also where Xen's scheduler has no weights."""
    return _share(hypervisor, domid)[1]


def set_weight(hypervisor: Hypervisor, domid: Domid, weight: int) -> None:
    """Give a domain a weight, 1 to 65535; its cap stays. Raises HypervisorFault, as `share`."""
    scheduler, now = _share(hypervisor, domid)
    _ask(hypervisor, domid, scheduler, abi.SCHEDOP_PUTINFO, Share(weight, now.cap))


def _share(hypervisor: Hypervisor, domid: Domid) -> tuple[int, Share]:
    for scheduler in _SCHEDULERS:
        try:
            return scheduler, _ask(hypervisor, domid, scheduler, abi.SCHEDOP_GETINFO, Share(0, 0))
        except HypervisorFault as fault:
            if not fault.is_invalid:  # EINVAL: it is another one
                raise
    raise HypervisorFault(f"domain {domid}", expected="a scheduler with weights, credit2 or credit", got="another one")


def _ask(hypervisor: Hypervisor, domid: Domid, scheduler: int, operation: int, wanted: Share) -> Share:
    payload = abi.SCHEDULER_OP_STRUCT.pack(scheduler, operation, wanted.weight, wanted.cap)
    reply = hypervisor.domctl("scheduler_op", abi.SCHEDULER_OP, domid, payload)
    *_, weight, cap = abi.SCHEDULER_OP_STRUCT.unpack_from(reply, abi.DOMCTL_UNION_OFFSET)
    return Share(weight, cap)
