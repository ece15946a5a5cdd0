"""domctl: the toolstack's hypercall on one domain. Its layouts change with the interface version.

Source: xen/include/public/domctl.h. Versions by Xen release:
  0x15 = 4.17, 0x16 = 4.18, 0x17 = 4.19 to 4.21, 0x18 = 4.22.
"""

from __future__ import annotations

import struct

DOMCTL_VERSIONS = (0x15, 0x16, 0x17, 0x18)

# struct xen_domctl: cmd, interface_version, domain, (pad), 128 bytes of union
DOMCTL_HEADER = struct.Struct("<IIHxxxxxx")
DOMCTL_UNION_OFFSET = DOMCTL_HEADER.size
DOMCTL_UNION_BYTES = 128
DOMCTL_BYTES = DOMCTL_UNION_OFFSET + DOMCTL_UNION_BYTES
DOMCTL_DOMAIN_OFFSET = 8

CREATEDOMAIN = 1
DESTROYDOMAIN = 2
PAUSEDOMAIN = 3
UNPAUSEDOMAIN = 4
GETDOMAININFO = 5
MAX_MEM = 11
SETVCPUCONTEXT = 12
MAX_VCPUS = 15
SCHEDULER_OP = 16
HYPERCALL_INIT = 22
SET_ADDRESS_SIZE = 35

# struct xen_domctl_createdomain: ssidref, handle, flags, iommu_opts, max_vcpus, max_evtchn_port, max_grant_frames,
# max_maptrack_frames, grant_opts, [altp2m_opts], vmtrace_size, cpupool_id, arch.emulation_flags, arch.misc_flags
CREATEDOMAIN_4_17 = struct.Struct("<I16sIIIIiiIIIII")
CREATEDOMAIN_4_19 = struct.Struct("<I16sIIIIiiIIIIII")
FIRST_VERSION_WITH_ALTP2M = 0x17
MAX_EVTCHN_PORT = 1023
GRANT_VERSION_MAX = 2
HYPERVISOR_DEFAULT = -1

# struct xen_domctl_getdomaininfo, as far as it is read: domain, (pad), flags, tot_pages, max_pages, outstanding_pages,
# shr_pages, paged_pages, shared_info_frame, cpu_time, nr_online_vcpus, max_vcpu_id, ssidref, handle
DOMAININFO = struct.Struct("<HxxI6QQIII16s")
DOMINF_DYING = 1 << 0
DOMINF_SHUTDOWN = 1 << 2
DOMINF_PAUSED = 1 << 3
DOMINF_SHUTDOWN_SHIFT = 16
DOMINF_SHUTDOWN_MASK = 0xFF

# struct xen_domctl_vcpucontext: vcpu, (pad), ctxt
VCPUCONTEXT = struct.Struct("<IxxxxQ")

# struct xen_domctl_scheduler_op, as for credit and credit2: sched_id, cmd, weight, cap
SCHEDULER_OP_STRUCT = struct.Struct("<IIHH")
SCHEDULER_CREDIT, SCHEDULER_CREDIT2 = 5, 6
SCHEDOP_PUTINFO, SCHEDOP_GETINFO = 0, 1

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
