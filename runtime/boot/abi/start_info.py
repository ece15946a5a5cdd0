"""What a PV guest finds at entry: start_info, shared_info, and the paging bits its first tables need.

Source: xen/include/public/xen.h (struct start_info, shared_info, vcpu_info), arch-x86/xen-x86_64.h.
"""

from __future__ import annotations

import struct

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
ENTRIES_PER_TABLE = 512
ADDRESS_BITS = 48
L4_SHIFT = 39  # bits of address that one entry of the L4 maps

# struct start_info: magic, nr_pages, shared_info, flags, store_mfn, store_evtchn, console.domU.mfn, .evtchn, pt_base,
# nr_pt_frames, mfn_list, mod_start, mod_len, cmd_line, first_p2m_pfn, nr_p2m_frames
START_INFO = struct.Struct("<32sQQIxxxxQIxxxxQIxxxxQQQQQ1024sQQ")
MAGIC = b"xen-3.0-x86_64"
SIF_MOD_START_PFN = 1 << 3
MAX_GUEST_CMDLINE = 1024

# struct vcpu_info is 64 bytes, evtchn_upcall_mask its second; shared_info holds XEN_LEGACY_MAX_VCPUS of them.
VCPU_INFO_BYTES = 64
EVTCHN_UPCALL_MASK_OFFSET = 1
LEGACY_MAX_VCPUS = 32

PTE_PRESENT = 0x01
PTE_RW = 0x02
PTE_USER = 0x04
PTE_ACCESSED = 0x20
PTE_DIRTY = 0x40
L1_WRITABLE = PTE_PRESENT | PTE_RW | PTE_ACCESSED
L1_READ_ONLY = PTE_PRESENT | PTE_ACCESSED
UPPER_LEVELS = PTE_PRESENT | PTE_RW | PTE_USER | PTE_ACCESSED | PTE_DIRTY

# Reasons of sched_shutdown: xen/include/public/sched.h, SHUTDOWN_*.
SHUTDOWN_REASONS = {0: "poweroff", 1: "reboot", 2: "suspend", 3: "crash", 4: "watchdog", 5: "soft_reset"}
