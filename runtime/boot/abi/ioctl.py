"""Numbers of Linux's Xen ioctls.

Source: include/uapi/xen/privcmd.h, evtchn.h, gntdev.h (all use _IOC with direction _IOC_NONE).
"""

from __future__ import annotations

import struct


def ioc_none(kind: str, number: int, size_bytes: int) -> int:
    """The number of an ioctl without direction bits. Source: include/uapi/asm-generic/ioctl.h, _IOC."""
    return size_bytes << 16 | ord(kind) << 8 | number


# struct privcmd_hypercall: op, arg[5]
PRIVCMD_HYPERCALL = struct.Struct("<6Q")
IOCTL_PRIVCMD_HYPERCALL = ioc_none("P", 0, PRIVCMD_HYPERCALL.size)

# struct privcmd_mmapbatch_v2: num, dom, (pad), addr, *arr of xen_pfn_t, *err of int
PRIVCMD_MMAPBATCH_V2 = struct.Struct("<IHxxQQQ")
IOCTL_PRIVCMD_MMAPBATCH_V2 = ioc_none("P", 4, PRIVCMD_MMAPBATCH_V2.size)

# struct privcmd_mmap_resource: dom, (pad), type, id, idx, num, addr
PRIVCMD_MMAP_RESOURCE = struct.Struct("<HxxIIIQQ")
IOCTL_PRIVCMD_MMAP_RESOURCE = ioc_none("P", 7, PRIVCMD_MMAP_RESOURCE.size)

# struct ioctl_evtchn_bind_interdomain: remote_domain, remote_port; the call returns the local port
EVTCHN_BIND_INTERDOMAIN = struct.Struct("<II")
IOCTL_EVTCHN_BIND_INTERDOMAIN = ioc_none("E", 1, EVTCHN_BIND_INTERDOMAIN.size)

# struct ioctl_evtchn_unbind, struct ioctl_evtchn_notify: port
EVTCHN_PORT = struct.Struct("<I")
IOCTL_EVTCHN_UNBIND = ioc_none("E", 3, EVTCHN_PORT.size)
IOCTL_EVTCHN_NOTIFY = ioc_none("E", 4, EVTCHN_PORT.size)

# struct ioctl_gntdev_map_grant_ref: count, pad, index (out: the offset for mmap), refs[count] of {domid, ref}; declared
# with refs[1], whose size the number has
GNTDEV_MAP_GRANT_REF_HEAD = struct.Struct("<IxxxxQ")
IOCTL_GNTDEV_MAP_GRANT_REF = ioc_none("G", 0, GNTDEV_MAP_GRANT_REF_HEAD.size + 8)

# struct ioctl_gntdev_unmap_grant_ref: index, count, pad; only after munmap
GNTDEV_UNMAP_GRANT_REF = struct.Struct("<QIxxxx")
IOCTL_GNTDEV_UNMAP_GRANT_REF = ioc_none("G", 1, GNTDEV_UNMAP_GRANT_REF.size)
