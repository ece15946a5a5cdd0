"""Sizes and ioctl numbers, against the values the headers give."""

from __future__ import annotations

import pytest

from runtime.boot.abi import domctl, elfnote, hypercall, ioctl, rings, start_info, sysctl, vcpu


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (ioctl.IOCTL_PRIVCMD_HYPERCALL, 0x305000),
        (ioctl.IOCTL_PRIVCMD_MMAPBATCH_V2, 0x205004),
        (ioctl.IOCTL_PRIVCMD_MMAP_RESOURCE, 0x205007),
        (ioctl.IOCTL_EVTCHN_BIND_INTERDOMAIN, 0x84501),
        (ioctl.IOCTL_EVTCHN_UNBIND, 0x44503),
        (ioctl.IOCTL_EVTCHN_NOTIFY, 0x44504),
        (ioctl.IOCTL_GNTDEV_MAP_GRANT_REF, 0x184700),
        (ioctl.IOCTL_GNTDEV_UNMAP_GRANT_REF, 0x104701),
    ],
)
def test_ioctl_numbers(number: int, value: int) -> None:
    assert number == value


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (domctl.CREATEDOMAIN_4_17, 64),
        (domctl.CREATEDOMAIN_4_19, 68),
        (domctl.DOMCTL_HEADER, 16),
        (domctl.DOMAININFO, 92),
        (domctl.VCPUCONTEXT, 16),
        (sysctl.SYSCTL_HEADER, 8),
        (sysctl.PHYSINFO_STRUCT, 64),
        (sysctl.READCONSOLE_STRUCT, 20),
        (sysctl.DOMAININFOLIST, 20),
        (sysctl.CPUTOPOINFO_STRUCT, 16),
        (sysctl.CPUTOPO, 12),
        (hypercall.MEMORY_RESERVATION, 32),
        (hypercall.FOREIGN_MEMORY_MAP, 24),
        (hypercall.E820_ENTRY, 20),
        (hypercall.MMUEXT_OP_STRUCT, 24),
        (hypercall.EVTCHN_ALLOC_UNBOUND, 8),
        (hypercall.EVTCHN_STATUS, 24),
        (hypercall.GNTTAB_QUERY_SIZE, 16),
        (start_info.START_INFO, 1168),
        (elfnote.ELF_HEADER, 64),
        (elfnote.PROGRAM_HEADER, 56),
        (rings.GRANT_ENTRY_V1, 8),
        (rings.XSD_SOCKMSG, 16),
    ],
)
def test_structure_sizes(layout: object, size: int) -> None:
    assert layout.size == size  # type: ignore[attr-defined]


def test_domctl_is_144_bytes_and_everything_fits_its_union() -> None:
    assert domctl.DOMCTL_BYTES == 144
    for layout in (domctl.CREATEDOMAIN_4_19, domctl.DOMAININFO):
        assert layout.size <= domctl.DOMCTL_UNION_BYTES


def test_paging_bits() -> None:
    assert (start_info.L1_WRITABLE, start_info.L1_READ_ONLY, start_info.UPPER_LEVELS) == (0x23, 0x21, 0x67)


def test_console_indices_follow_both_rings() -> None:
    assert rings.CONSOLE_OUT_OFFSET == rings.CONSOLE_IN_BYTES
    assert rings.CONSOLE_IN_CONS == rings.CONSOLE_IN_BYTES + rings.CONSOLE_OUT_BYTES


def test_vcpu_context_ends_behind_its_last_field() -> None:
    assert vcpu.CR3 == 5008
    assert vcpu.DR7 == 5104
    assert vcpu.BYTES == 5168
