"""Memory and vCPUs of a running domain: what is written, in which order, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hypervisor import FakeXen
from support.xenstored import FakeXenstored

from runtime.boot import nodes, resize
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import BadSpec, DomainGone, OutOfMemory, XenstoreFault
from runtime.boot.model import DomainSpec, Domid, FileRange
from runtime.boot.xenstore import XenStore
from runtime.errors import RuntimeFault

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"
HOME = "/local/domain/1"


class Guest:
    """A domain of 64 MiB that may have 256, with 2 of 4 vCPUs; its memory is what the test gives it."""

    def __init__(self, where: Path) -> None:
        self.xen, self.xenstored = FakeXen(total_pages=1 << 16), FakeXenstored(where)
        self.hypervisor, self.store = Hypervisor(self.xen), XenStore(self.xenstored.path, timeout_s=60)
        self.domid = self.hypervisor.create_domain(UUID, max_vcpus=4)
        spec = DomainSpec("web", UUID, FileRange("/k", 1), memory_mib=64, memory_max_mib=256, vcpus=2, vcpus_max=4)
        self.store.apply(nodes.plan_domain_nodes(spec, self.domid))
        self.hypervisor.set_max_memory(self.domid, 64 * 1024 + 2048)
        self.has(64)
        self.domain.online_vcpus = 2

    @property
    def domain(self):  # type: ignore[no-untyped-def]
        return self.xen.domains[self.domid]

    def has(self, mib: int) -> None:
        self.xen.free += len(self.domain.p2m) - mib * 256
        self.domain.p2m = dict.fromkeys(range(mib * 256), 0)

    def memory(self, mib: int) -> resize.Resources:
        return resize.set_memory(self.hypervisor, self.store, self.domid, UUID, mib)

    def vcpus(self, count: int) -> resize.Resources:
        return resize.set_vcpus(self.hypervisor, self.store, self.domid, UUID, count)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path)
    yield made
    made.store.close()
    made.xenstored.close()


def test_grows_shrinks_and_is_read_back(guest: Guest) -> None:
    asked = guest.memory(256)
    assert (asked.memory_mib, asked.memory_max_mib, asked.memory_now_mib, asked.limit_mib) == (256, 256, 64, 258)
    assert not asked.settled
    assert guest.xenstored.value(f"{HOME}/memory/target") == str(256 << 10)
    guest.has(256)
    assert resize.resources(guest.hypervisor, guest.store, guest.domid, UUID).settled
    asked = guest.memory(100)
    assert (asked.memory_now_mib, asked.limit_mib) == (256, 102), "what it gives back it cannot take again"
    guest.has(100)
    assert resize.resources(guest.hypervisor, guest.store, guest.domid, UUID).settled
    assert guest.xenstored.value(f"{HOME}/memory/static-max") == str(256 << 10)


@pytest.mark.parametrize("mib", [95, 64, 1, 0, -1])
def test_guest_is_left_what_every_zone_needs(guest: Guest, mib: int) -> None:
    guest.memory(256)
    guest.has(256)
    before = dict(guest.xenstored.nodes)
    with pytest.raises(BadSpec, match=rf"expected 96 to 256 MiB, got {mib} MiB \(with less it does not go on\)"):
        guest.memory(mib)
    assert guest.xenstored.nodes == before
    assert guest.memory(96).memory_mib == 96


@pytest.mark.parametrize("mib", [257, 1 << 40])
def test_balloon_beyond_the_maximum_is_refused_and_nothing_is_changed(guest: Guest, mib: int) -> None:
    before = dict(guest.xenstored.nodes)
    with pytest.raises(BadSpec, match=r"zone web, memory: expected 96 to 256 MiB, got"):
        guest.memory(mib)
    assert guest.xenstored.nodes == before
    assert guest.domain.max_kib == 64 * 1024 + 2048


def test_more_than_xen_has_left_is_refused_with_the_number(guest: Guest) -> None:
    guest.xen.free = 50 * 256
    with pytest.raises(OutOfMemory, match="expected 64 MiB of free memory in Xen, got 50 MiB"):
        guest.memory(128)
    assert guest.domain.max_kib == 64 * 1024 + 2048


def test_limit_is_raised_before_the_guest_is_told(guest: Guest) -> None:
    calls = []
    plain = guest.hypervisor.set_max_memory

    def noting(domid: Domid, kib: int) -> None:
        calls.append((kib, guest.xenstored.value(f"{HOME}/memory/target")))
        plain(domid, kib)

    guest.hypervisor.set_max_memory = noting  # type: ignore[method-assign]
    guest.memory(128)
    assert calls[0] == (128 * 1024 + 2048, str(64 << 10))


def test_vcpus_are_set_and_read_back(guest: Guest) -> None:
    assert (guest.vcpus(4).vcpus, guest.vcpus(4).vcpus_now) == (4, 2)
    guest.domain.online_vcpus = 4
    assert guest.vcpus(1).vcpus == 1
    words = [guest.xenstored.value(f"{HOME}/cpu/{cpu}/availability") for cpu in range(4)]
    assert words == ["online", "offline", "offline", "offline"]
    guest.domain.online_vcpus = 1
    assert resize.resources(guest.hypervisor, guest.store, guest.domid, UUID).settled


@pytest.mark.parametrize("count", [0, 5, -1])
def test_number_of_vcpus_that_cannot_be_is_refused(guest: Guest, count: int) -> None:
    with pytest.raises(BadSpec, match=r"zone web, vcpus: expected 1 to 4, got"):
        guest.vcpus(count)


@pytest.mark.parametrize("change", ["gone", "dying", "another", "tree of another"])
def test_domain_that_is_not_the_one_meant_is_left_alone(guest: Guest, change: str) -> None:
    if change == "gone":
        del guest.xen.domains[guest.domid]
    elif change == "dying":
        guest.domain.dying = True
    elif change == "another":
        guest.domain.handle = bytes(16)
    else:
        guest.xenstored.put(f"{HOME}/zone/uuid", b"another")
    before = guest.xenstored.value(f"{HOME}/memory/target")
    for act in (guest.memory, guest.vcpus):
        with pytest.raises(DomainGone, match="has ended"):
            act(2)
    assert guest.xenstored.value(f"{HOME}/memory/target") == before


def test_xen_that_refuses_the_limit_leaves_the_target_as_it_was(guest: Guest) -> None:
    guest.xen.fail_at = len(guest.xen.calls) + 6
    with pytest.raises(RuntimeFault):
        guest.memory(128)
    assert guest.xenstored.value(f"{HOME}/memory/target") == str(64 << 10)
    assert guest.xen.calls[-1].startswith("domctl max_mem")


def test_xenstored_that_refuses_the_target_leaves_the_limit_as_it_was(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest could take what it was not asked to, and what may be promised to another zone by then."""

    def refused(*_: object) -> None:
        raise XenstoreFault("xenstore transaction", got="others' changes", temporary=True)

    monkeypatch.setattr(guest.store, "transaction", refused)
    with pytest.raises(XenstoreFault):
        guest.memory(128)
    limit_kib = guest.domain.max_kib
    assert limit_kib == 64 * 1024 + 2048
