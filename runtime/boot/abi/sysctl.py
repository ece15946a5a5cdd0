"""sysctl: the toolstack's hypercall on the whole machine.

Source: xen/include/public/sysctl.h. Versions by Xen release: 0x15 = 4.17 to 4.20, 0x16 = 4.21 and 4.22.
"""

from __future__ import annotations

import struct

SYSCTL_VERSIONS = (0x15, 0x16)

# struct xen_sysctl: cmd, interface_version, 128 bytes of union
SYSCTL_HEADER = struct.Struct("<II")
SYSCTL_UNION_OFFSET = SYSCTL_HEADER.size
SYSCTL_BYTES = SYSCTL_UNION_OFFSET + 128

READCONSOLE = 1
PHYSINFO = 3
GETDOMAININFOLIST = 6
CPUTOPOINFO = 16

# struct xen_sysctl_readconsole: clear, incremental, (pad), index (in, out), buffer, count (in, out)
READCONSOLE_STRUCT = struct.Struct("<BBxxIQI")
# struct xen_sysctl_physinfo, as far as it is read: threads_per_core, cores_per_socket, nr_cpus, max_cpu_id, nr_nodes,
# max_node_id, cpu_khz, capabilities, arch_capabilities, (pad), total_pages, free_pages, scrub_pages
PHYSINFO_STRUCT = struct.Struct("<9Ixxxx3Q")
# struct xen_sysctl_getdomaininfolist: first_domain, (pad), max_domains, buffer, num_domains
DOMAININFOLIST = struct.Struct("<HxxIQI")
# struct xen_domctl_getdomaininfo has 112 bytes in 4.17 to 4.20: room for one, and more does no harm.
DOMAININFO_ROOM_BYTES = 256
# struct xen_sysctl_cputopoinfo: num_cpus (in, out), (pad), cputopo;  struct xen_sysctl_cputopo: core, socket, node
CPUTOPOINFO_STRUCT = struct.Struct("<IxxxxQ")
CPUTOPO = struct.Struct("<III")
INVALID_CORE_ID = 0xFFFFFFFF  # of a CPU that is offline
