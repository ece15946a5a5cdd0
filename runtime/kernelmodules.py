"""The kernel modules of a dom0: what zones cannot do without, what some of them need, what the lab's own dom0 loads.

One list, for preflight, for the lab's dom0 and for what is said where a limit of bandwidth cannot be set.
"""

from __future__ import annotations

# Behind /dev/xen and /proc/xen.
DOORS = ("xen_evtchn", "xen_gntdev", "xen_gntalloc", "xen_privcmd", "xenfs")
# The back ends: nothing loads them by itself, a guest's half waits for them for ever.
BACK_ENDS = ("xen_netback", "xen_blkback")
# What zones' disks and networks stand on; the kernel loads them when they are asked for.
ON_DEMAND = ("loop", "bridge", "nf_tables", "nft_tproxy", "nft_socket")
NEEDED = (*BACK_ENDS, *ON_DEMAND)

BANDWIDTH = ("sch_tbf", "sch_ingress", "cls_u32", "act_mirred", "ifb")
# Which zones there cannot be without a module.
LESS_WITHOUT = dict.fromkeys(BANDWIDTH, "limits of bandwidth need it")

# The lab's dom0 has neither udev nor a service that loads modules; its tests and benchmarks want some of their own.
LAB = (*DOORS, *NEEDED, "tun", "veth", "nft_meta_bridge", "nft_ct", "nft_masq", "nft_chain_nat")
