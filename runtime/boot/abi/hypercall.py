"""Hypercall numbers and the operations of the small ones.

Source: xen/include/public/xen.h (__HYPERVISOR_*, struct mmuext_op), memory.h, event_channel.h, grant_table.h,
version.h.
"""

from __future__ import annotations

import struct

MEMORY_OP = 12
XEN_VERSION = 17
GRANT_TABLE_OP = 20
MMUEXT_OP = 26
EVENT_CHANNEL_OP = 32
SYSCTL = 35
DOMCTL = 36

# version.h
XENVER_VERSION = 0
XENVER_EXTRAVERSION = 1
XENVER_CAPABILITIES = 3
EXTRAVERSION_BYTES = 16
CAPABILITIES_BYTES = 1024

# memory.h: struct xen_memory_reservation: extent_start, nr_extents, extent_order, mem_flags, domid
XENMEM_POPULATE_PHYSMAP = 6
MEMORY_RESERVATION = struct.Struct("<QQIIHxxxxxx")

# memory.h: struct xen_foreign_memory_map: domid, then struct xen_memory_map: nr_entries, buffer
XENMEM_SET_MEMORY_MAP = 13
FOREIGN_MEMORY_MAP = struct.Struct("<HxxxxxxIxxxxQ")
E820_ENTRY = struct.Struct("<QQI")
E820_RAM = 1

# xen.h: struct mmuext_op: cmd, (pad), arg1.mfn, arg2
MMUEXT_PIN_L4_TABLE = 3
MMUEXT_OP_STRUCT = struct.Struct("<IxxxxQQ")

# event_channel.h: struct evtchn_alloc_unbound: dom, remote_dom, port (out)
EVTCHNOP_ALLOC_UNBOUND = 6
EVTCHN_ALLOC_UNBOUND = struct.Struct("<HHI")
# struct evtchn_status: dom, (pad), port, then out: status, vcpu, union {remote domain, (pad), remote port}
EVTCHNOP_STATUS = 5
EVTCHN_STATUS = struct.Struct("<HxxIIIHxxI")
EVTCHNSTAT_UNBOUND = 1
EVTCHNSTAT_INTERDOMAIN = 2

# grant_table.h: struct gnttab_query_size: dom, (pad), then out: nr_frames, max_nr_frames, status, (pad)
GNTTABOP_QUERY_SIZE = 6
GNTTAB_QUERY_SIZE = struct.Struct("<HxxIIhxx")

# memory.h: XENMEM_acquire_resource, the kinds of PRIVCMD_MMAP_RESOURCE
RESOURCE_GRANT_TABLE = 1
RESOURCE_GRANT_TABLE_ID_SHARED = 0

# xen.h
DOMID_SELF = 0x7FF0
DOMID_FIRST_RESERVED = 0x7FF0
