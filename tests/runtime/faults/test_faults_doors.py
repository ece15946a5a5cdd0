"""Every hypercall, ioctl, xenstore request, netlink request and command of a boot, of a teardown and of a
take-over fails once, and is where the process is killed once. Afterwards a check of the whole host finds nothing.

What fails while a running zone is taken over costs it nothing: it runs on, and its network serves.

The zone has a scratch disk and an agent that connects to its channel; once it runs, a workload's disk comes and goes,
and it gets more memory and vCPUs.

The boot runs in a child process. xenstored is served by this one; the fake Xen is written to a file at the moment of
the kill, without what the kernel takes from a dead process (mappings, its end of event channels).
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.backends import FakeBlkback
from support.checking import UUID, CheckedHost, number_disks, small_plan
from support.doorfaults import FaultyDoor, Points, do_again, faulty_edges, faulty_record, was_injected
from support.networld import HOST4, VIF, World
from support.rings import Guest
from support.takeovers import head_fields, take_over
from support.xenstored import write_as_guest

from pipeline.bundle.model import Port
from runtime.boot import attend, build, pvconsole
from runtime.boot import domain as domains
from runtime.boot.domain import Domain
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Disk
from runtime.boot.nodes import CONSOLE, XenbusState, frontend_path
from runtime.boot.teardown import teardown as teardown_domain
from runtime.boot.xenstore import XenStore
from runtime.host import loops, scratchdisk
from runtime.host.daemon.edge import Edge
from runtime.host.ledger import Ledger
from runtime.host.loops import LoopDevice
from runtime.net.teardown import teardown as teardown_network

pytestmark = pytest.mark.root

DONE, FAILED, DEFECT = 0, 3, 4
SAMPLE = 12
TRIES = 3
DOMID = 7  # of the world's vif


# All edges there are: one that is no longer passed here is one that nothing looks at any more.
BOOT = {
    *("door bind_event_channel", "door buffer", "door map_foreign", "door map_grant", "door map_grant_table"),
    *("evtchn acknowledge", "evtchn notify"),
    *("hypercall domctl createdomain", "hypercall domctl getdomaininfo", "hypercall domctl max_mem"),
    *("hypercall domctl max_vcpus", "hypercall domctl set_address_size", "hypercall domctl setvcpucontext"),
    *("hypercall domctl unpausedomain", "hypercall evtchn alloc_unbound", "hypercall mmuext pin L4"),
    *("hypercall populate_physmap", "hypercall set_memory_map", "hypercall sysctl physinfo"),
    *("xenstore directory", "xenstore introduce", "xenstore mkdir", "xenstore read", "xenstore rm"),
    *("xenstore set_perms", "xenstore transaction_end", "xenstore transaction_start", "xenstore unwatch"),
    *("xenstore watch", "xenstore write"),
    *("ledger channel", "ledger console", "ledger domain", "ledger file", "ledger loop", "ledger net.directory"),
    *("ledger net.engine", "ledger net.listener", "ledger net.netns", "ledger net.vif", "ledger vbd"),
    *("ledger vbd.gone", "ledger xenstore"),
    *("scratch format", "scratch fsync", "scratch open", "scratch rename", "loop ioctl"),
    *("namespace", "netlink", "command", "sysctl", "listen", "engine start", "engine asked"),
    *("listen inside", "bind inside", "datagrams inside", "packet socket", "raw socket", "echo socket"),
}
END = {
    *("door buffer", "hypercall domctl destroydomain", "hypercall domctl getdomaininfo"),
    *("hypercall sysctl getdomaininfolist", "xenstore read", "xenstore rm", "xenstore transaction_end"),
    *("xenstore transaction_start", "xenstore unwatch", "namespace", "pidfd"),
}
ADOPT = {
    *("door bind_event_channel", "door buffer", "door map_foreign", "door map_grant"),
    *("evtchn acknowledge", "evtchn notify", "hypercall sysctl getdomaininfolist"),
    *("xenstore read", "xenstore unwatch", "xenstore watch", "engine asked", "pidfd"),
}
# How often a wait looks again, how many events one wake-up takes, how often a transaction is made again.
MAY_DIFFER = ("hypercall domctl getdomaininfo", "door buffer", "xenstore ", "evtchn ")


def kind_of(point: str) -> str:
    """A point without its number, and the file of a sysctl."""
    name = point.split("#")[0]
    return "sysctl" if name.startswith("sysctl ") else name


class Host(CheckedHost):
    """A host on which one zone is booted and ended, again and again, each time in a process of its own."""

    def __init__(self, world: World, directory: Path) -> None:
        super().__init__(directory, f"t{os.getpid()}")
        self.world = world
        self.scratch = directory / "scratch"
        self.blkback = FakeBlkback(self.xenstored)
        self.state = directory / "xen.pickle"
        (self.store / "image").write_bytes(bytes(1 << 20))

    def close(self) -> None:
        self.blkback.close()
        super().close()

    def prepare(self) -> None:
        """As it is before a boot: a vif that waits, and the domid that its name has."""
        world = self.world
        world.wait_until(lambda: "eth0" not in _links(world, world.zone) or VIF in _links(world, world.host))
        if VIF not in _links(world, world.host):
            world.ip(world.host, f"link add {VIF} type veth peer name eth0 netns {world.zone}")
        self.xen.next_domid = DOMID
        self.xen.calls.clear()

    # -- what zoned does, in the child

    def boot(self, points: Points) -> tuple[Ledger, Any, Any, list[LoopDevice]]:
        """Everything a boot takes, and a disk and more memory afterwards."""
        door = FaultyDoor(self.xen, Points())
        hypervisor, xenstore = Hypervisor(door), XenStore(self.xenstored.path, timeout_s=5)
        door.points = points  # zoned has opened it long before
        ledger = self.ledgers.create("web")
        ledger.record("zone", **head_fields(UUID, self.world.addresses.index))
        record = faulty_record(ledger.record, points)
        found: list[LoopDevice] = []
        network = domain = None
        try:
            found.append(LoopDevice(self.store / "image", record))
            path = self.scratch / "web" / scratchdisk.NAME
            record("file", path=str(path))
            scratchdisk.make(path, 16, "zone web, scratch")
            found.append(LoopDevice(path, record, readonly=False))
            disks = (Disk("xvda", str(found[0].device)), Disk("xvdc", str(found[1].device), readonly=False))
            plan = small_plan(self.directory, disks=disks, memory_max_mib=96, vcpus_max=2)
            self.world.directory = self.directory
            network = self.world.network = self.world.new_network()
            network._record = record
            network.create()
            network.listen([Port(HOST4, 0, 80)])
            log = self.run / "console.log"
            domain = build.build_domain(plan, hypervisor, xenstore, record, console_log=log)
            network.attach(domain.wait_vif())
            domain.connect_vif()
            ledger.record("started")
            domain.unpause()
            network.serve()
            Agent(self, domain, points).talk()
            edge = Edge(hypervisor, xenstore)
            assert edge.plug(domain, found[0].device, record) == "xvdb"
            edge.set_memory(domain, 96, 96)
            edge.set_vcpus(domain, 2)
            edge.unplug(domain, "xvdb", record)
        except BaseException:
            self.end(ledger, hypervisor, xenstore, network, domain, found)
            raise
        return ledger, network, domain, found

    def end(self, ledger: Ledger, hypervisor: Hypervisor, xenstore: XenStore, network: Any, domain: Any,
            found: list[LoopDevice]) -> None:  # fmt: skip
        """A teardown, as after a failure: whatever fails once is done again."""
        steps: list[Callable[[], Any]] = []
        if domain is not None:
            steps.append(domain.destroy)
        if network is not None:
            steps.append(network.destroy)
        records = ledger.records()
        steps.append(lambda: teardown_domain(records, hypervisor, xenstore, timeout_s=5))
        steps.append(lambda: teardown_network(records))
        do_again(steps)
        for loop in found:
            loop.close()
        shutil.rmtree(self.scratch, ignore_errors=True)  # it goes with the zone
        ledger.close()

    # -- children

    def child(self, work: Callable[[Points], None], points: Points) -> int:
        """Run work in a forked process in the host's namespace; its exit code, negative for a signal."""
        points.before_kill = self.save
        pid = os.fork()
        if not pid:
            code = DEFECT
            attend.shared.cache_clear()  # threads are not forked
            attend._worker.cache_clear()
            try:
                self.world.on_host(lambda: work(points))
                code = DONE
            except Exception as error:
                text = "".join(traceback.format_exception(error))
                expected = was_injected(text, points)
                code = FAILED if expected else DEFECT
                if not expected:
                    traceback.print_exc()
            finally:
                self.save()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        self.load()
        return os.waitstatus_to_exitcode(status)

    def save(self) -> None:
        self.xen.channels, self.xen.open_maps, self.xen.open_buffers = [], [], 0
        (self.directory / "points").write_text("\n".join(self.points.seen))
        self.state.write_bytes(pickle.dumps(self.xen))

    def load(self) -> None:
        self.xen = pickle.loads(self.state.read_bytes())

    def run_child(self, work: Callable[[Points], None], at: str = "", what: str = "fail") -> int:
        self.prepare()
        self.points = Points(at, what)
        return self.child(work, self.points)

    def points_passed(self) -> list[str]:
        return (self.directory / "points").read_text().splitlines()

    # -- afterwards

    def recover(self) -> None:
        """What the next zoned does with the ledgers it finds."""
        with XenStore(self.xenstored.path, timeout_s=5) as xenstore:
            for ledger in self.ledgers.all():
                self.world.on_host(lambda ledger=ledger: self.end(ledger, self.hypervisor(), xenstore, None, None, []))

    def left(self) -> list[str]:
        log = self.run / "console.log"
        log.unlink(missing_ok=True)
        found = [str(finding) for finding in self.world.on_host(self.check).findings]
        found += self.xen.leftovers()
        found += [f"loop {device}" for device, file in loops.in_use().items() if str(self.store) in file]
        found += [str(ledger.path) for ledger in self.ledgers.all()]
        return found + [str(path) for path in self.scratch.rglob("*")]


class Agent:
    """What runs in the zone, as far as its channel goes: it offers a page, hears a word and says one.

    What of that is made to fail costs the zone its channel; without such a fault it has to work.
    """

    REFERENCE, PORT = 9, 77

    def __init__(self, host: Host, domain: Domain, points: Points) -> None:
        self._host, self._domain, self._points = host, domain, points
        self._guest = Guest()
        self._connected, self._heard = threading.Event(), threading.Event()

    def talk(self) -> None:
        channel, domid = self._domain.channel, self._domain.domid
        assert channel is not None
        here = self._host.xen.domains[domid]
        here.granted[self.REFERENCE], here.unbound[self.PORT] = self._guest.page, 0
        channel.start(self)
        front = frontend_path(domid, CONSOLE, pvconsole.NUMBER)
        offer = {"ring-ref": self.REFERENCE, "port": self.PORT, "state": XenbusState.INITIALISED.value}
        write_as_guest(self._host.xenstored.path, {f"{front}/{key}": str(value) for key, value in offer.items()})
        if not self._happens(self._connected):
            return
        written = threading.Event()
        attend.shared().soon(lambda: (channel.write(b"a word"), written.set()))
        if self._happens(written):
            assert self._guest.hear() == b"a word"
            self._guest.say(b"another")
            next(bound for bound in self._host.xen.channels if bound.port == self.PORT).fire()
            self._happens(self._heard)

    def _happens(self, event: threading.Event) -> bool:
        deadline = time.monotonic() + 20
        while not event.wait(0.1):
            if self._points.fired:
                return False
            assert time.monotonic() < deadline, "the channel does not work"
        return True

    # -- as a Receiver of the channel, in the attendant's thread

    def connected(self) -> None:
        self._connected.set()

    def received(self, data: bytes) -> None:
        assert data == b"another"
        self._heard.set()

    def writable(self) -> None:
        pass

    def disconnected(self, reason: str) -> None:
        pass


def _links(world: World, name: str) -> list[str]:
    return world.of(name, lambda: [link for _, link in socket.if_nameindex()])


@pytest.fixture
def host(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    if not os.path.exists(loops.CONTROL):
        pytest.skip("needs loop devices")
    if shutil.which(scratchdisk.TOOL, path=scratchdisk.SEARCHED) is None:
        pytest.skip(f"needs {scratchdisk.TOOL}")
    number_disks(monkeypatch)
    (tmp_path / "interfaces").mkdir()
    (tmp_path / "interfaces" / VIF).touch()  # /sys shows those of the namespace it was mounted in
    monkeypatch.setattr(domains, "_NETWORK_INTERFACES", tmp_path / "interfaces")
    made = Host(world, tmp_path)
    yield made
    made.close()


def boot(host: Host) -> Callable[[Points], None]:
    """A boot whose points count; the zone stays."""

    def work(points: Points) -> None:
        with faulty_edges(points):
            host.boot(points)

    return work


def boot_and_end(host: Host) -> Callable[[Points], None]:
    """A boot, then a teardown whose points count."""

    def work(points: Points) -> None:
        ledger, network, domain, found = host.boot(Points())
        domain.hypervisor.door.points = points
        with faulty_edges(points):
            host.end(ledger, domain.hypervisor, domain.xenstore, network, domain, found)

    return work


def boot_and_adopt(host: Host) -> Callable[[Points], None]:
    """A boot, then an adoption whose points count: whatever fails once, the zone runs on."""

    def network_again(_: str, addresses: Any, mtu: int, record: Any, **options: Any) -> Any:
        network = host.world.new_network(**options)
        network._record = record
        return network

    def work(points: Points) -> None:
        ledger, _, domain, _ = host.boot(Points())
        domain.let_go()
        domain.hypervisor.door.points = points
        with faulty_edges(points):
            take_over(ledger, Edge(domain.hypervisor, domain.xenstore), host.directory / "zoned", network_again)
        domain.hypervisor.door.points = Points()
        assert domain.shutdown_state() is None

    return work


EDGES = {boot: BOOT, boot_and_end: END, boot_and_adopt: ADOPT}


@pytest.mark.parametrize("what", ["fail", "kill"])
@pytest.mark.parametrize("phase", [boot, boot_and_end, boot_and_adopt])
def test_nothing_is_left_whichever_edge_fails_or_is_the_last(
    host: Host, phase: Callable[[Host], Callable[[Points], None]], what: str
) -> None:
    work = phase(host)
    assert host.run_child(work) == DONE
    points = host.points_passed()
    host.recover()
    assert host.left() == []
    codes: Counter[int] = Counter()
    missed = []
    chosen = faults.spread(points, SAMPLE)
    for point in chosen:
        for _ in range(TRIES):
            code = host.run_child(work, point, what)
            reached = point in host.points_passed()
            if what == "kill" or code == DONE:
                host.recover()
            assert host.left() == [], f"{phase.__name__}, {what} at {point}"
            if reached:
                break
        codes[code] += 1
        missed += [] if reached else [point]
        assert code == -signal.SIGKILL if what == "kill" and reached else code in (DONE, FAILED), point
    kinds = Counter(point.split(" ")[0].split("#")[0] for point in points)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    faults.say(
        f"{phase.__name__}, {what}: {len(chosen)} of {len(points)} points ({counted}); ended as {dict(codes)}; "
        f"not reached in {TRIES} runs: {missed or 'none'}"
    )
    assert {kind_of(point) for point in points} == EDGES[phase]
    assert all(point.startswith(MAY_DIFFER) for point in missed)
