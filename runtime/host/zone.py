"""One zone on this host, from its plan to its end."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle, Launch, LaunchNetwork
from pipeline.oci import Descriptor
from runtime.boot.domain import Domain
from runtime.boot.elf import read_kernel
from runtime.boot.launch import launch_segment
from runtime.boot.model import Disk, DomainSpec, FileRange, Vif
from runtime.boot.plan import DomainPlan, plan_domain
from runtime.errors import RuntimeFault
from runtime.host.ledger import Ledger
from runtime.host.loops import LoopDevice
from runtime.host.sources import path_of
from runtime.net.addresses import ZoneAddresses
from runtime.net.network import ZoneNetwork

log = logging.getLogger(__name__)

POLL_S = 0.05
LOOK_AGAIN_S = 1.0
CONSOLE_TAIL_LINES = 20
Emit = Callable[..., None]


class ZoneState(Enum):
    """Where a zone is in its life."""

    CREATING = "creating"
    RUNNING = "running"
    EXITED = "exited"
    FAILED = "failed"


class ZoneFailed(RuntimeFault):
    """A zone ended before, or instead of, what was asked of it."""


@dataclass
class Published:
    """One published port: where the user's machine has it, where this domain listens, where the zone serves."""

    host_address: str
    host_port: int
    dom0_address: str
    dom0_port: int
    zone_port: int


@dataclass
class Zone:
    """A zone and everything it holds. Its ledger, not this object, is what a teardown goes by."""

    name: str
    bundle: Bundle
    manifest: str
    addresses: ZoneAddresses
    ledger: Ledger
    console_path: Path
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: ZoneState = ZoneState.CREATING
    exit: str = ""
    confirmed: bool = False
    published: list[Published] = field(default_factory=list)
    timings: dict[str, tuple[float, float]] = field(default_factory=dict)
    guest_timings: dict[str, float] = field(default_factory=dict)
    started_at: float = field(default_factory=time.time)
    domain: Domain | None = None
    network: ZoneNetwork | None = None
    loops: list[LoopDevice] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    letting_go: threading.Lock = field(default_factory=threading.Lock)

    def blobs(self) -> list[Descriptor]:
        """Every blob this zone runs from: none of their disks may be unplugged while it does."""
        bundle = self.bundle
        return [bundle.kernel, *bundle.initrd, bundle.rootfs, *([bundle.addons] if bundle.addons else [])]

    # -- plan ----------------------------------------------------------------------------------------------------------

    def launch(self) -> Launch:
        """What only this host knows, for the zone's init."""
        bundle, addresses = self.bundle, self.addresses
        network = LaunchNetwork(
            interface="eth0",
            mtu=bundle.network.mtu,
            addresses=(
                f"{addresses.zone4}/{addresses.prefix4}",
                f"{addresses.zone6}/{addresses.prefix6}",
            ),
            gateways=(str(addresses.gateway4), str(addresses.gateway6)),
            nameservers=bundle.network.nameservers or (str(addresses.gateway4),),
            search=bundle.network.search,
        )
        return Launch(
            hostname=bundle.hostname,
            seed=os.urandom(32).hex(),
            modules=bundle.modules,
            process=bundle.process,
            addons="xvdb" if bundle.addons else "",
            late_modules=bundle.late_modules,
            readonly_root=bundle.readonly_root,
            overlay_size_mib=bundle.overlay_size_mib,
            network=network,
        )

    def plan(self, sources: dict[str, dict[str, Any]]) -> DomainPlan:
        """Everything that can be decided, and refused, before anything is taken."""
        bundle = self.bundle

        def file_range(descriptor: Any) -> FileRange:
            return FileRange(str(path_of(sources[str(descriptor.digest)])), descriptor.size_bytes)

        def disk(vdev: str, descriptor: Any) -> Disk:
            source = sources[str(descriptor.digest)]
            path = path_of(source)
            if source["kind"] == "file":
                loop = LoopDevice(path, self.ledger.record)
                self.loops.append(loop)
                path = loop.device
            return Disk(vdev, str(path), readonly=True)

        disks = [disk("xvda", bundle.rootfs)] + ([disk("xvdb", bundle.addons)] if bundle.addons else [])
        spec = DomainSpec(
            name=self.name,
            uuid=self.uuid,
            memory_mib=bundle.resources.memory_mib,
            memory_max_mib=bundle.resources.memory_max_mib,
            vcpus=bundle.resources.vcpus,
            vcpus_max=bundle.resources.vcpus_max,
            cmdline=bundle.cmdline,
            kernel=file_range(bundle.kernel),
            ramdisk=tuple(file_range(part) for part in bundle.initrd),
            launch_segment=launch_segment(self.launch()),
            disks=tuple(disks),
            vif=Vif(mac=self.addresses.zone_mac, mtu=bundle.network.mtu),
        )
        return plan_domain(spec, read_kernel(spec.kernel))

    # -- waiting -------------------------------------------------------------------------------------------------------

    def refresh(self) -> str:
        """The phase the zone's init last reported, noting its timings and exit; "" when it said nothing yet."""
        domain = self.domain
        if domain is None:
            return "exited" if self.ended.is_set() else ""
        state = domain.state()
        self.guest_timings = state.timings or self.guest_timings
        self.exit = state.exit or self.exit
        return state.phase

    def wait_workload(self, timeout_s: float) -> None:
        """Return when the zone's init has started the workload; raises ZoneFailed if it ends first or is late."""
        assert self.domain is not None
        deadline = time.monotonic() + timeout_s
        with self.domain.watch_state() as news:
            while self.refresh() != "workload":
                if self.exit or self.ended.is_set():
                    self.ended.wait(10)
                    raise self.failure("ended before its workload ran")
                if time.monotonic() > deadline:
                    raise self.failure(f"its workload did not start within {timeout_s:.0f} s")
                # Asking on and on would cost the zone the time it needs; a lost event costs one look.
                news.wait(LOOK_AGAIN_S)

    def wait_port(self, port: int, timeout_s: float) -> None:
        """Return when something in the zone accepts connections on `port`, asked from inside the zone's network."""
        deadline = time.monotonic() + timeout_s
        assert self.network is not None
        while not self.network.answers(port):
            self.refresh()
            if self.exit or self.ended.is_set():
                self.ended.wait(10)
                raise self.failure(f"ended before port {port} answered")
            if time.monotonic() > deadline:
                raise self.failure(f"nothing listens on its port {port} after {timeout_s:.0f} s")
            self.ended.wait(POLL_S)

    def failure(self, what: str) -> ZoneFailed:
        """The error for a zone that did not do what was asked, with how it ended and its last console lines."""
        how = f", {exit_text(self.exit)}" if self.exit else ""
        lines = console_tail(self.console_path, CONSOLE_TAIL_LINES)
        hint = "its last console lines:\n  " + "\n  ".join(lines) if lines else "its console is empty"
        return ZoneFailed(f"zone {self.name}", got=what + how, hint=hint)


def exit_text(code: str) -> str:
    """`code 3` -> "exit code 3", `signal 9` -> "killed by SIGKILL", `failed X Y` -> "Y"."""
    kind, _, rest = code.partition(" ")
    if kind == "code":
        return f"exit code {rest}"
    if kind == "signal":
        import signal

        try:
            return f"killed by {signal.Signals(int(rest)).name}"
        except ValueError:
            return f"killed by signal {rest}"
    return rest.partition(" ")[2] or rest or code


def console_tail(path: Path, lines: int) -> list[str]:
    """The last lines of a console file, control characters escaped: a zone decides what stands there."""
    try:
        data = path.read_bytes()[-64 * 1024 :]
    except FileNotFoundError:
        return []
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    clean = ["".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line) for line in text.split("\n")]
    return [line for line in clean if line.strip()][-lines:]
