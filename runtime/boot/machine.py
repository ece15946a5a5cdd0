"""The machine under Xen: its memory, its CPUs and how they lie, what Xen itself has said. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from runtime.boot.abi import hypercall, rings, sysctl
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault
from runtime.boot.model import Domid, EvtchnPort

_CONSOLE_CHUNK_BYTES = 32 << 10
_CONSOLE_LIMIT_BYTES = 4 << 20
_EXTRA_CPUS = 64  # room for CPUs that come between the two calls
# On hybrid parts a performance core takes a block of APIC ids (eight in fours or twos), efficiency cores one each.
_PERFORMANCE_STEP = 3


@dataclass(frozen=True)
class MachineInfo:
    """What there is of memory and CPUs, all domains together. Pages of 4 KiB."""

    cpus: int
    cores_per_socket: int
    threads_per_core: int
    nodes: int
    cpu_khz: int
    total_pages: int
    free_pages: int


class CpuClass(Enum):
    """The kind of a core on hybrid parts; STANDARD on all others."""

    STANDARD = "standard"
    PERFORMANCE = "performance"
    EFFICIENCY = "efficiency"


@dataclass(frozen=True)
class Cpu:
    """A CPU that is online. thread: which of its core's hardware threads it is, from 0."""

    cpu: int
    core: int
    socket: int
    node: int
    thread: int
    cpu_class: CpuClass


@dataclass(frozen=True)
class ChannelState:
    """An event channel of a domain that waits for, or is joined with, another domain."""

    port: EvtchnPort
    bound: bool
    remote_domid: Domid
    remote_port: EvtchnPort


@dataclass(frozen=True)
class Grant:
    """A page a domain lets another one map. in_use: it is mapped there now."""

    reference: int
    domid: Domid
    in_use: bool


def machine_info(hypervisor: Hypervisor) -> MachineInfo:
    """Memory and CPUs. Raises HypervisorFault."""
    fields = sysctl.PHYSINFO_STRUCT.unpack_from(hypervisor.sysctl("physinfo", sysctl.PHYSINFO))
    threads, cores, cpus, _, nodes, _, khz, _, _, total, free, scrub = fields
    return MachineInfo(cpus, cores, threads, nodes, khz, total, free + scrub)


def cpu_topology(hypervisor: Hypervisor) -> tuple[Cpu, ...]:
    """Every CPU that is online. Raises HypervisorFault."""
    empty = sysctl.CPUTOPOINFO_STRUCT.pack(0, 0)
    count, _ = sysctl.CPUTOPOINFO_STRUCT.unpack_from(hypervisor.sysctl("cputopoinfo", sysctl.CPUTOPOINFO, empty))
    room = count + _EXTRA_CPUS
    with hypervisor.door.buffer(room * sysctl.CPUTOPO.size) as buffer:
        payload = sysctl.CPUTOPOINFO_STRUCT.pack(room, buffer.address)
        reply = hypervisor.sysctl("cputopoinfo", sysctl.CPUTOPOINFO, payload)
        found, _ = sysctl.CPUTOPOINFO_STRUCT.unpack_from(reply)
        rows = [sysctl.CPUTOPO.unpack_from(buffer.view, at * sysctl.CPUTOPO.size) for at in range(min(found, room))]
    return describe_cpus(rows)


def describe_cpus(rows: Sequence[tuple[int, int, int]]) -> tuple[Cpu, ...]:
    """CPUs from Xen's rows (core, socket, node), one for each number; those offline are left out."""
    online = [(cpu, row) for cpu, row in enumerate(rows) if row[0] != sysctl.INVALID_CORE_ID]
    classes = {
        (socket, core): cpu_class
        for socket in {row[1] for _, row in online}
        for core, cpu_class in classify({row[0] for _, row in online if row[1] == socket}).items()
    }
    threads: dict[tuple[int, int], int] = {}
    cpus = []
    for cpu, (core, socket, node) in online:
        thread = threads.get((socket, core), 0)
        threads[socket, core] = thread + 1
        cpus.append(Cpu(cpu, core, socket, node, thread, classes[socket, core]))
    return tuple(cpus)


def classify(cores: set[int]) -> dict[int, CpuClass]:
    """The class of each core of one socket, by its core id's distance from its neighbours'.

    A core far from all neighbours is a performance core, one that follows another directly an efficiency core; where
    not both kinds are there the part is not hybrid.
    """
    ordered = sorted(cores)
    steps = [second - first for first, second in pairwise(ordered)]
    classes = {}
    for index, core in enumerate(ordered):
        around = steps[max(0, index - 1) : index + 1]
        if around and min(around) >= _PERFORMANCE_STEP:
            classes[core] = CpuClass.PERFORMANCE
        elif 1 in around:
            classes[core] = CpuClass.EFFICIENCY
        else:
            classes[core] = CpuClass.STANDARD
    if not {CpuClass.PERFORMANCE, CpuClass.EFFICIENCY} <= set(classes.values()):
        return dict.fromkeys(ordered, CpuClass.STANDARD)
    return classes


def console_text(hypervisor: Hypervisor) -> str:
    """What Xen has said, as far as its ring still holds it; nothing is taken out of the ring. Raises HypervisorFault.

    Source:  xen/drivers/char/console.c, read_console_ring: `index` counts all characters ever written.
    """
    text, index = bytearray(), 0
    while len(text) < _CONSOLE_LIMIT_BYTES:
        with hypervisor.door.buffer(_CONSOLE_CHUNK_BYTES) as buffer:
            payload = sysctl.READCONSOLE_STRUCT.pack(0, 1, index, buffer.address, _CONSOLE_CHUNK_BYTES)
            reply = hypervisor.sysctl("readconsole", sysctl.READCONSOLE, payload)
            *_, index, _, count = sysctl.READCONSOLE_STRUCT.unpack_from(reply)
            text += buffer.view[:count]
        if not count:
            break
    return text.decode("utf-8", "replace")


def channels(hypervisor: Hypervisor, domid: Domid) -> Iterator[ChannelState]:
    """The event channels of a domain (0 is this one) that lead to another domain. Raises HypervisorFault.

    Source:  xen/common/event_channel.c, evtchn_status: a port beyond those a domain has is EINVAL.
    """
    kinds = (hypercall.EVTCHNSTAT_UNBOUND, hypercall.EVTCHNSTAT_INTERDOMAIN)
    port = 1  # 0 is never given
    with hypervisor.door.buffer(hypercall.EVTCHN_STATUS.size) as buffer:
        while True:
            subject = domid or hypercall.DOMID_SELF
            hypercall.EVTCHN_STATUS.pack_into(buffer.view, 0, subject, port, 0, 0, 0, 0)
            try:
                number, operation = hypercall.EVENT_CHANNEL_OP, hypercall.EVTCHNOP_STATUS
                hypervisor.door.hypercall(f"event channel {port} of domain {domid}", number, operation, buffer.address)
            except HypervisorFault as fault:
                if fault.is_invalid:
                    return
                raise
            _, _, status, _, remote, remote_port = hypercall.EVTCHN_STATUS.unpack_from(buffer.view)
            if status in kinds:
                bound = status == hypercall.EVTCHNSTAT_INTERDOMAIN
                yield ChannelState(EvtchnPort(port), bound, Domid(remote), EvtchnPort(remote_port if bound else 0))
            port += 1


def grants(hypervisor: Hypervisor, domid: Domid) -> tuple[Grant, ...]:
    """What a domain lets others map, by version-1 entries, as Linux's are. Raises HypervisorFault."""
    size = rings.GRANT_ENTRY_V1.size
    with hypervisor.door.map_grant_table(domid, _grant_frames(hypervisor, domid)) as view:
        table = bytes(view)
    entries = (rings.GRANT_ENTRY_V1.unpack_from(table, at) for at in range(0, len(table), size))
    return tuple(
        Grant(reference, Domid(remote), bool(flags & rings.GTF_IN_USE))
        for reference, (flags, remote, _) in enumerate(entries)
        if flags & rings.GTF_TYPE_MASK == rings.GTF_PERMIT_ACCESS
    )


def _grant_frames(hypervisor: Hypervisor, domid: Domid) -> int:
    with hypervisor.door.buffer(hypercall.GNTTAB_QUERY_SIZE.size) as buffer:
        hypercall.GNTTAB_QUERY_SIZE.pack_into(buffer.view, 0, domid, 0, 0, 0)
        operation = (hypercall.GNTTABOP_QUERY_SIZE, buffer.address, 1)
        hypervisor.door.hypercall(f"grant table size of domain {domid}", hypercall.GRANT_TABLE_OP, *operation)
        _, frames, _, status = hypercall.GNTTAB_QUERY_SIZE.unpack_from(buffer.view)
    if status:
        raise HypervisorFault(f"grant table of domain {domid}", got=f"status {status}")
    return max(1, int(frames))
