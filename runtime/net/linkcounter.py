"""What has passed a zone's interface, and what its queues dropped: the kernel's own counters, asked for by netlink.

They go with the interface, and those of a queue with that queue: a zone that comes again begins at 0, and so does the
queue of a bandwidth limit that is changed.
Source: linux/if_link.h, struct rtnl_link_stats64; linux/gen_stats.h, struct gnet_stats_queue; linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable

from runtime.net.netlink import NLM_F_ACK, NLM_F_ECHO, Rtnetlink, attributes, link_request

RTM_GETLINK, RTM_NEWQDISC, RTM_GETQDISC = 18, 36, 38
IFLA_STATS64 = 23
TCA_STATS2, TCA_STATS_QUEUE = 7, 3
_TC_H_ROOT = 0xFFFFFFFF
_LINK = struct.Struct("=8Q")  # received, sent: packets; bytes; errors; dropped
_TCMSG = struct.Struct("=BxxxiIII")  # family, interface, handle, parent, info
_QUEUE = struct.Struct("=III")  # frames in it, their bytes, dropped
_IFINFOMSG_BYTES = 16


def passed(vif: str, limit: str) -> dict[str, int]:
    """Bytes of whole frames each way and frames dropped, of a vif of the calling thread's namespace; {} without one.

    limit:   the device of bandwidth.py in the way from the zone, which may not be there.
    Raises:  OSError.
    """
    there = {name: index for index, name in socket.if_nameindex()}
    if vif not in there:
        return {}
    with Rtnetlink() as kernel:
        _, link = kernel.request(RTM_GETLINK, link_request(there[vif]), flags=0)
        statistics = dict(attributes(link[_IFINFOMSG_BYTES:]))[IFLA_STATS64]
        _, _, up, down, _, _, _, dropped = _LINK.unpack_from(statistics)
        dropped += sum(_dropped(kernel, (there[name] for name in (vif, limit) if name in there)))
    return {"link_bytes_up": up, "link_bytes_down": down, "link_dropped": dropped}


def _dropped(kernel: Rtnetlink, links: Iterable[int]) -> Iterable[int]:
    for index in links:
        # Told as news, to whoever wants those of its own requests (net/sched/sch_api.c, qdisc_notify). Of a device
        # without a queue there is an acknowledgement or an error, and nothing else.
        with contextlib.suppress(OSError):
            asked = _TCMSG.pack(0, index, 0, _TC_H_ROOT, 0)
            kind, queue = kernel.request(RTM_GETQDISC, asked, flags=NLM_F_ACK | NLM_F_ECHO)
            if kind == RTM_NEWQDISC:
                nested = dict(attributes(queue[_TCMSG.size :]))[TCA_STATS2]
                yield _QUEUE.unpack_from(dict(attributes(nested))[TCA_STATS_QUEUE])[2]
