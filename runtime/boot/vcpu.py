"""The register state vCPU 0 starts with; the guest brings the other vCPUs up itself."""

from __future__ import annotations

import struct

from runtime.boot.abi import vcpu as abi
from runtime.boot.abi.start_info import PAGE_SHIFT
from runtime.boot.memory import Layout
from runtime.boot.model import KernelInfo, Mfn


def plan_vcpu_context(layout: Layout, kernel: KernelInfo, *, l4_mfn: Mfn) -> bytes:
    """struct vcpu_guest_context: at the entry point, stack set, start_info in rsi, L4 in cr3.

    Source:  xen/include/public/arch-x86/xen.h; the entry state Linux expects: arch/x86/xen/xen-head.S, startup_xen.
    """
    stack_top = kernel.virt_base + (layout.stack_pfn + 1 << PAGE_SHIFT)
    context = bytearray(abi.BYTES)
    for offset, value in (
        (abi.FLAGS, abi.VGCF_IN_KERNEL | abi.VGCF_ONLINE),
        (abi.RSI, kernel.virt_base + (layout.start_info_pfn << PAGE_SHIFT)),
        (abi.RIP, kernel.entry_vaddr),
        (abi.CS, abi.FLAT_KERNEL_CS),
        (abi.RFLAGS, abi.RFLAGS_IF),
        (abi.RSP, stack_top),
        (abi.SS, abi.FLAT_KERNEL_SS),
        (abi.KERNEL_SS, abi.FLAT_KERNEL_SS),
        (abi.KERNEL_SP, stack_top),
        (abi.CR3, l4_mfn << PAGE_SHIFT),
        (abi.DR6, abi.DR6_DEFAULT),
        (abi.DR7, abi.DR7_DEFAULT),
    ):
        struct.pack_into("<Q", context, offset, value)
    return bytes(context)
