"""What is asked about the whole machine: CPUs, memory, Xen's console, event channels and grants."""

from __future__ import annotations

import struct

import pytest
from support.hypervisor import FakeXen

from runtime.boot import machine
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault
from runtime.boot.machine import ChannelState, Cpu, CpuClass, Grant
from runtime.boot.model import Domid

OFFLINE = 0xFFFFFFFF


def test_memory_and_cpus_are_counted() -> None:
    xen = FakeXen(total_pages=1 << 18)
    xen.free -= 5
    info = machine.machine_info(Hypervisor(xen))
    assert (info.cpus, info.total_pages, info.free_pages, info.cpu_khz) == (2, 1 << 18, (1 << 18) - 5, 2_000_000)


def test_topology_numbers_threads_and_leaves_out_cpus_that_are_offline() -> None:
    xen = FakeXen()
    xen.cpus = [(0, 0, 0), (0, 0, 0), (OFFLINE, OFFLINE, OFFLINE), (0, 1, 1)]
    assert machine.cpu_topology(Hypervisor(xen)) == (
        Cpu(0, 0, 0, 0, 0, CpuClass.STANDARD),
        Cpu(1, 0, 0, 0, 1, CpuClass.STANDARD),
        Cpu(3, 0, 1, 1, 0, CpuClass.STANDARD),
    )


@pytest.mark.parametrize(
    ("cores", "classes"),
    [
        ([0], "s"),
        ([0, 1, 2, 3], "ssss"),
        ([0, 2, 4, 6], "ssss"),
        ([0, 4, 8, 12], "ssss"),
        ([0, 1, 2, 8, 9, 10], "ssssss"),
        ([0, 4, 8, 12, 16, 17, 18, 19], "ppppeeee"),
        ([0, 8, 16, 24, 25, 26, 27, 32, 33], "pppeeeeee"),
    ],
    ids=["one", "plain", "even", "far apart", "with a hole", "hybrid", "hybrid of two clusters"],
)
def test_class_of_a_core_follows_from_its_neighbours(cores: list[int], classes: str) -> None:
    letters = {"s": CpuClass.STANDARD, "p": CpuClass.PERFORMANCE, "e": CpuClass.EFFICIENCY}
    assert machine.classify(set(cores)) == {core: letters[word] for core, word in zip(cores, classes, strict=True)}


def test_console_is_read_whole_and_stays_where_it_is() -> None:
    xen = FakeXen()
    xen.console, xen.console_start = b"(XEN) line\n" * 9000, 123_456
    for _ in range(2):
        assert machine.console_text(Hypervisor(xen)) == "(XEN) line\n" * 9000


def test_console_that_grows_while_it_is_read_ends() -> None:
    xen = FakeXen()
    plain = xen._sysctl

    def growing(name: str, address: int) -> int:
        xen.console += b"x" * (64 << 10)
        return plain(name, address)

    hypervisor = Hypervisor(xen)
    xen._sysctl = growing  # type: ignore[method-assign]
    assert len(machine.console_text(hypervisor)) >= 4 << 20


def test_channels_that_lead_to_other_domains_are_listed() -> None:
    xen = FakeXen()
    xen.ports = {1: (4, 0, 0), 2: (2, 7, 3), 5: (1, 9, 0)}
    assert list(machine.channels(Hypervisor(xen), Domid(0))) == [
        ChannelState(2, True, 7, 3),
        ChannelState(5, False, 9, 0),
    ]


def test_grants_in_use_are_told_from_those_that_wait() -> None:
    xen = FakeXen()
    hypervisor = Hypervisor(xen)
    domid = hypervisor.create_domain("0f0e0d0c-0b0a-4908-8706-050403020100", max_vcpus=1)
    entries = {0: (1, 0, 9), 3: (1 | 1 << 3, 0, 10), 4: (2, 0, 11), 600: (1 | 1 << 4, 5, 12)}
    table = bytearray(8192)
    for reference, entry in entries.items():
        struct.pack_into("<HHI", table, 8 * reference, *entry)
    xen.domains[domid].grants = table
    assert machine.grants(hypervisor, domid) == (Grant(0, 0, False), Grant(3, 0, True), Grant(600, 5, True))
    with pytest.raises(HypervisorFault):
        machine.grants(hypervisor, Domid(77))
