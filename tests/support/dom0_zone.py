"""Runs inside dom0, by hand or from a lab test: a whole zone without zoned; its memory, vCPUs, disks, leaks, faults.

    python3 dom0_zone.py FACTS.json CASE      FACTS: {"bundle": ..., "devices": {digest: path}}

Reports as JSON lines. Only the standard library and what the runtime brings; PYTHONPATH names where that is.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import newc
from pipeline.bundle.model import Bundle, Port
from pipeline.jsonmodel import from_json
from runtime.boot import build, doors, hotplug, machine, resize, schedule
from runtime.boot.domain import adopt
from runtime.boot.elf import read_kernel
from runtime.boot.errors import DeviceFault
from runtime.boot.model import Disk, DomainSpec, FileRange, Vif
from runtime.boot.plan import plan_domain
from runtime.boot.teardown import teardown as teardown_domain
from runtime.boot.xenstore import XenStore
from runtime.errors import RuntimeFault
from runtime.host import loops, preflight
from runtime.host.check import check
from runtime.host.check.look_host import Places
from runtime.host.ledger import Ledger, LedgerDir
from runtime.host.loops import LoopDevice
from runtime.net import netns
from runtime.net.addresses import plan_addresses
from runtime.net.network import ZoneNetwork
from runtime.net.teardown import teardown as teardown_network

HOME = Path("/tmp/dom0-zone")
RUN, STORE = HOME / "run", HOME / "store"
# The zone's own /init is hidden by one that says on the console what it sees, and brings up CPUs that Xen has given:
# in a zone that is its agent's work.
INIT = """#!/bin/busybox sh
mount() { busybox mount -t $1 $1 $2; }
mount devtmpfs /dev; mount proc /proc; mount sysfs /sys
for m in MODULES; do busybox insmod $m; done
while :; do
  for c in /sys/devices/system/cpu/cpu[1-9]*/online; do [ "$(busybox cat $c)" = 0 ] && echo 1 >$c; done
  [ "$(busybox cat /sys/block/xvdc/ro)" = 0 ] && echo from the zone | busybox dd of=/dev/xvdc conv=sync
  SCRIPT
  echo state $(busybox grep MemTotal /proc/meminfo) online $(busybox cat /sys/devices/system/cpu/online) \
    disks $(busybox grep -o 'xvd.*' /proc/partitions) end >/dev/console
  busybox sleep 0.3
done 2>/dev/null
"""
DEADLINE_S = 120.0


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} in {DEADLINE_S:.0f} s")
        time.sleep(0.05)
    return value


def init_segment(modules: list[str], script: str) -> bytes:
    """The last segment of the initrd: /init in place of the zone's own."""
    text = INIT.replace("MODULES", " ".join(modules)).replace("SCRIPT", script or ":")
    busybox = Path("/usr/bin/busybox").read_bytes()
    return newc.archive(
        [
            newc.directory("bin"),
            newc.file("bin/busybox", busybox, mode=0o755),
            newc.file("init", text.encode(), mode=0o755),
        ]
    )


class Zone:
    """Domain, network, loop devices and ledger of one zone."""

    def __init__(self, host: Host, ledger: Ledger, record: Callable[..., Any]) -> None:
        self.host, self.ledger, self.record = host, ledger, record
        self.loops: list[LoopDevice] = []
        self.network: ZoneNetwork | None = None
        self.domain: Any = None

    def boot(self, *, script: str = "", paused: bool = False, **changes: Any) -> None:
        host, bundle = self.host, self.host.bundle
        addresses = plan_addresses(201)
        self.network = ZoneNetwork(self.ledger.name, addresses, 1500, self.record, run_directory=RUN / "net")
        self.network.create()
        self.network.listen([Port("127.0.0.1", 0, 80)])
        spec = DomainSpec(
            name=self.ledger.name,
            uuid=str(uuid.uuid4()),
            kernel=host.file(bundle.kernel),
            ramdisk=tuple(host.file(part) for part in bundle.initrd),
            launch_segment=init_segment([module.path for module in bundle.modules], script),
            memory_mib=160,
            cmdline=bundle.cmdline,
            disks=(Disk("xvda", host.devices[str(bundle.rootfs.digest)]),),
            vif=Vif(mac=addresses.zone_mac),
        )
        plan = plan_domain(dataclasses.replace(spec, **changes), host.kernel)
        log = RUN / "console" / f"{self.ledger.name}.log"
        self.domain = build.build_domain(plan, host.hypervisor, host.xenstore, self.record, console_log=log)
        self.network.attach(self.domain.wait_vif())
        self.domain.connect_vif()
        if not paused:
            self.domain.unpause()
        self.network.serve()

    def state(self) -> dict[str, Any]:
        """What the guest last said of itself."""
        said = re.findall(r"state MemTotal: (\d+) kB online (\S+) disks (.*?) end", self.domain.console.tail(1 << 16))
        if not said:
            return {}
        total, online, disks = said[-1]
        return {"total_mib": int(total) >> 10, "online": online, "disks": disks.split()}

    def resources(self) -> resize.Resources:
        return resize.resources(self.host.hypervisor, self.host.xenstore, self.domain.domid, self.domain.uuid)

    def end(self) -> None:
        """As zoned: what fails once is done again."""
        steps: list[Callable[[], Any]] = []
        if self.domain is not None:
            steps.append(self.domain.destroy)
        if self.network is not None:
            steps.append(self.network.destroy)
        records = self.ledger.records()
        steps += [
            lambda: teardown_domain(records, self.host.hypervisor, self.host.xenstore),
            lambda: teardown_network(records),
        ]
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
        for loop in self.loops:
            loop.close()
        (RUN / "console" / f"{self.ledger.name}.log").unlink(missing_ok=True)
        self.ledger.close()


class Host:
    """This dom0, with directories of the test's own."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.bundle: Bundle = from_json(Bundle, facts["bundle"], subject="facts")
        self.devices: dict[str, str] = facts["devices"]
        self.kernel = read_kernel(self.file(self.bundle.kernel))
        self.ledgers = LedgerDir(RUN / "ledger")
        self.open()

    def open(self) -> None:
        self.hypervisor, self.xenstore = doors.open_doors(), XenStore()

    def file(self, blob: Any) -> FileRange:
        return FileRange(self.devices[str(blob.digest)], blob.size_bytes)

    @contextmanager
    def zone(self, name: str = "box", **options: Any) -> Iterator[Zone]:
        ledger = self.ledgers.create(name)
        zone = Zone(self, ledger, ledger.record)
        try:
            zone.boot(**options)
            yield zone
        except BaseException:
            say(console=zone.domain.console.tail(3000) if zone.domain else "")
            raise
        finally:
            zone.end()

    def broken_kernel(self) -> FileRange:
        """The bundle's kernel, with an instruction at its entry that no processor knows."""
        source, path = self.file(self.bundle.kernel), HOME / "broken"
        with open(source.path, "rb") as file:
            path.write_bytes(file.read(source.size_bytes))
        entry = self.kernel.entry_vaddr - self.kernel.virt_base + self.kernel.paddr_offset
        for segment in self.kernel.segments:
            if segment.paddr <= entry < segment.paddr + segment.filesz:
                with open(path, "r+b") as file:
                    file.seek(segment.offset + entry - segment.paddr)
                    file.write(b"\x0f\x0b" * 8)
        return FileRange(str(path), source.size_bytes)

    def findings(self) -> list[str]:
        places = Places((RUN,))
        allowed = (str(RUN / "ledger"),)
        report = check(
            self.hypervisor,
            self.xenstore,
            self.ledgers.all,
            places=places,
            allowed=lambda: allowed,
            loop_files=(str(STORE),),
        )
        self.looked_at, self.unseen = report.looked_at, report.unseen
        return [str(finding) for finding in report.findings]


# -- cases -------------------------------------------------------------------------------------------------------------


def machine_case(host: Host) -> None:
    info, cpus = machine.machine_info(host.hypervisor), machine.cpu_topology(host.hypervisor)
    text = machine.console_text(host.hypervisor)
    assert info.cpus == len(cpus) == len({cpu.cpu for cpu in cpus})
    assert 0 < info.free_pages < info.total_pages
    assert "Xen version" in text and "Xen version" in machine.console_text(host.hypervisor), text[:300]
    say(machine=str(info), cpus=[str(cpu) for cpu in cpus], console=text[:200], channels=len(channels_of(host)))
    say(dom0=schedule.share(host.hypervisor, 0).weight)  # type: ignore[arg-type]
    say(lacks=[lack.sentence for lack in preflight.preflight()])


def channels_of(host: Host) -> list[Any]:
    return list(machine.channels(host.hypervisor, 0))  # type: ignore[arg-type]


def elastic(host: Host) -> None:
    """Only the first memory is taken; then up to the maximum, and below the first; vCPUs the same."""
    free = host.hypervisor.free_pages() >> 8
    with host.zone(memory_mib=160, memory_max_mib=416, vcpus=1, vcpus_max=3) as zone:
        wait_for(zone.state, "word of the guest")
        first, taken = zone.resources(), free - (host.hypervisor.free_pages() >> 8)
        booted = zone.state()
        say(step="booted", guest=booted, xen=dataclasses.asdict(first), taken_mib=taken)
        assert first.memory_now_mib <= 162 and taken < 180, "the maximum is a map only"
        for target in (416, 120, 160):
            started = time.monotonic()
            resize.set_memory(host.hypervisor, host.xenstore, zone.domain.domid, zone.domain.uuid, target)
            wait_for(lambda: zone.resources().settled, f"{target} MiB: {zone.resources()}")
            took = round(time.monotonic() - started, 2)
            # What the guest says is as old as its last look.
            wanted = booted["total_mib"] + target - 160
            wait_for(lambda wanted=wanted: abs(zone.state()["total_mib"] - wanted) < 30, f"about {wanted} MiB in it")
            say(step=target, took_s=took, guest=zone.state(), xen=dataclasses.asdict(zone.resources()))
        for refused in (417, 0):
            try:
                resize.set_memory(host.hypervisor, host.xenstore, zone.domain.domid, zone.domain.uuid, refused)
            except RuntimeFault as fault:
                say(refused=str(fault))
            else:
                raise AssertionError(f"{refused} MiB was not refused")
        for count, online in ((3, "0-2"), (1, "0"), (2, "0-1")):
            resize.set_vcpus(host.hypervisor, host.xenstore, zone.domain.domid, zone.domain.uuid, count)
            wait_for(lambda: zone.resources().settled, f"{count} vCPUs: {zone.resources()}")
            wait_for(lambda online=online: zone.state()["online"] == online, f"online {online}: {zone.state()}")
            say(step="vcpus", guest=zone.state(), xen=dataclasses.asdict(zone.resources()))


def greedy(host: Host) -> None:
    """How far a small zone's memory map lets it grow: to eleven times what it began with."""
    with host.zone(memory_mib=112, memory_max_mib=448) as zone:
        wait_for(zone.state, "word of the guest")
        say(guest=zone.state())
        resize.set_memory(host.hypervisor, host.xenstore, zone.domain.domid, zone.domain.uuid, 448)
        wait_for(lambda: zone.resources().settled, f"448 MiB: {zone.resources()}")
        say(guest=zone.state(), xen=dataclasses.asdict(zone.resources()))


def disks(host: Host) -> None:
    """Read-only and writable disks come and go; what the zone wrote is in the file; the loop devices are free again."""
    image = STORE / "volume"
    image.write_bytes(b"from the host\n".ljust(1 << 20, b"\0"))
    with host.zone() as zone:
        wait_for(zone.state, "word of the guest")
        for readonly in (True, False):
            started = time.monotonic()
            loop = LoopDevice(image, zone.record, readonly=readonly)
            zone.loops.append(loop)
            hotplug.plug_disk(zone.domain, Disk("xvdc", str(loop.device), readonly=readonly), zone.record)
            plugged = time.monotonic()
            assert host.findings() == [], host.findings()
            wait_for(lambda: "xvdc" in zone.state()["disks"], "xvdc")
            if not readonly:
                wait_for(lambda: image.read_bytes().startswith(b"from the zone\n"), "what the zone wrote")
            begun = time.monotonic()
            hotplug.unplug_disk(zone.domain, "xvdc", zone.record)
            say(readonly=readonly, plug_s=round(plugged - started, 2), unplug_s=round(time.monotonic() - begun, 2))
            loop.close()
            wait_for(lambda: str(image) not in loops.in_use().values(), f"free loop device: {loops.in_use()}")
            wait_for(lambda: "xvdc" not in zone.state()["disks"], "end of xvdc")
            if readonly:
                assert image.read_bytes().startswith(b"from the host\n")
        assert host.findings() == [], host.findings()
        loop = LoopDevice(image, zone.record)
        zone.loops.append(loop)
        for name in "bcdefghijklmnop":
            hotplug.plug_disk(zone.domain, Disk(f"xvd{name}", str(loop.device)), zone.record)
        wait_for(lambda: len(zone.state()["disks"]) == 16, f"sixteen disks: {zone.state()}")
        try:
            hotplug.free_vdev(hotplug.disks_of(host.xenstore, zone.domain.domid))
        except RuntimeFault as fault:
            say(refused=str(fault), findings=host.findings())


def leaks(host: Host) -> None:
    """A real zone has no findings; a leak of every kind that can be planted in a real host is found, and undone."""
    with host.zone() as zone:
        wait_for(zone.state, "word of the guest")
        found = host.findings()
        assert found == [], found
        say(looked_at=host.looked_at, unseen=host.unseen)
        for name, plant in PLANTS.items():
            undo = plant(host, zone)
            try:
                found = host.findings()
            finally:
                undo()
            kinds = {text.split(" ")[0] for text in found}
            say(planted=name, found=found)
            assert name.split(" ")[0] in kinds, (name, found)
            after = wait_for(lambda: host.findings() == [] or None, f"end of {name}: {host.findings()}")
            assert after
    assert host.findings() == []


def plant_domain(host: Host, zone: Zone) -> Callable[[], Any]:
    domid = host.hypervisor.create_domain(str(uuid.uuid4()), max_vcpus=1)
    return lambda: host.hypervisor.destroy_domain(domid)


def plant_tree(host: Host, zone: Zone) -> Callable[[], Any]:
    host.xenstore.write("/local/domain/999/name", "old")
    return lambda: host.xenstore.remove("/local/domain/999")


def plant_backend(host: Host, zone: Zone) -> Callable[[], Any]:
    host.xenstore.write("/local/domain/0/backend/vbd/999/51712/online", "0")
    return lambda: host.xenstore.remove("/local/domain/0/backend/vbd/999")


def plant_disk(host: Host, zone: Zone) -> Callable[[], Any]:
    """A disk that was plugged in and recorded nowhere."""
    device = host.devices[str(host.bundle.rootfs.digest)]
    hotplug.plug_disk(zone.domain, Disk("xvdd", device), lambda kind, **fields: None)
    return lambda: hotplug.unplug_disk(zone.domain, "xvdd", lambda kind, **fields: None)


def plant_channel(host: Host, zone: Zone) -> Callable[[], Any]:
    """An event channel that outlives its domain, as a process that forgot it would leave it."""
    domid = host.hypervisor.create_domain(str(uuid.uuid4()), max_vcpus=1)
    channel = host.hypervisor.bind(domid, host.hypervisor.alloc_unbound(domid, 0))  # type: ignore[arg-type]
    host.hypervisor.destroy_domain(domid)
    return channel.close


def plant_loop(host: Host, zone: Zone) -> Callable[[], Any]:
    (STORE / "old").write_bytes(bytes(4096))
    return LoopDevice(STORE / "old", lambda kind, **fields: None).close


def plant_netns(host: Host, zone: Zone) -> Callable[[], Any]:
    netns.create("zw-old")
    return lambda: netns.delete("zw-old")


def plant_network(host: Host, zone: Zone) -> Callable[[], Any]:
    """A whole network of which no ledger knows: namespace, engine, directory."""
    network = ZoneNetwork("old", plan_addresses(202), 1500, lambda kind, **fields: None, run_directory=RUN / "net")
    network.create()
    return network.destroy


def plant_file(host: Host, zone: Zone) -> Callable[[], Any]:
    (RUN / "net" / "forgotten").mkdir()
    return (RUN / "net" / "forgotten").rmdir


PLANTS = {
    "domain": plant_domain,
    "xenstore tree": plant_tree,
    "xenstore back end": plant_backend,
    "xenstore disk": plant_disk,
    "event channel": plant_channel,
    "loop": plant_loop,
    "netns": plant_netns,
    "process of a network": plant_network,
    "file": plant_file,
}


def adopted(host: Host) -> None:
    """kill -9 of what built the zone: another process finds it by its ledger, and does all with it."""
    pid = os.fork()
    if not pid:
        try:
            host.open()
            ledger = host.ledgers.create("box")
            Zone(host, ledger, ledger.record).boot(memory_max_mib=320, vcpus_max=2)
            (HOME / "ready").touch()
            time.sleep(600)
        finally:
            os._exit(1)
    wait_for((HOME / "ready").exists, "the zone of the child")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    (ledger,) = host.ledgers.all()
    zone = Zone(host, ledger, ledger.record)
    zone.domain = adopt(ledger.records(), host.hypervisor, host.xenstore)
    zone.network = ZoneNetwork("box", plan_addresses(201), 1500, ledger.record, run_directory=RUN / "net")
    try:
        assert zone.network.adopt(ledger.records())
        assert host.findings() == [], host.findings()
        wait_for(zone.state, "word of the guest")
        zone.network.engine.stop()  # type: ignore[union-attr]
        started = time.monotonic()
        zone.network.revive()
        say(revived_s=round(time.monotonic() - started, 2), counters=zone.network.counters())
        domain = zone.domain
        resize.set_memory(host.hypervisor, host.xenstore, domain.domid, domain.uuid, 300)
        resize.set_vcpus(host.hypervisor, host.xenstore, domain.domid, domain.uuid, 2)
        wait_for(lambda: zone.resources().settled, f"300 MiB and 2 vCPUs: {zone.resources()}")
        hotplug.plug_disk(domain, Disk("xvdc", host.devices[str(host.bundle.rootfs.digest)]), ledger.record)
        say(guest=zone.state(), findings=host.findings())
        assert host.findings() == []
    finally:
        zone.end()


def crashes(host: Host) -> None:
    """A guest that dies in each phase, and one that never lives: each end is told, and nothing is left."""
    ends = {
        "at its first instruction": ("crash", {"kernel": host.broken_kernel()}),
        "without an init": ("crash", {"launch_segment": b"", "ramdisk": (), "cmdline": host.bundle.cmdline}),
        "in its init": ("crash", {"script": "busybox echo c >/proc/sysrq-trigger"}),
        "by its own wish": ("poweroff", {"script": "busybox poweroff -f"}),
    }
    for name, (reason, changes) in ends.items():
        with host.zone(**changes) as zone:
            found = wait_for(zone.domain.shutdown_state, f"end {name}")
            say(end=name, reason=found.reason, console=zone.domain.console.tail(200))
            # A panic is a crash, not the reboot of panic=-1: arch/x86/xen/enlighten.c, xen_panic_event.
            assert found.reason == reason, (name, found)
            # What has ended and is not torn down yet is the ledger's still.
            assert host.findings() == [], (name, host.findings())
        assert host.findings() == [], (name, host.findings())
    ledger = host.ledgers.create("silent")
    zone = Zone(host, ledger, ledger.record)
    zone.boot(paused=True)
    try:
        disk = Disk("xvdc", host.devices[str(host.bundle.rootfs.digest)])
        hotplug.plug_disk(zone.domain, disk, ledger.record, timeout_s=5)
    except DeviceFault as fault:
        # The back end has offered the disk, and waits for a front end that never comes.
        assert fault.temporary and "expected the zone to take it" in str(fault), fault
        say(silent=str(fault))
    else:
        raise AssertionError("a guest that never ran took a disk")
    assert host.findings() == [], host.findings()
    zone.end()
    assert host.findings() == [], host.findings()


# -- faults ------------------------------------------------------------------------------------------------------------

DONE, FAILED, DEFECT = 0, 3, 4


def faults(host: Host, count: str = "8", phases: str = "boot,end") -> None:
    """Points of a boot and of a teardown, evenly spread (0: all), each failed once and killed at once."""
    from doorfaults import Points

    for phase in phases.split(","):
        assert run_child(host, phase, Points()) == DONE
        points = (HOME / "points").read_text().splitlines()
        recover(host)
        wanted = int(count) or len(points)
        chosen = points if wanted >= len(points) else [points[at * len(points) // wanted] for at in range(wanted)]
        for what in ("fail", "kill"):
            ended: Counter[int] = Counter()
            missed, started = [], time.monotonic()
            for point in chosen:
                for _ in range(3):  # how often a wait looks differs from run to run
                    code = run_child(host, phase, Points(point, what))
                    reached = point in (HOME / "points").read_text().splitlines()
                    recover(host)
                    left = settled(host)
                    assert left == [] and code != DEFECT, (phase, what, point, code, left)
                    if reached:
                        break
                ended[code] += 1
                missed += [] if reached else [point]
            kinds = Counter(point.split(" ")[0].split("#")[0] for point in points)
            say(phase=phase, what=what, points=len(points), tried=len(chosen), missed=missed, ended=dict(ended),
                kinds=dict(kinds), seconds=round(time.monotonic() - started))  # fmt: skip


def run_child(host: Host, phase: str, points: Any) -> int:
    from doorfaults import FaultyDoor, Points, faulty_edges, faulty_record, was_injected

    def note() -> None:
        (HOME / "points").write_text("\n".join(points.seen))

    points.before_kill = note
    pid = os.fork()
    if not pid:
        code = DEFECT
        try:
            host.open()
            door = FaultyDoor(host.hypervisor.door, points if phase == "boot" else Points())
            host.hypervisor._door = door
            ledger = host.ledgers.create("box")
            record = faulty_record(ledger.record, points) if phase == "boot" else ledger.record
            zone = Zone(host, ledger, record)
            try:
                if phase == "boot":
                    with faulty_edges(points):
                        zone.boot(script="busybox sleep 600")
                        domain = zone.domain
                        resize.set_memory(host.hypervisor, host.xenstore, domain.domid, domain.uuid, 150)
                        resize.set_vcpus(host.hypervisor, host.xenstore, domain.domid, domain.uuid, 1)
                else:
                    zone.boot(script="busybox sleep 600")
                    door.points = points
                    with faulty_edges(points):
                        zone.end()
            except BaseException:
                with faulty_edges(points):
                    zone.end()
                raise
            code = DONE
        except Exception:
            text = traceback.format_exc()
            code = FAILED if was_injected(text, points) else DEFECT
            if code == DEFECT:
                sys.stderr.write(text)
        finally:
            note()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def recover(host: Host) -> None:
    """What the next zoned does with the ledgers it finds."""
    for ledger in host.ledgers.all():
        Zone(host, ledger, ledger.record).end()


def settled(host: Host) -> list[str]:
    """What is left; an engine whose starter was killed before telling it anything ends by itself, once it runs."""
    deadline = time.monotonic() + 30
    while any("(a network engine): in no ledger" in line for line in host.findings()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return host.findings()


CASES: dict[str, Callable[..., None]] = {
    "machine": machine_case,
    "elastic": elastic,
    "greedy": greedy,
    "disks": disks,
    "leaks": leaks,
    "crashes": crashes,
    "adopted": adopted,
    "faults": faults,
}


def main(words: list[str]) -> None:
    logging.basicConfig(level=logging.WARNING)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shutil.rmtree(HOME, ignore_errors=True)
    for path in (RUN / "net", RUN / "console", STORE):
        path.mkdir(parents=True)
    host = Host(json.loads(Path(words[0]).read_text()))
    before = host.findings()
    assert before == [], before
    CASES[words[1]](host, *words[2:])
    left = host.findings()
    shutil.rmtree(HOME)
    say(case=words[1], left=left, loops=loops.in_use(), memory_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(sys.argv[1:])
