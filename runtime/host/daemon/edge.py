"""The thin edge: what the core does to this machine, as blocking calls; the core makes them in threads.

Everything the core knows of Xen, xenstore, network namespaces and disks passes through here, so that tests can put
simulated ones behind the same core.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.bundle import model as bundles
from pipeline.bundle.model import Port, Volume
from pipeline.oci import Descriptor
from runtime.boot import hotplug, machine, resize, shareplug
from runtime.boot.attend import Attendant
from runtime.boot.build import build_domain
from runtime.boot.domain import Domain, adopt
from runtime.boot.doors import DomainInfo, Hypervisor
from runtime.boot.elf import read_kernel
from runtime.boot.model import Disk, DomainSpec, Domid, ZoneState
from runtime.boot.nodes import UUID_NODE, domain_path
from runtime.boot.plan import DomainPlan, plan_domain
from runtime.boot.teardown import teardown as teardown_domain
from runtime.boot.watch import Deaths
from runtime.boot.xenstore import Watch, XenStore
from runtime.host import scratchdisk, sources
from runtime.host.agentlink.link import open_link
from runtime.host.blockdevices import BlockDevice, look
from runtime.host.daemon.agent import OpenLink
from runtime.host.ledger import Ledger, Record
from runtime.host.loops import LoopDevice, in_use
from runtime.net.addresses import ZoneAddresses
from runtime.net.capture import CaptureRequest
from runtime.net.declared import ledgers as declared_ledgers
from runtime.net.engine import processes
from runtime.net.engine.flows import Flow
from runtime.net.layouts import engine_named
from runtime.net.network import ZoneNetwork
from runtime.net.published import Published
from runtime.net.segment import Segment as NetSegment
from runtime.net.strays import strays
from runtime.net.supervise import EngineSupervisor
from runtime.net.teardown import directories
from runtime.net.teardown import teardown as teardown_network
from runtime.share.backend import Share, end_processes, running
from runtime.share.directories import check_directory
from runtime.share.model import ShareSpec
from runtime.share.strays import strays as stray_shares

log = logging.getLogger(__name__)

TEARDOWN_TIMEOUT_S = 10.0
KIB_PER_PAGE = 4


class Network(Protocol):
    """A zone's network, as `runtime.net.network.ZoneNetwork` is one."""

    def create(self) -> None: ...
    def use(self, listeners: Iterable[tuple[Port, Any]]) -> None: ...
    def attach(self, vif: str) -> None: ...
    def serve(self) -> None: ...
    def published(self) -> tuple[Published, ...]: ...
    def unpublish(self, address: str, port: int, protocol: str = "tcp") -> None: ...
    def judge_by(self, egress: Sequence[str]) -> None: ...
    def limit(self, bandwidth_bit_s: int) -> None: ...
    def answers(self, zone_port: int, *, timeout_s: float = 1.0) -> bool: ...
    def alive(self) -> bool: ...
    def revive(self, *, only_dead: bool = False) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def flows(self) -> list[Flow]: ...
    def capture(self, request: CaptureRequest) -> Any: ...
    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool: ...
    def destroy(self) -> None: ...


class Segment(Protocol):
    """A network that zones share, as `runtime.net.segment.Segment` is one."""

    def create(self) -> None: ...
    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool: ...
    def renew_rules(self) -> None: ...
    def forget_others(self) -> None: ...
    def destroy(self) -> None: ...


MakeNetwork = Callable[..., Network]
MakeSegment = Callable[..., Segment]


@dataclass
class Edge:
    """This machine.

    stores:       where blobs lie, the host's own first.
    deny:         networks no zone of this host may reach, beside those closed to every zone.
    attendant:    who serves the consoles. engines: who replaces engines that end.
    private:      directories of this host that no zone may have, nor what holds them.
    disk_wait_s:  how long a disk with a blob may take to appear; 0 where disks are not how blobs come.
    """

    hypervisor: Hypervisor
    xenstore: XenStore
    stores: tuple[Path, ...] = ()
    deny: tuple[str, ...] = ()
    private: tuple[Path, ...] = ()
    disk_wait_s: float = 0.0
    open_link: OpenLink = open_link
    make_network: MakeNetwork = ZoneNetwork
    make_segment: MakeSegment = NetSegment
    attendant: Attendant | None = None
    engines: EngineSupervisor | None = None

    # -- looking -------------------------------------------------------------------------------------------------------

    def domains(self) -> dict[str, DomainInfo]:
        """Every domain but this one, by uuid."""
        return {info.uuid: info for info in self.hypervisor.domains() if info.domid}

    def free_kib(self) -> int:
        """Memory Xen can still give away."""
        return self.hypervisor.free_pages() * KIB_PER_PAGE

    def machine(self) -> machine.MachineInfo:
        """Memory and CPUs of the machine."""
        return machine.machine_info(self.hypervisor)

    def marked(self, info: DomainInfo) -> bool:
        """Is this domain one that a zoned of this host has built?"""
        return self.xenstore.read(f"{domain_path(info.domid)}/{UUID_NODE}") == info.uuid

    def last_words(self, info: DomainInfo) -> ZoneState:
        """What the init of a domain that is not adopted has reported."""
        home = f"{domain_path(info.domid)}/zone/state"
        return ZoneState(
            self.xenstore.read(f"{home}/phase") or "", exit=(self.xenstore.read(f"{home}/exit") or "")[:1024]
        )

    def deaths(self, told: Callable[[Domid, str], None]) -> Deaths:
        """Have each end of a domain told, from a thread."""
        return Deaths(self.hypervisor, self.xenstore, told)

    def watch_state(self, domain: Domain, notify: Callable[[], None]) -> Watch:
        """Be told, from a thread, that a zone's init may have reported something."""
        return self.xenstore.watch(f"{domain_path(domain.domid)}/zone/state", notify)

    # -- a run ---------------------------------------------------------------------------------------------------------

    def find(self, blob: Descriptor) -> sources.Source:
        """Where a blob is. Raises BlobUnreachable."""
        return sources.wait_for(blob, self.stores, self.disk_wait_s)

    def has(self, blob: Descriptor) -> bool:
        """Is it here?"""
        return sources.find(blob, self.stores) is not None

    def loop(self, path: Path, record: Callable[..., None], *, readonly: bool = True) -> LoopDevice:
        """A file as a block device."""
        return LoopDevice(path, record, readonly=readonly)

    def check_directory(self, volume: Volume, subject: str) -> None:
        """Could a zone have this directory? Raises ShareUnfit."""
        check_directory(Path(volume.source), subject, self.private)

    def share(self, domain: Domain, share: ShareSpec, ledger: Ledger, log_file: Path, *, adopted: bool) -> Share:
        """A directory that a domain has, served from now on. adopted: an earlier zoned may have begun it."""
        records = ledger.records() if adopted else ()
        return Share(domain, share, ledger.record, log_file, private=self.private, records=records)

    def loops(self) -> dict[str, str]:
        """Every loop device that is in use, and the file behind it."""
        return in_use()

    def check_scratch(self, directory: Path, size_mib: int, subject: str) -> None:
        """Could a scratch disk be made there? Raises ScratchUnfit."""
        scratchdisk.check(directory, size_mib, subject)

    def make_scratch(self, path: Path, size_mib: int, subject: str) -> None:
        """A scratch disk, where there is none yet. Raises ScratchUnfit."""
        scratchdisk.make(path, size_mib, subject)

    def block_device(self, volume: Volume, subject: str) -> BlockDevice:
        """A device of this host that a zone is to have. Raises DeviceUnfit."""
        return look(volume.source, readonly=volume.readonly, subject=subject)

    def plan(self, spec: DomainSpec) -> DomainPlan:
        """Everything that can be decided, and refused, before anything is taken."""
        return plan_domain(spec, read_kernel(spec.kernel))

    def build(self, plan: DomainPlan, ledger: Ledger, console_log: Path) -> Domain:
        """A domain, paused."""
        return build_domain(
            plan, self.hypervisor, self.xenstore, ledger.record, console_log=console_log, attendant=self.attendant
        )

    def adopt(self, records: Sequence[Record]) -> Domain | None:
        """A running domain of an earlier zoned."""
        return adopt(records, self.hypervisor, self.xenstore, attendant=self.attendant)

    def network(
        self,
        name: str,
        addresses: ZoneAddresses,
        wanted: bundles.Network,
        ledger: Ledger,
        *,
        segment: Segment | None = None,
        isolated: bool = False,
    ) -> Network:
        """A zone's network, not yet made: a private one, or its place in one that is shared."""
        own: dict[str, Any] = {"egress": wanted.egress, "bandwidth_bit_s": wanted.bandwidth_bit_s}
        if segment is not None:
            own |= {"segment": segment, "isolated": isolated}
        else:
            own["deny"] = self.deny
        if wanted.engine:
            own["engine"] = engine_named(wanted.engine)
        return self.make_network(name, addresses, wanted.mtu, ledger.record, **own)

    def look_for_engine(self, name: str) -> None:
        """Raises EngineFault where this host has not what a network's engine needs; "" needs nothing."""
        if name:
            engine_named(name).look()

    def segment(self, name: str, addresses: ZoneAddresses, mtu: int, ledger: Ledger) -> Segment:
        """A network that zones share, not yet made."""
        return self.make_segment(name, addresses, mtu, ledger.record, shared=True, deny=self.deny)

    def care_for(self, network: Network | Segment) -> None:
        """Have its engine replaced whenever it ends; a shared network's is cared for as that."""
        if self.engines is not None and (supervised := _with_an_engine(network)) is not None:
            self.engines.add(supervised)

    def care_no_more(self, network: Network | Segment) -> None:
        """Before it is destroyed."""
        if self.engines is not None and (supervised := _with_an_engine(network)) is not None:
            self.engines.discard(supervised)

    def teardown(self, records: Sequence[Record]) -> None:
        """End all that the records name. Raises what still stands in the way, after everything was tried."""
        try:
            end_processes(records)  # which hold pages of the domain
        finally:
            try:
                teardown_domain(records, self.hypervisor, self.xenstore, timeout_s=TEARDOWN_TIMEOUT_S)
            finally:
                teardown_network(records)

    def end_stray_shares(self, logs: Path, records: Sequence[Record]) -> None:
        """Of directories that no ledger names: all records are of all ledgers. Raises EngineFault where one stays."""
        for process in list(stray_shares(logs, running(records))):
            log.warning("process %d serves a directory, of a zoned that forgot it: ending it", process[0])
            processes.kill(*process)

    def stray_networks(self, run_directory: Path, known: set[str]) -> list[list[Record]]:
        """Of networks that no ledger names, nor a declaration's: what a teardown needs."""

        def declared() -> set[str]:
            return {str(ledger.directory) for ledger in declared_ledgers(run_directory)}

        # Looked at twice: one that was made anew, or just made, while we looked is in the first or in the second.
        before = declared()
        found = list(strays(run_directory, known | before))
        after = declared()
        return [records for records in found if after.isdisjoint(directories(records))]

    # -- while it runs -------------------------------------------------------------------------------------------------

    def set_memory(self, domain: Domain, target_mib: int, least_mib: int) -> None:
        """Ask the guest to have this much, but not less than it goes on with."""
        resize.set_memory(self.hypervisor, self.xenstore, domain.domid, domain.uuid, target_mib, least_mib=least_mib)

    def set_vcpus(self, domain: Domain, count: int) -> None:
        """Ask the guest to have so many online."""
        resize.set_vcpus(self.hypervisor, self.xenstore, domain.domid, domain.uuid, count)

    def resources(self, domain: Domain) -> resize.Resources:
        """What a domain has and was asked to have."""
        return resize.resources(self.hypervisor, self.xenstore, domain.domid, domain.uuid)

    def plug(self, domain: Domain, device: Path, record: Callable[..., None]) -> str:
        """Give a running domain one more read-only disk; its name there."""
        used = hotplug.disks_of(self.xenstore, domain.domid, backend_domid=domain.backend_domid)
        vdev = hotplug.free_vdev(used)
        hotplug.plug_disk(domain, Disk(vdev, str(device), readonly=True), record)
        return vdev

    def unplug(self, domain: Domain, vdev: str, record: Callable[..., None]) -> None:
        """Take a disk back, whether the guest lets go of it or not."""
        hotplug.unplug_disk(domain, vdev, record, force=True)

    def plug_share(self, domain: Domain, tag: str, number: int, record: Callable[..., None]) -> None:
        """Give a running domain one more directory, which `share` then serves."""
        shareplug.plug_share(domain, tag, number, record)

    def unplug_share(self, domain: Domain, tag: str, number: int, record: Callable[..., None]) -> None:
        """Take a directory back that is served no more."""
        shareplug.unplug_share(domain, tag, number, record)


def _with_an_engine(network: Network | Segment) -> ZoneNetwork | NetSegment | None:
    if isinstance(network, NetSegment):
        return network
    return network if isinstance(network, ZoneNetwork) and not network.segment.shared else None


def rss_kib() -> int:
    """Memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
