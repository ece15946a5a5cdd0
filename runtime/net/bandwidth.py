"""A zone's bandwidth: a token bucket of the kernel's for each direction of its vif.

    to the zone     the queue of the vif. This host's own TCP fills it, and waits for room; UDP loses datagrams
    from the zone   what the vif receives goes through the queue of a device of the zone's own, and comes back as if the
                    vif received it then. A queue, not a policer: TCP is slowed down before it loses anything

Frames count whole, headers included; in a network that zones share, those from one zone to another as well. Both are in
the network's namespace; the vif's queue goes with the vif, the device with the namespace or when its zone leaves it.
Source:  tc-tbf(8), tc-mirred(8), Documentation/networking/ifb; drivers/net/ifb.c.
"""

from __future__ import annotations

import contextlib
import socket

from runtime.kernelmodules import BANDWIDTH
from runtime.net import commands, netns
from runtime.net.errors import NetworkFault

# What may go at once: as much as 10 ms make, since kernels fill buckets no more often (CONFIG_HZ=100).
_BURST_S, _LEAST_BURST_BYTES = 0.01, 16384
# What waits at most, on top of that; ten frames where the rate is low.
_QUEUE_S, _LEAST_QUEUE_FRAMES = 0.05, 10
_EARLIER = "limit0"  # in a private network that an earlier version made, before devices had the zone's number


def device_of(host: int) -> str:
    """The device in the way from a zone, by the zone's number in its network."""
    return f"limit{host}"


def tc_lines(vif: str, device: str, bit_s: int, mtu: int) -> list[str]:
    """The lines for one `tc -batch -`; they hold whatever there was before.

    A bucket is made anew each time, by way of another kind of queue. Changed as it is, a smaller one would keep frames
    in its queue that are larger than it is, and stand still for good: net/sched/sch_tbf.c looks at sizes as they come.
    """
    burst = max(int(bit_s / 8 * _BURST_S), 2 * mtu, _LEAST_BURST_BYTES)
    most = burst + max(int(bit_s / 8 * _QUEUE_S), _LEAST_QUEUE_FRAMES * mtu)
    bucket = f"root tbf rate {bit_s}bit burst {burst} limit {most}"
    return [
        *(f"qdisc replace dev {link} {queue}" for link in (vif, device) for queue in ("root pfifo", bucket)),
        f"qdisc replace dev {vif} ingress",
        # The handle makes it the same filter each time.
        f"filter replace dev {vif} parent ffff: protocol all prio 1 handle 800::800 u32 match u32 0 0"
        f" action mirred egress redirect dev {device}",
    ]


class Bandwidth:
    """The limit of one zone, as it is and for the vifs to come."""

    def __init__(self, namespace: str, device: str, mtu: int, bit_s: int, *, subject: str) -> None:
        self._namespace, self._device, self._mtu = namespace, device, mtu
        self._bit_s, self._subject = bit_s, subject

    def attach(self, vif: str) -> None:
        """Hold a new vif to it. Raises NetworkFault."""
        if self._bit_s:
            self._hold(vif, self._bit_s)

    def change(self, vif: str, bit_s: int) -> None:
        """Another limit, 0 for none; vif: the one there is, or "". Raises NetworkFault; all is as before then."""
        if vif:
            try:
                self._hold(vif, bit_s)
            except NetworkFault:
                with contextlib.suppress(NetworkFault):
                    self._hold(vif, self._bit_s)
                raise
        self._bit_s = bit_s

    def _hold(self, vif: str, bit_s: int) -> None:
        netns.inside(self._namespace, lambda: limit(vif, self._device, bit_s, self._mtu, subject=self._subject))


def limit(vif: str, device: str, bit_s: int, mtu: int, *, subject: str) -> None:
    """Hold a vif of the calling thread's namespace to a rate, both ways; 0 for none. Raises NetworkFault."""
    there = [name for name in (device, _EARLIER) if _is_there(name)]
    if not bit_s:
        if there:
            # Replaced first: a change that came to nothing may have left only a part of it, and tc removes none twice.
            queues = ("replace dev {} root pfifo", "del dev {} root", "replace dev {} ingress", "del dev {} ingress")
            _feed("tc", [f"qdisc {each.format(vif)}" for each in queues], subject)
            _feed("ip", [f"link del {name}" for name in there], subject)
        return
    lines = [] if device in there else [f"link add {device} mtu {mtu} type ifb"]
    _feed("ip", [*lines, f"link set {device} up"], subject)
    _feed("tc", tc_lines(vif, device, bit_s, mtu), subject)
    if _EARLIER in there:  # nothing leads to it any more
        _feed("ip", [f"link del {_EARLIER}"], subject)


def remove(device: str, *, subject: str) -> None:
    """Remove a zone's device from the calling thread's namespace; harmless without. Raises NetworkFault."""
    if _is_there(device):
        _feed("ip", [f"link del {device}"], subject)


def _is_there(device: str) -> bool:
    return device in (name for _, name in socket.if_nameindex())


def _feed(program: str, lines: list[str], subject: str) -> None:
    try:
        commands.feed([program, "-batch", "-"], "\n".join(lines) + "\n", subject=subject)
    except NetworkFault as fault:
        hint = fault.hint or f"kernel modules {', '.join(BANDWIDTH)}"
        raise NetworkFault(f"{subject}, bandwidth", expected=fault.expected, got=fault.got, hint=hint) from fault
