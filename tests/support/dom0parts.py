"""A whole zone in dom0 without zoned: domain, network, loop devices and ledger, for the programs beside this.

Only the standard library and what the runtime brings.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doorfaults import do_again

from pipeline import newc
from pipeline.bundle.model import Bundle, Port
from pipeline.jsonmodel import from_json
from runtime.boot import build, doors, resize
from runtime.boot.elf import read_kernel
from runtime.boot.model import Disk, DomainSpec, FileRange, Vif
from runtime.boot.plan import plan_domain
from runtime.boot.teardown import teardown as teardown_domain
from runtime.boot.xenstore import XenStore
from runtime.host.check import check
from runtime.host.check.look_host import Places
from runtime.host.ledger import Ledger, LedgerDir
from runtime.host.loops import LoopDevice
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
        do_again(steps)
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
