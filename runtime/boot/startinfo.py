"""The start_info page of a new guest, and its shared_info."""

from __future__ import annotations

from runtime.boot.abi import start_info as abi
from runtime.boot.memory import Layout
from runtime.boot.model import EvtchnPort, KernelInfo, Mfn


def plan_start_info(
    layout: Layout,
    kernel: KernelInfo,
    cmdline: str,
    *,
    shared_info_mfn: Mfn,
    store: tuple[Mfn, EvtchnPort],
    console: tuple[Mfn, EvtchnPort],
) -> bytes:
    """One page: start_info, and zeros after it.

    Units:   mod_start is a pfn, as SIF_MOD_START_PFN says; shared_info a machine address.
    Source:  xen/include/public/xen.h, struct start_info.
    """
    has_initrd = layout.initrd_bytes > 0
    page = abi.START_INFO.pack(
        abi.MAGIC,
        layout.nr_pages,
        shared_info_mfn << abi.PAGE_SHIFT,
        abi.SIF_MOD_START_PFN if has_initrd else 0,
        *store,
        *console,
        kernel.virt_base + (layout.l4_pfn << abi.PAGE_SHIFT),
        len(layout.main_tables),
        kernel.init_p2m_vaddr,
        layout.initrd_pfn if has_initrd else 0,
        layout.initrd_bytes,
        cmdline.encode("ascii"),
        layout.p2m.first_pfn,
        layout.nr_p2m_frames,
    )
    return page.ljust(abi.PAGE_SIZE, b"\0")


def plan_shared_info() -> bytes:
    """One page: all zero, but event delivery masked on each vCPU until the guest asks for it."""
    page = bytearray(abi.PAGE_SIZE)
    end = abi.LEGACY_MAX_VCPUS * abi.VCPU_INFO_BYTES
    page[abi.EVTCHN_UPCALL_MASK_OFFSET : end : abi.VCPU_INFO_BYTES] = b"\1" * abi.LEGACY_MAX_VCPUS
    return bytes(page)
