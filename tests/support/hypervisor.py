"""A Xen that runs in the test: takes hypercalls as bytes, simulates memory, checks page tables before it pins them.

Fresh memory holds garbage, so that what the builder forgets to zero is seen. Every call through the door is counted and
can be made to fail: `fail_at = n` makes the n-th one fail.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import uuid as uuids
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runtime.boot.errors import HypervisorFault
from runtime.boot.privcmd import Buffer

PAGE = 4096
GARBAGE = b"\xa5" * PAGE


@dataclass
class FakeDomain:
    uuid: str
    handle: bytes
    max_vcpus: int = 0
    max_kib: int = 0
    address_size: int = 0
    p2m: dict[int, int] = field(default_factory=dict)
    shared_info_mfn: int = 0
    unbound: dict[int, int] = field(default_factory=dict)
    pinned_l4: int | None = None
    context: bytes = b""
    hypercall_page: int | None = None
    memory_map_bytes: int = 0
    grants: bytearray = field(default_factory=lambda: bytearray(PAGE))
    online_vcpus: int = 1
    granted: dict[int, bytearray] = field(default_factory=dict)  # pages by reference, truly shared with who maps them
    paused: bool = True
    dying: bool = False
    shutdown: int | None = None
    share: tuple[int, int] = (256, 0)  # weight, cap
    ballooned_pages: int = 0  # beside those it was built with


class FakeChannel:
    """An event channel without events; closing is counted by its Xen."""

    def __init__(self, xen: FakeXen, domid: int, port: int) -> None:
        self.xen, self.domid, self.port, self.notified = xen, domid, port, 0
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK)
        xen.channels.append(self)

    def fileno(self) -> int:
        return self.read_end

    def fire(self) -> None:
        os.write(self.write_end, b"e")

    def acknowledge(self) -> None:
        try:
            os.read(self.read_end, 64)
        except BlockingIOError:
            return

    def notify(self) -> None:
        self.notified += 1

    def close(self) -> None:
        if self in self.xen.channels:
            self.xen.channels.remove(self)
            os.close(self.read_end)
            os.close(self.write_end)


class FakeXen:
    """Implements runtime.boot.privcmd.Door."""

    def __init__(
        self, *, domctl: int = 0x15, sysctl: int = 0x15, total_pages: int = 8 << 18, big_blocks: int = 1 << 30
    ):
        self.domctl, self.sysctl = domctl, sysctl
        self.free, self.big_blocks = total_pages, big_blocks
        self.total = total_pages
        self.pages: dict[int, bytearray] = {}
        self.owners: dict[int, int] = {}
        self.domains: dict[int, FakeDomain] = {0: FakeDomain("dom0", bytes(16), paused=False)}
        self.next_domid, self.next_block, self.next_page = 1, 5, 1
        self.open_maps: list[list[int]] = []
        self.open_buffers = 0
        self.channels: list[FakeChannel] = []
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.lingering: set[int] = set()  # domids that stay dying after destroy
        self.refusing_l4 = ""
        self.cpus: list[tuple[int, int, int]] = [(0, 0, 0), (1, 0, 0)]  # core, socket, node
        self.console = b"(XEN) Xen version 4.17\n"
        self.scheduler = 6  # credit2
        self.console_start = 0  # characters that have left the ring
        self.ports: dict[int, tuple[int, int, int]] = {}  # dom0's: port -> (status, remote domid, remote port)

    # -- what tests ask

    def leftovers(self) -> list[str]:
        """What a boot that is undone must not leave."""
        left = [f"domain {domid}" for domid in self.domains if domid]
        left += [f"mapping of {len(mfns)} pages" for mfns in self.open_maps]
        left += [f"channel {channel.port}" for channel in self.channels]
        left += ["hypercall buffer"] * self.open_buffers
        return left + ([] if self.free == self.total else [f"{self.total - self.free} pages"])

    def guest_page(self, domid: int, pfn: int) -> bytes:
        return bytes(self._page(self.domains[domid].p2m[pfn]))

    def guest_bytes(self, domid: int, pfn: int, size: int) -> bytes:
        return b"".join(self.guest_page(domid, pfn + i) for i in range(-(-size // PAGE)))[:size]

    def walk(self, l4_mfn: int, vaddr: int) -> tuple[int, int] | None:
        """(mfn, L1 entry) behind a virtual address, through the tables in simulated memory."""
        table = l4_mfn
        for shift in (39, 30, 21, 12):
            (entry,) = struct.unpack_from("<Q", self._page(table), (vaddr >> shift & 511) * 8)
            if not entry & 1:
                return None
            table = entry >> 12 & (1 << 40) - 1
        return table, entry

    # -- the door

    def hypercall(self, name: str, number: int, *arguments: int) -> int:
        self._point(name)
        handlers = {12: self._memory_op, 17: self._version, 26: self._mmuext, 32: self._evtchn, 35: self._sysctl}
        handlers |= {20: self._grant_table, 36: self._domctl}
        return handlers[number](name, *arguments)

    @contextmanager
    def buffer(self, size_bytes: int) -> Iterator[Buffer]:
        self._point("buffer")
        memory = (ctypes.c_ubyte * size_bytes)()
        self.open_buffers += 1
        try:
            yield Buffer(ctypes.addressof(memory), memoryview(memory).cast("B"))
        finally:
            self.open_buffers -= 1

    @contextmanager
    def map_foreign(self, domid: int, mfns: array[int]) -> Iterator[memoryview]:
        self._point(f"map {len(mfns)}")
        wanted = list(mfns)
        for mfn in wanted:
            if self.owners.get(mfn) != domid:
                raise self._fault("map", errno.EINVAL)
        memory = bytearray().join(self._page(mfn) for mfn in wanted)
        self.open_maps.append(wanted)
        view = memoryview(memory)
        try:
            yield view
        finally:
            self.open_maps.remove(wanted)
            view.release()
            for index, mfn in enumerate(wanted):
                if mfn in self.owners:
                    self.pages[mfn] = memory[index * PAGE : (index + 1) * PAGE]

    @contextmanager
    def map_grant_table(self, domid: int, nr_frames: int = 1) -> Iterator[memoryview]:
        self._point("map grant table")
        if domid not in self.domains:
            raise self._fault("map grant table", errno.ESRCH)
        assert nr_frames * PAGE == len(self.domains[domid].grants)
        self.open_maps.append([])
        view = memoryview(self.domains[domid].grants)
        try:
            yield view
        finally:
            self.open_maps.pop()
            view.release()

    @contextmanager
    def map_grant(self, domid: int, reference: int) -> Iterator[memoryview]:
        self._point("map grant")
        if domid not in self.domains or reference not in self.domains[domid].granted:
            raise self._fault(f"map grant {reference}", errno.EINVAL)
        held = [-reference]
        self.open_maps.append(held)
        view = memoryview(self.domains[domid].granted[reference])
        try:
            yield view
        finally:
            self.open_maps.remove(held)
            view.release()

    def bind_event_channel(self, domid: int, port: int) -> FakeChannel:
        self._point("bind")
        taken = any(channel.domid == domid and channel.port == port for channel in self.channels)
        if self.domains[domid].unbound.get(port) != 0 or taken:
            raise self._fault("bind", errno.EINVAL)
        channel = FakeChannel(self, domid, port)
        channel.fire()  # Xen sets off a channel when it is bound
        return channel

    def close(self) -> None:
        pass

    # -- behind it

    def _point(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_at is not None and len(self.calls) == self.fail_at:
            raise self._fault(name, errno.EIO)

    def _fault(self, name: str, number: int) -> HypervisorFault:
        fault = HypervisorFault(name, got=errno.errorcode[number])
        fault.errno = number
        return fault

    def _page(self, mfn: int) -> bytearray:
        return self.pages.setdefault(mfn, bytearray(GARBAGE))

    def _get(self, address: int, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, ctypes.string_at(address, struct.calcsize(layout)))

    def _put(self, address: int, data: bytes) -> None:
        ctypes.memmove(address, data, len(data))

    def _version(self, name: str, operation: int, address: int) -> int:
        if operation == 3:
            self._put(address, b"xen-3.0-x86_64 hvm-3.0-x86_64\0")
            return 0
        return 4 << 16 | 17

    def _sysctl(self, name: str, address: int) -> int:
        command, version = self._get(address, "<II")
        if version != self.sysctl:
            raise self._fault(name, errno.EACCES)
        if command == 6:
            first, room, buffer, _ = self._get(address + 8, "<HxxIQI")
            found = sorted(d for d in self.domains if d >= first)[:room]
            for domid in found:
                self._put(buffer, self._info(domid))
            self._put(address + 8 + 16, struct.pack("<I", len(found)))
            return 0
        if command == 1:
            clear, incremental, index, buffer, room = self._get(address + 8, "<BBxxIQI")
            assert (clear, incremental) == (0, 1)
            start = max(index, self.console_start)
            text = self.console[start - self.console_start :][:room]
            self._put(buffer, text)
            self._put(address + 8 + 4, struct.pack("<I", start + len(text)))
            self._put(address + 8 + 16, struct.pack("<I", len(text)))
            return 0
        if command == 16:
            room, buffer = self._get(address + 8, "<IxxxxQ")
            for number, cpu in enumerate(self.cpus[:room] if buffer else ()):
                self._put(buffer + 12 * number, struct.pack("<III", *cpu))
            self._put(address + 8, struct.pack("<I", len(self.cpus)))
            return 0
        assert command == 3
        counts = (1, len(self.cpus), len(self.cpus), 0, 1, 0, 2_000_000, 0, 0, 0)
        self._put(address + 8, struct.pack("<10I3Q", *counts, self.total, self.free, 0))
        return 0

    def _grant_table(self, name: str, operation: int, address: int, count: int) -> int:
        assert (operation, count) == (6, 1)
        (domid,) = self._get(address, "<H")
        if domid not in self.domains:
            raise self._fault(name, errno.ESRCH)
        self._put(address + 4, struct.pack("<IIh", len(self.domains[domid].grants) // PAGE, 64, 0))
        return 0

    def _evtchn(self, name: str, operation: int, address: int) -> int:
        if operation == 5:
            dom, port = self._get(address, "<HxxI")
            if dom == 0x7FF0:
                table = self.ports
            else:
                table = {port: (1, remote, 0) for port, remote in self.domains[dom].unbound.items()}
            if port > max(table, default=0):
                raise self._fault(name, errno.EINVAL)
            status, remote, remote_port = table.get(port, (0, 0, 0))
            self._put(address + 8, struct.pack("<IIHxxI", status, 0, remote, remote_port))
            return 0
        assert operation == 6
        dom, remote = self._get(address, "<HH")
        port = len(self.domains[dom].unbound) + 1
        self.domains[dom].unbound[port] = remote
        self._put(address + 4, struct.pack("<I", port))
        return 0

    def _memory_op(self, name: str, operation: int, address: int) -> int:
        if operation == 13:
            domid, entries, buffer = self._get(address, "<HxxxxxxIxxxxQ")
            start, size, kind = self._get(buffer, "<QQI")
            assert (entries, start, kind) == (1, 0, 1)
            self.domains[domid].memory_map_bytes = size
            return 0
        assert operation == 6
        extents, count, order, _flags, domid = self._get(address, "<QQIIH")
        domain, done = self.domains[domid], 0
        for index in range(count):
            (pfn,) = self._get(extents + 8 * index, "<Q")
            if self.free < 1 << order or (order and not self.big_blocks):
                break
            if len(domain.p2m) + (1 << order) > domain.max_kib // 4:
                break
            mfn = self._allocate(order)
            for offset in range(1 << order):
                assert pfn + offset not in domain.p2m
                domain.p2m[pfn + offset] = mfn + offset
                self.owners[mfn + offset] = domid
            self._put(extents + 8 * index, struct.pack("<Q", mfn))
            done += 1
        return done

    def _allocate(self, order: int) -> int:
        self.free -= 1 << order
        if order:
            assert order == 9
            self.big_blocks -= 1
            self.next_block += 3 if self.next_block % 2 else 1  # neighbours now and then
            return 0x100000 + (self.next_block << 9)
        self.next_page += 2 if self.next_page % 5 else 1
        return 0x10000 + self.next_page

    def _mmuext(self, name: str, address: int, count: int, done: int, domid: int) -> int:
        command, mfn, _ = self._get(address, "<IxxxxQQ")
        assert (command, count) == (3, 1)
        problem = self._why_not_pin(domid, mfn)
        if problem:
            self.refusing_l4 = problem
            raise self._fault(name, errno.EINVAL)
        self.domains[domid].pinned_l4 = mfn
        return 0

    def _why_not_pin(self, domid: int, l4_mfn: int) -> str:
        mapped = {mfn for mfns in self.open_maps for mfn in mfns}
        tables: dict[int, int] = {l4_mfn: 4}
        writable: set[int] = set()
        level_now = [l4_mfn]
        for level in (4, 3, 2, 1):
            below: list[int] = []
            for table in level_now:
                for index, entry in enumerate(struct.unpack("<512Q", self._page(table))):
                    if not entry & 1:
                        if entry:
                            return f"entry {entry:#x} that is neither empty nor present"
                        continue
                    if level == 4 and 256 <= index < 272:
                        return "an entry in Xen's own slots"
                    mfn = entry >> 12
                    if self.owners.get(mfn) != domid:
                        return f"mfn {mfn:#x} of somebody else"
                    if level == 1:
                        writable.update([mfn] if entry & 2 else [])
                        continue
                    if tables.setdefault(mfn, level - 1) != level - 1:
                        return f"mfn {mfn:#x} at two levels"
                    below.append(mfn)
            level_now = below
        if writable & tables.keys():
            return "a page table is writable to the guest"
        return "a page table is mapped by dom0" if mapped & tables.keys() else ""

    def _domctl(self, name: str, address: int) -> int:
        command, version, domid = self._get(address, "<IIH")
        if version != self.domctl:
            raise self._fault(name, errno.EACCES)
        union = address + 16
        if command == 1:
            return self._create(address, union)
        if command == 5:
            # Xen 4.17 goes on to the next domain, 4.20 (whose domctl is 0x17) does not.
            found = min((d for d in self.domains if d >= domid), default=None)
            if found is None or (found != domid and self.domctl >= 0x17):
                raise self._fault(name, errno.ESRCH)
            self._put(union, self._info(found))
            return 0
        if domid not in self.domains:
            raise self._fault(name, errno.ESRCH)
        self._domain_command(command, domid, union)
        return 0

    def _domain_command(self, command: int, domid: int, union: int) -> None:
        domain = self.domains[domid]
        if command == 2:
            domain.dying = True
            self.release(domid)
        elif command == 4:
            domain.paused = False
        elif command == 11:
            (domain.max_kib,) = self._get(union, "<Q")
        elif command == 12:
            vcpu, pointer = self._get(union, "<IxxxxQ")
            assert vcpu == 0
            domain.context = ctypes.string_at(pointer, 5168)
        elif command == 15:
            assert self._get(union, "<I") == (domain.max_vcpus,)
        elif command == 16:
            self._schedule(domain, union)
        elif command == 22:
            (domain.hypercall_page,) = self._get(union, "<Q")
        elif command == 35:
            (domain.address_size,) = self._get(union, "<I")
        else:
            raise AssertionError(f"domctl {command}")

    def _schedule(self, domain: FakeDomain, union: int) -> None:
        scheduler, operation, *share = self._get(union, "<IIHH")
        if scheduler != self.scheduler:
            raise self._fault("domctl scheduler_op", errno.EINVAL)
        if operation == 0:
            domain.share = (share[0], share[1])
        self._put(union + 8, struct.pack("<HH", *domain.share))

    def release(self, domid: int) -> None:
        """What Xen does when nobody holds a dying domain any more."""
        held = {mfn for mfns in self.open_maps for mfn in mfns}
        domain = self.domains[domid]
        mine = [mfn for mfn, owner in self.owners.items() if owner == domid]
        if domid in self.lingering or held & set(mine):
            return
        for mfn in mine:
            del self.owners[mfn]
            self.pages.pop(mfn, None)
        self.free += len(domain.p2m) + domain.ballooned_pages
        del self.domains[domid]

    def balloon(self, domid: int, pages: int) -> None:
        """A guest takes memory, or gives some back, until it has so many pages."""
        domain = self.domains[domid]
        more = pages - len(domain.p2m) - domain.ballooned_pages
        domain.ballooned_pages += more
        self.free -= more

    def _create(self, address: int, union: int) -> int:
        layout = "<I16sIIIIiiI" + ("I" if self.domctl >= 0x17 else "") + "IIII"
        fields = self._get(union, layout)
        assert fields[2:4] == (0, 0)
        assert fields[5:9] == (1023, -1, -1, 2)
        assert not any(fields[9:])
        domid, self.next_domid = self.next_domid, self.next_domid + 1
        handle = bytes(fields[1])  # type: ignore[call-overload]
        domain = FakeDomain(str(uuids.UUID(bytes=handle)), handle, max_vcpus=fields[4])
        domain.shared_info_mfn = 0x5000 + domid
        self.owners[domain.shared_info_mfn] = domid
        self.domains[domid] = domain
        self._put(address + 8, struct.pack("<H", domid))
        return 0

    def _info(self, domid: int) -> bytes:
        domain = self.domains[domid]
        reason = 0xFF if domain.shutdown is None else domain.shutdown
        flags = int(domain.dying) | (domain.shutdown is not None) << 2 | int(domain.paused) << 3 | reason << 16
        pages = len(domain.p2m) + domain.ballooned_pages
        counts = (pages, domain.max_kib // 4, 0, 0, 0, domain.shared_info_mfn, 0)
        return struct.pack("<HxxI7QIII16s", domid, flags, *counts, domain.online_vcpus, 0, 0, domain.handle)
