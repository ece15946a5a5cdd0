"""Runs inside dom0, by hand or from a lab test: a whole zone without zoned; its memory, vCPUs, disks, leaks, faults.

    python3 dom0_zone.py FACTS.json CASE      FACTS: {"bundle": ..., "devices": {digest: path}}

Reports as JSON lines. Only the standard library and what the runtime brings; PYTHONPATH names where that is.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dom0faults import faults
from dom0parts import HOME, RUN, STORE, Host, Zone, say, wait_for

from runtime.boot import hotplug, machine, resize, schedule
from runtime.boot.abi import rings
from runtime.boot.domain import adopt
from runtime.boot.errors import DeviceFault
from runtime.boot.model import Disk
from runtime.errors import RuntimeFault
from runtime.host import loops, preflight
from runtime.host.loops import LoopDevice
from runtime.net import netns
from runtime.net.addresses import plan_addresses
from runtime.net.network import ZoneNetwork


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
            say(planted=name, found=found, unseen=host.unseen)
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


def plant_grant(host: Host, zone: Zone) -> Callable[[], Any]:
    """A page of a domain that is to die, which stays mapped: its console's ring, granted to dom0.

    Who maps it is not told by Xen 4.17, which lets nobody look at the grants of a dying domain.
    """
    ledger = host.ledgers.create("held")
    held = Zone(host, ledger, ledger.record)
    held.boot(paused=True, memory_mib=96)
    domid, mapped = held.domain.domid, ExitStack()
    mapped.enter_context(host.hypervisor.map_grant(domid, rings.GNTTAB_RESERVED_CONSOLE))  # type: ignore[arg-type]
    host.hypervisor.destroy_domain(domid)

    def undo() -> None:
        mapped.close()
        held.end()

    return undo


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
    "domain that a grant holds": plant_grant,
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
