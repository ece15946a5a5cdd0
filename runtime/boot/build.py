"""Builds a planned domain: the one place where a plan is applied to Xen and xenstore.

Whatever fails, or interrupts, everything taken is given back before the error leaves.
"""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.boot import ninepfs, nodes, p2m, pagetable, pvconsole, startinfo, vbd, vcpu, vif
from runtime.boot.abi import rings
from runtime.boot.abi.start_info import PAGE_SHIFT, PAGE_SIZE
from runtime.boot.channel import Channel
from runtime.boot.console import Console
from runtime.boot.domain import Domain
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import BadSpec, OutOfMemory
from runtime.boot.model import Domid, EvtchnPort, FileRange, Mfn, Node, Pfn
from runtime.boot.plan import PAGES_PER_MIB, DomainPlan
from runtime.boot.teardown import teardown

if TYPE_CHECKING:
    from runtime.boot.attend import Attendant
    from runtime.boot.xenstore import Transaction, XenStore

log = logging.getLogger(__name__)

RecordFunction = Callable[..., None]

_DOM0 = Domid(0)
_OVERHEAD_PAGES = 512  # what Xen takes beside the guest's own pages: domain, vCPUs, grant and event tables
_ZEROS = bytes(1 << 20)


def build_domain(
    plan: DomainPlan,
    hypervisor: Hypervisor,
    xenstore: XenStore,
    record: RecordFunction,
    *,
    console_log: Path,
    attendant: Attendant | None = None,
) -> Domain:
    """Build a domain; it is paused, its back ends are starting, its console is attached.

    Shape:   record(kind, **fields) must have made the record durable when it returns; see `teardown.py` for kinds.
             attendant serves the consoles, by default a thread for all zones of this process.
    Raises:  BadSpec, OutOfMemory, HypervisorFault, XenstoreFault; after each, and after any other exception, nothing
             of the domain is left. Where that cannot be done, a note on the exception says so.
    """
    builder = _Builder(plan, hypervisor, xenstore, record, attendant)
    try:
        return builder.build(console_log)
    except BaseException as problem:
        builder.undo(problem)
        raise


class _Builder:
    def __init__(
        self,
        plan: DomainPlan,
        hypervisor: Hypervisor,
        xenstore: XenStore,
        record: RecordFunction,
        attendant: Attendant | None,
    ) -> None:
        self._plan, self._spec, self._layout = plan, plan.spec, plan.layout
        self._hypervisor, self._xenstore, self._record_function = hypervisor, xenstore, record
        self._records: list[dict[str, Any]] = []
        self._attendant = attendant
        self._console: Console | None = None
        self._channel: Channel | None = None
        self._timings: dict[str, float] = {}

    def build(self, console_log: Path) -> Domain:
        """The steps, in the order of xen.md 4.3 but for the xenstore nodes, which come early: the back ends start
        while memory is filled."""
        spec, layout, hypervisor = self._spec, self._layout, self._hypervisor
        with self._phase("preflight"):
            devices = [(disk, vbd.device_number(disk.device)) for disk in spec.disks]
            self._check_free_memory()
        with self._phase("create"):
            domid = self._create()
        with self._phase("xenstore"):
            self._write_nodes(domid, devices)
        with self._phase("populate"):
            runs = self._populate(domid)
            table = p2m.plan_p2m(layout.nr_pages, runs)
        with self._phase("channels"):
            store = (Mfn(table[layout.store_pfn]), hypervisor.alloc_unbound(domid, _DOM0))
            console = (Mfn(table[layout.console_pfn]), hypervisor.alloc_unbound(domid, _DOM0))
        self._fill(domid, runs, table, store=store, console=console)
        with self._phase("start state"):
            self._start_state(domid, table)
        with self._phase("introduce"):
            self._seed_grants(domid, console=console[0], store=store[0])
            self._xenstore.introduce(domid, *store)
        with self._phase("console"):
            mfn, port = console
            self._record("console", domid=domid, uuid=spec.uuid, mfn=mfn, port=port, log=str(console_log))
            self._console = Console(
                hypervisor, domid, mfn, port, console_log, name=spec.name, attendant=self._attendant
            )
            if spec.agent_channel:
                self._record("channel", domid=domid, uuid=spec.uuid)
                self._channel = Channel(hypervisor, self._xenstore, domid, name=spec.name, attendant=self._attendant)
        return Domain(
            domid=domid,
            uuid=spec.uuid,
            name=spec.name,
            hypervisor=hypervisor,
            xenstore=self._xenstore,
            console=self._console,
            channel=self._channel,
            records=tuple(self._records),
            backend_domid=spec.backend_domid,
            has_vif=spec.vif is not None,
            timings=self._timings,
        )

    def undo(self, problem: BaseException) -> None:
        """Give everything back; a failure to do so becomes a note on `problem`."""
        try:
            for held in (self._channel, self._console):
                if held is not None:
                    held.close()
            teardown(self._records, self._hypervisor, self._xenstore)
        except Exception as second:
            log.warning("teardown after a failed build: %s", second)
            problem.add_note(f"and what was taken could not be given back: {second}")

    def _check_free_memory(self) -> None:
        needed = self._layout.nr_pages + _OVERHEAD_PAGES
        free = self._hypervisor.free_pages()
        if free < needed:
            expected = f"{-(-needed // PAGES_PER_MIB)} MiB of free memory in Xen"
            raise OutOfMemory(f"zone {self._spec.name}", expected=expected, got=f"{free // PAGES_PER_MIB} MiB")

    def _create(self) -> Domid:
        spec, hypervisor = self._spec, self._hypervisor
        self._record("domain", name=spec.name, uuid=spec.uuid)
        domid = hypervisor.create_domain(spec.uuid, max_vcpus=spec.most_vcpus)
        hypervisor.set_max_vcpus(domid, spec.most_vcpus)
        hypervisor.set_max_memory(domid, self._plan.max_memory_kib)
        hypervisor.set_address_size(domid, 64)
        if spec.most_memory_mib > spec.memory_mib:
            hypervisor.set_memory_map(domid, spec.most_memory_mib << 20)
        return domid

    def _write_nodes(self, domid: Domid, devices: list[tuple[Any, tuple[int, int]]]) -> None:
        spec = self._spec
        planned: list[Node] = nodes.plan_domain_nodes(spec, domid)
        for disk, number in devices:
            planned += vbd.plan_vbd(disk, domid, device_number=number, backend_domid=spec.backend_domid)
        if spec.vif is not None:
            planned += vif.plan_vif(spec.vif, domid, backend_domid=spec.backend_domid)
        for place, tag in enumerate(spec.shares):
            planned += ninepfs.plan_share(tag, place, domid)
        if spec.agent_channel:
            planned += pvconsole.plan_console(domid)
        self._record(
            "xenstore",
            domid=domid,
            uuid=spec.uuid,
            backend_domid=spec.backend_domid,
            has_vif=spec.vif is not None,
            disks=[[disk.vdev, disk.device] for disk in spec.disks],
            shares=list(range(len(spec.shares))),
            agent_channel=spec.agent_channel,
        )

        def write(transaction: Transaction) -> None:
            # A host that lost power, or another toolstack, may have left nodes under this domid.
            for path in nodes.stale_paths(domid, backend_domid=spec.backend_domid):
                transaction.remove(path)
            transaction.apply(planned)

        self._xenstore.transaction(write)

    def _populate(self, domid: Domid) -> list[p2m.Run]:
        runs: list[p2m.Run] = []
        for extent in self._plan.extents:
            wanted = extent
            mfns = self._take(domid, wanted)
            runs += p2m.runs_of(wanted._replace(nr_blocks=len(mfns)), mfns)
            if len(mfns) < wanted.nr_blocks and wanted.order:
                # Free memory is in smaller pieces than 2 MiB: take the rest page by page.
                first = wanted.pfn + (len(mfns) << wanted.order)
                wanted = p2m.Extent(Pfn(first), 0, (wanted.nr_blocks - len(mfns)) << wanted.order)
                mfns = self._take(domid, wanted)
                runs += p2m.runs_of(wanted._replace(nr_blocks=len(mfns)), mfns)
            if len(mfns) < wanted.nr_blocks:
                raise OutOfMemory(
                    f"zone {self._spec.name}",
                    expected=f"{self._layout.nr_pages // PAGES_PER_MIB} MiB from Xen",
                    got=f"{sum(run.nr_pages for run in runs) // PAGES_PER_MIB} MiB",
                )
        return runs

    def _take(self, domid: Domid, extent: p2m.Extent) -> array[int]:
        step = 1 << extent.order
        pfns = array("Q", range(extent.pfn, extent.pfn + extent.nr_blocks * step, step))
        return self._hypervisor.populate(domid, pfns, extent.order)

    def _fill(
        self,
        domid: Domid,
        runs: list[p2m.Run],
        table: array[int],
        *,
        store: tuple[Mfn, EvtchnPort],
        console: tuple[Mfn, EvtchnPort],
    ) -> None:
        """Write everything the guest starts with, through one mapping that is gone at return."""
        plan, layout = self._plan, self._layout
        info = self._hypervisor.domain_info(domid)
        if info is None:
            raise OutOfMemory(f"domain {domid}", got="it went away while it was built")
        # Two stretches of the guest (kernel to stack, p2m to initrd) and Xen's shared_info page, seen as one.
        low = range(layout.kernel_pfn, layout.stack_pfn + 1)
        high = range(layout.p2m.first_pfn, layout.end_pfn)
        mfns = table[low.start : low.stop] + table[high.start : high.stop] + array("Q", [info.shared_info_mfn])

        def at(pfn: int) -> int:
            index = pfn - low.start if pfn in low else len(low) + pfn - high.start
            return index << PAGE_SHIFT

        with ExitStack() as mapping:
            with self._phase("map"):
                view = mapping.enter_context(self._hypervisor.map_foreign(domid, mfns))
            with self._phase("kernel"):
                self._fill_kernel(view)
            with self._phase("initrd"):
                self._fill_initrd(view, at(layout.initrd_pfn))
            with self._phase("tables"):
                page = startinfo.plan_start_info(
                    layout,
                    plan.kernel,
                    self._spec.cmdline,
                    shared_info_mfn=info.shared_info_mfn,
                    store=store,
                    console=console,
                )
                _write(view, at(layout.start_info_pfn), page)
                for pfn in (layout.store_pfn, layout.console_pfn, layout.stack_pfn):
                    _zero(view, at(pfn), PAGE_SIZE)
                l4 = pagetable.empty_l4()
                main = pagetable.plan_tables(layout.main, l4, runs, table, read_only=layout.main_tables)
                upper = pagetable.plan_tables(layout.p2m, l4, runs, table)
                _write(view, at(layout.main.tables_pfn), main)
                _write(view, at(layout.p2m.tables_pfn), upper)
                _write(view, at(layout.p2m.first_pfn), table)
                _zero(view, at(layout.p2m.first_pfn) + 8 * len(table), -8 * len(table) % PAGE_SIZE)
                _write(view, at(layout.l4_pfn), l4)
                _write(view, len(mfns) - 1 << PAGE_SHIFT, startinfo.plan_shared_info())
            started = time.monotonic()
        self._timings["unmap"] = time.monotonic() - started

    def _fill_kernel(self, view: memoryview) -> None:
        kernel = self._spec.kernel
        with _opened(kernel) as descriptor:
            for fill in self._plan.kernel_area:
                if fill.source_offset is None:
                    _zero(view, fill.at, fill.size)
                else:
                    _read_into(view, fill.at, fill.size, descriptor, fill.source_offset, kernel)

    def _fill_initrd(self, view: memoryview, at: int) -> None:
        position = 0
        for part in self._plan.ramdisk:
            _zero(view, at + position, part.at - position)
            if part.source is None:
                _write(view, at + part.at, self._spec.launch_segment)
            else:
                with _opened(part.source) as descriptor:
                    _read_into(view, at + part.at, part.size_bytes, descriptor, 0, part.source)
            position = part.at + part.size_bytes
        _zero(view, at + position, -position % PAGE_SIZE)

    def _start_state(self, domid: Domid, table: array[int]) -> None:
        kernel, layout = self._plan.kernel, self._layout
        if kernel.hypercall_page_vaddr is not None:
            pfn = kernel.hypercall_page_vaddr - kernel.virt_base >> PAGE_SHIFT
            self._hypervisor.hypercall_init(domid, Mfn(table[pfn]))
        l4_mfn = Mfn(table[layout.l4_pfn])
        self._hypervisor.pin_l4(domid, l4_mfn)
        self._hypervisor.set_vcpu_context(domid, 0, vcpu.plan_vcpu_context(layout, kernel, l4_mfn=l4_mfn))

    def _seed_grants(self, domid: Domid, *, console: Mfn, store: Mfn) -> None:
        """Let dom0 map both rings by grant; XS_INTRODUCE relies on the xenstore one.

        Source:  xen/include/public/grant_table.h, GNTTAB_RESERVED_*.
        """
        with self._hypervisor.map_grant_table(domid) as view:
            for reference, mfn in ((rings.GNTTAB_RESERVED_CONSOLE, console), (rings.GNTTAB_RESERVED_XENSTORE, store)):
                entry = rings.GRANT_ENTRY_V1.pack(rings.GTF_PERMIT_ACCESS, _DOM0, mfn)
                _write(view, reference * rings.GRANT_ENTRY_V1.size, entry)

    def _record(self, kind: str, **fields: Any) -> None:
        self._records.append({"kind": kind, **fields})
        self._record_function(kind, **fields)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._timings[name] = time.monotonic() - started


def _write(view: memoryview, at: int, data: bytes | array[int]) -> None:
    source = memoryview(data).cast("B")
    view[at : at + len(source)] = source


def _zero(view: memoryview, at: int, size: int) -> None:
    for start in range(at, at + size, len(_ZEROS)):
        _write(view, start, _ZEROS[: at + size - start])


@contextmanager
def _opened(source: FileRange) -> Iterator[int]:
    try:
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise BadSpec(source.path, expected="a readable file", got=os.strerror(problem.errno or 0)) from problem
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_into(view: memoryview, at: int, size: int, descriptor: int, offset: int, source: FileRange) -> None:
    """Read straight into the guest's memory: no copy of kernel or initrd in ours."""
    done = 0
    while done < size:
        # The slice must be let go before the mapping goes; a traceback would keep it.
        with view[at + done : at + size] as rest:
            try:
                got = os.preadv(descriptor, [rest], offset + done)
            except OSError as problem:
                raise BadSpec(source.path, expected="a readable file", got=os.strerror(problem.errno or 0)) from problem
        if not got:
            raise BadSpec(source.path, expected=f"{source.size_bytes} bytes", got=f"{offset + done}")
        done += got
