"""A domain's share of the CPUs, asked for and changed, with each of the schedulers that have weights."""

from __future__ import annotations

import pytest
from support.hypervisor import FakeXen

from runtime.boot import schedule
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault
from runtime.boot.model import Domid
from runtime.boot.schedule import Share

DOM0 = Domid(0)


@pytest.mark.parametrize("scheduler", [5, 6])
def test_weight_is_changed_and_the_cap_stays(scheduler: int) -> None:
    xen = FakeXen()
    xen.scheduler, xen.domains[0].share = scheduler, (256, 150)
    hypervisor = Hypervisor(xen)
    assert schedule.share(hypervisor, DOM0) == Share(256, 150)
    schedule.set_weight(hypervisor, DOM0, 2048)
    assert xen.domains[0].share == (2048, 150)
    assert schedule.share(hypervisor, DOM0) == Share(2048, 150)


def test_scheduler_without_weights_is_told() -> None:
    xen = FakeXen()
    xen.scheduler = 9
    with pytest.raises(HypervisorFault, match="expected a scheduler with weights, credit2 or credit, got another one"):
        schedule.set_weight(Hypervisor(xen), DOM0, 512)


def test_domain_that_is_not_there_is_told() -> None:
    with pytest.raises(HypervisorFault, match="scheduler_op of domain 7"):
        schedule.share(Hypervisor(FakeXen()), Domid(7))
