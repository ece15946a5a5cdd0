"""Hypercalls as small methods, over a door; and the opening of the real one, which finds the interface versions."""

from __future__ import annotations

import errno
import uuid as uuids
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from runtime.boot.abi import domctl as abi
from runtime.boot.abi import hypercall, sysctl
from runtime.boot.abi.start_info import SHUTDOWN_REASONS
from runtime.boot.errors import HypervisorFault, NotOnXen
from runtime.boot.model import Domid, EvtchnPort, GrantRef, Mfn
from runtime.boot.privcmd import Door, EventChannel, Privcmd

_POPULATE_BATCH = 1 << 16  # extents per hypercall: half a megabyte of hypercall memory
_CAPABILITIES = Path("/proc/xen/capabilities")
_WRONG_VERSION = (errno.EACCES, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class DomainInfo:
    """What Xen says of a domain. reason is that of its shutdown, "" while it runs.

    max_pages:     what it may have at most now (domctl max_mem).
    online_vcpus:  those the guest has brought up.
    """

    domid: Domid
    uuid: str
    dying: bool
    paused: bool
    reason: str
    tot_pages: int
    shared_info_mfn: Mfn
    cpu_time_ns: int
    max_pages: int = 0
    online_vcpus: int = 0


class Hypervisor:
    """Xen, as the builder needs it. Each method is one hypercall or mapping; every failure is a HypervisorFault."""

    def __init__(self, door: Door) -> None:
        """Find the interface versions.

        Raises:  NotOnXen where none of ours is spoken.
        """
        self._door = door
        self._domctl_version = self._probe("domctl", abi.DOMCTL_VERSIONS, self._try_domctl)
        self._sysctl_version = self._probe("sysctl", sysctl.SYSCTL_VERSIONS, self._try_sysctl)

    @property
    def domctl_version(self) -> int:
        """0x15 for Xen 4.17, and so on."""
        return self._domctl_version

    def xen_version(self) -> str:
        """Such as "4.17"."""
        number = self._door.hypercall("xen_version", hypercall.XEN_VERSION, hypercall.XENVER_VERSION, 0)
        return f"{number >> 16}.{number & 0xFFFF}"

    def capabilities(self) -> tuple[str, ...]:
        """The kinds of guest this Xen runs; PV is "xen-3.0-x86_64"."""
        with self._door.buffer(hypercall.CAPABILITIES_BYTES) as buffer:
            self._door.hypercall("xen_version", hypercall.XEN_VERSION, hypercall.XENVER_CAPABILITIES, buffer.address)
            return tuple(bytes(buffer.view).split(b"\0")[0].decode("ascii", "replace").split())

    @property
    def door(self) -> Door:
        """For the hypercalls that are not about a domain of ours (`machine.py`)."""
        return self._door

    def free_pages(self) -> int:
        """Pages Xen can still give away."""
        reply = self.sysctl("physinfo", sysctl.PHYSINFO)
        *_, free, scrub = sysctl.PHYSINFO_STRUCT.unpack_from(reply)
        return int(free + scrub)

    def sysctl(self, name: str, command: int, payload: bytes = b"") -> bytes:
        """A sysctl; the union as Xen left it."""
        return self._sysctl_at(self._sysctl_version, name, command, payload)

    def create_domain(self, uuid: str, *, max_vcpus: int) -> Domid:
        """Make an empty, paused PV domain; Xen chooses its domid."""
        handle = uuids.UUID(uuid).bytes
        limits = (abi.MAX_EVTCHN_PORT, abi.HYPERVISOR_DEFAULT, abi.HYPERVISOR_DEFAULT)
        fields = (0, handle, 0, 0, max_vcpus, *limits, abi.GRANT_VERSION_MAX)
        if self._domctl_version >= abi.FIRST_VERSION_WITH_ALTP2M:
            payload = abi.CREATEDOMAIN_4_19.pack(*fields, 0, 0, 0, 0, 0)
        else:
            payload = abi.CREATEDOMAIN_4_17.pack(*fields, 0, 0, 0, 0)
        reply = self.domctl("createdomain", abi.CREATEDOMAIN, Domid(0), payload)
        return Domid(int.from_bytes(reply[abi.DOMCTL_DOMAIN_OFFSET : abi.DOMCTL_DOMAIN_OFFSET + 2], "little"))

    def set_max_vcpus(self, domid: Domid, count: int) -> None:
        """Make the vCPUs."""
        self.domctl("max_vcpus", abi.MAX_VCPUS, domid, abi.U32.pack(count))

    def set_max_memory(self, domid: Domid, kib: int) -> None:
        """Limit the domain's memory."""
        self.domctl("max_mem", abi.MAX_MEM, domid, abi.U64.pack(kib))

    def set_address_size(self, domid: Domid, bits: int) -> None:
        """Make it a 64-bit guest."""
        self.domctl("set_address_size", abi.SET_ADDRESS_SIZE, domid, abi.U32.pack(bits))

    def set_memory_map(self, domid: Domid, size_bytes: int) -> None:
        """Tell the guest up to where it may grow; without this it takes its first memory for all there can be.

        Source:  xen/include/public/memory.h, XENMEM_set_memory_map.
        """
        with self._door.buffer(64) as buffer:
            at = hypercall.FOREIGN_MEMORY_MAP.size
            hypercall.FOREIGN_MEMORY_MAP.pack_into(buffer.view, 0, domid, 1, buffer.address + at)
            hypercall.E820_ENTRY.pack_into(buffer.view, at, 0, size_bytes, hypercall.E820_RAM)
            self._memory_op("set_memory_map", hypercall.XENMEM_SET_MEMORY_MAP, buffer.address)

    def populate(self, domid: Domid, pfns: array[int], order: int) -> array[int]:
        """Give memory to a domain: 2**order pages from each pfn.

        Shape:   result[i] is the first mfn of pfns[i]; shorter than pfns where Xen had no more of this order.
        """
        mfns = array("Q")
        for start in range(0, len(pfns), _POPULATE_BATCH):
            batch = pfns[start : start + _POPULATE_BATCH]
            with self._door.buffer(hypercall.MEMORY_RESERVATION.size + 8 * len(batch)) as buffer:
                at = hypercall.MEMORY_RESERVATION.size
                buffer.view[at:] = batch.tobytes()
                reservation = (buffer.address + at, len(batch), order, 0, domid)
                hypercall.MEMORY_RESERVATION.pack_into(buffer.view, 0, *reservation)
                done = self._memory_op("populate_physmap", hypercall.XENMEM_POPULATE_PHYSMAP, buffer.address)
                mfns.frombytes(buffer.view[at : at + 8 * done])
            if done < len(batch):
                break
        return mfns

    def map_foreign(self, domid: Domid, mfns: array[int]) -> AbstractContextManager[memoryview]:
        """Pages of a domain as one view; unmapped at exit."""
        return self._door.map_foreign(domid, mfns)

    def map_grant_table(self, domid: Domid) -> AbstractContextManager[memoryview]:
        """The first page of a domain's grant table."""
        return self._door.map_grant_table(domid)

    def map_grant(self, domid: Domid, reference: GrantRef) -> AbstractContextManager[memoryview]:
        """A page a domain has granted us; unmapped at exit."""
        return self._door.map_grant(domid, reference)

    def alloc_unbound(self, domid: Domid, remote: Domid) -> EvtchnPort:
        """Make a port in `domid` that `remote` may bind to."""
        with self._door.buffer(hypercall.EVTCHN_ALLOC_UNBOUND.size) as buffer:
            hypercall.EVTCHN_ALLOC_UNBOUND.pack_into(buffer.view, 0, domid, remote, 0)
            number, operation = hypercall.EVENT_CHANNEL_OP, hypercall.EVTCHNOP_ALLOC_UNBOUND
            self._door.hypercall("evtchn alloc_unbound", number, operation, buffer.address)
            return EvtchnPort(hypercall.EVTCHN_ALLOC_UNBOUND.unpack(buffer.view)[2])

    def bind(self, domid: Domid, port: EvtchnPort) -> EventChannel:
        """Join a port made by alloc_unbound."""
        return self._door.bind_event_channel(domid, port)

    def hypercall_init(self, domid: Domid, mfn: Mfn) -> None:
        """Have Xen write the hypercall page of a kernel that brings one."""
        self.domctl("hypercall_init", abi.HYPERCALL_INIT, domid, abi.U64.pack(mfn))

    def pin_l4(self, domid: Domid, mfn: Mfn) -> None:
        """Have Xen check the page tables and hold them. Fails while any of them is still mapped writable."""
        with self._door.buffer(hypercall.MMUEXT_OP_STRUCT.size) as buffer:
            hypercall.MMUEXT_OP_STRUCT.pack_into(buffer.view, 0, hypercall.MMUEXT_PIN_L4_TABLE, mfn, 0)
            self._door.hypercall("mmuext pin L4", hypercall.MMUEXT_OP, buffer.address, 1, 0, domid)

    def set_vcpu_context(self, domid: Domid, vcpu: int, context: bytes) -> None:
        """Give a vCPU its registers."""
        with self._door.buffer(len(context)) as buffer:
            buffer.view[:] = context
            payload = abi.VCPUCONTEXT.pack(vcpu, buffer.address)
            self.domctl("setvcpucontext", abi.SETVCPUCONTEXT, domid, payload)

    def unpause(self, domid: Domid) -> None:
        """Let it run."""
        self.domctl("unpausedomain", abi.UNPAUSEDOMAIN, domid)

    def destroy_domain(self, domid: Domid) -> None:
        """End a domain. It stays as a dying one until nobody holds its pages; a domain that is gone is fine."""
        try:
            self.domctl("destroydomain", abi.DESTROYDOMAIN, domid)
        except HypervisorFault as fault:
            if fault.errno != errno.ESRCH:
                raise

    def domain_info(self, domid: Domid) -> DomainInfo | None:
        """A domain, or None where Xen knows none of this id."""
        if domid >= hypercall.DOMID_FIRST_RESERVED:
            return None
        try:
            reply = self.domctl("getdomaininfo", abi.GETDOMAININFO, domid)
        except HypervisorFault as fault:
            if fault.errno == errno.ESRCH:
                return None
            raise
        info = _domain_info(reply, abi.DOMCTL_UNION_OFFSET)
        # Asked for an id that is free, older versions of Xen answer with the next domain.
        return info if info.domid == domid else None

    def domains(self) -> Iterator[DomainInfo]:
        """All domains, dying ones included.

        By sysctl: asked for an id that is free, the domctl finds the next domain in Xen 4.17 and none in 4.20.
        """
        domid = 0
        while domid < hypercall.DOMID_FIRST_RESERVED and (info := self._next_domain(Domid(domid))) is not None:
            yield info
            domid = info.domid + 1

    def find_domain(self, uuid: str) -> DomainInfo | None:
        """The domain of this uuid. Domids are used again; uuids are not."""
        return next((info for info in self.domains() if info.uuid == uuid), None)

    def close(self) -> None:
        """Close the door."""
        self._door.close()

    def _next_domain(self, domid: Domid) -> DomainInfo | None:
        with self._door.buffer(sysctl.DOMAININFO_ROOM_BYTES) as entry:
            payload = sysctl.DOMAININFOLIST.pack(domid, 1, entry.address, 0)
            reply = self.sysctl("getdomaininfolist", sysctl.GETDOMAININFOLIST, payload)
            *_, found = sysctl.DOMAININFOLIST.unpack_from(reply)
            return _domain_info(bytes(entry.view), 0) if found else None

    def _memory_op(self, name: str, operation: int, address: int) -> int:
        return self._door.hypercall(name, hypercall.MEMORY_OP, operation, address)

    def domctl(self, name: str, command: int, domid: Domid, payload: bytes = b"") -> bytes:
        """A domctl; all of its structure as Xen left it."""
        return self._domctl_at(self._domctl_version, name, command, domid, payload)

    def _domctl_at(self, version: int, name: str, command: int, domid: Domid, payload: bytes) -> bytes:
        with self._door.buffer(abi.DOMCTL_BYTES) as buffer:
            abi.DOMCTL_HEADER.pack_into(buffer.view, 0, command, version, domid)
            at = abi.DOMCTL_UNION_OFFSET
            buffer.view[at : at + len(payload)] = payload
            subject = f"domctl {name}" + (f" of domain {domid}" if command != abi.CREATEDOMAIN else "")
            self._door.hypercall(subject, hypercall.DOMCTL, buffer.address)
            return bytes(buffer.view)

    def _try_domctl(self, version: int) -> None:
        self._domctl_at(version, "getdomaininfo", abi.GETDOMAININFO, Domid(0), b"")

    def _try_sysctl(self, version: int) -> None:
        self._sysctl_at(version, "physinfo", sysctl.PHYSINFO, b"")

    def _sysctl_at(self, version: int, name: str, command: int, payload: bytes) -> bytes:
        with self._door.buffer(sysctl.SYSCTL_BYTES) as buffer:
            sysctl.SYSCTL_HEADER.pack_into(buffer.view, 0, command, version)
            at = sysctl.SYSCTL_UNION_OFFSET
            buffer.view[at : at + len(payload)] = payload
            self._door.hypercall(f"sysctl {name}", hypercall.SYSCTL, buffer.address)
            return bytes(buffer.view[at:])

    def _probe(self, name: str, versions: tuple[int, ...], attempt: Callable[[int], None]) -> int:
        for version in versions:
            try:
                attempt(version)
            except HypervisorFault as fault:
                if fault.errno not in _WRONG_VERSION:
                    raise NotOnXen("hypervisor", got=str(fault), hint="is this the control domain?") from fault
                continue
            return version
        expected = f"a {name} interface of {versions[0]:#x} to {versions[-1]:#x} (Xen 4.17 to 4.22)"
        raise NotOnXen("hypervisor", expected=expected, got=f"Xen {self.xen_version()}")


def _domain_info(data: bytes, at: int) -> DomainInfo:
    fields = abi.DOMAININFO.unpack_from(data, at)
    found, flags, tot_pages, max_pages, *_, shared_info, cpu_time, online_vcpus, _, _, handle = fields
    reason = ""
    if flags & abi.DOMINF_SHUTDOWN:  # the reason is valid only then
        code = flags >> abi.DOMINF_SHUTDOWN_SHIFT & abi.DOMINF_SHUTDOWN_MASK
        reason = SHUTDOWN_REASONS.get(code, f"reason {code}")
    return DomainInfo(
        domid=Domid(found),
        uuid=str(uuids.UUID(bytes=handle)),
        dying=bool(flags & abi.DOMINF_DYING),
        paused=bool(flags & abi.DOMINF_PAUSED),
        reason=reason,
        tot_pages=tot_pages,
        shared_info_mfn=Mfn(shared_info),
        cpu_time_ns=cpu_time,
        max_pages=max_pages,
        online_vcpus=online_vcpus,
    )


def open_doors() -> Hypervisor:
    """Open this machine's Xen.

    Raises:  NotOnXen, saying what is missing.
    """
    try:
        capabilities = _CAPABILITIES.read_text("ascii")
    except OSError as error:
        hint = "not booted on Xen, or xenfs is not mounted"
        raise NotOnXen(str(_CAPABILITIES), got="not readable", hint=hint) from error
    if "control_d" not in capabilities:
        raise NotOnXen("this machine", expected="a control domain (dom0)", got="a guest of Xen")
    door = Privcmd()
    try:
        hypervisor = Hypervisor(door)
        kinds = hypervisor.capabilities()
        if "xen-3.0-x86_64" not in kinds:
            raise NotOnXen("hypervisor", expected="PV guests (xen-3.0-x86_64)", got=", ".join(kinds) or "none")
    except BaseException:
        door.close()
        raise
    return hypervisor
