"""Every hypercall, ioctl, xenstore request, netlink request and command of a boot and of a teardown fails once, and is
where the process is killed once. Afterwards a check of the whole host finds nothing.

The boot runs in a child process. xenstored is served by this one; the fake Xen is written to a file at the moment of
the kill, without what the kernel takes from a dead process (mappings, its end of event channels).
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.backends import FakeBlkback
from support.checking import CheckedHost, number_disks, small_plan
from support.doorfaults import FaultyDoor, Points, faulty_edges, faulty_record
from support.networld import HOST4, VIF, World

from pipeline.bundle.model import Port
from runtime.boot import build, hotplug
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Disk
from runtime.boot.teardown import teardown as teardown_domain
from runtime.boot.xenstore import XenStore
from runtime.host import loops
from runtime.host.ledger import Ledger
from runtime.host.loops import LoopDevice
from runtime.net.teardown import teardown as teardown_network

pytestmark = pytest.mark.root

DONE, FAILED, DEFECT = 0, 3, 4
SAMPLE = 12
TRIES = 3
DOMID = 7  # of the world's vif


class Host(CheckedHost):
    """A host on which one zone is booted and ended, again and again, each time in a process of its own."""

    def __init__(self, world: World, directory: Path) -> None:
        super().__init__(directory, f"t{os.getpid()}")
        self.world, self.plan = world, small_plan(directory, vif=False)
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
        record = faulty_record(ledger.record, points)
        found: list[LoopDevice] = []
        network = domain = None
        try:
            found.append(LoopDevice(self.store / "image", record))
            self.world.directory = self.directory
            network = self.world.network = self.world.new_network()
            network._record = record
            network.create()
            network.listen([Port(HOST4, 0, 80)])
            log = self.run / "console.log"
            domain = build.build_domain(self.plan, hypervisor, xenstore, record, console_log=log)
            network.attach(VIF)
            domain.unpause()
            network.serve()
            hotplug.plug_disk(domain, Disk("xvdc", str(found[0].device)), ledger.record, timeout_s=5)
            hotplug.unplug_disk(domain, "xvdc", ledger.record, timeout_s=5)
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
        failures = 0
        for step in steps:
            while True:
                try:
                    step()
                    break
                except Exception:
                    failures += 1
                    if failures > 2:
                        raise
        for loop in found:
            loop.close()
        ledger.close()

    # -- children

    def child(self, work: Callable[[Points], None], points: Points) -> int:
        """Run work in a forked process in the host's namespace; its exit code, negative for a signal."""
        points.before_kill = self.save
        pid = os.fork()
        if not pid:
            code = DEFECT
            try:
                self.world.on_host(lambda: work(points))
                code = DONE
            except Exception as error:
                expected = "injected" in "".join(traceback.format_exception(error))
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
        return found


def _links(world: World, name: str) -> list[str]:
    return world.of(name, lambda: [link for _, link in socket.if_nameindex()])


@pytest.fixture
def host(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    if not os.path.exists(loops.CONTROL):
        pytest.skip("needs loop devices")
    number_disks(monkeypatch)
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


@pytest.mark.parametrize("what", ["fail", "kill"])
@pytest.mark.parametrize("phase", [boot, boot_and_end])
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
    assert {"hypercall", "xenstore"} <= kinds.keys()
    # How often a wait looks again is all that may differ.
    assert all(point.startswith(("hypercall domctl getdomaininfo", "door buffer", "xenstore read")) for point in missed)
