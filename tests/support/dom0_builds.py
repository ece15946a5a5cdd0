"""In dom0: domains with all that a zone has are built and destroyed in a row, without ever running.

Words: a JSON file {"kernel": [path, bytes], "ramdisk": [path, bytes], "rootfs": path, "scratch": path}, how often.
Prints, as JSON, what there was before and what is left: [{...}, {...}], alike when nothing leaked.
Only the standard library and what the runtime brings.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from runtime.boot import build, doors, machine
from runtime.boot.elf import read_kernel
from runtime.boot.model import Disk, DomainSpec, Domid, FileRange, Vif
from runtime.boot.plan import plan_domain
from runtime.boot.xenstore import XenStore
from runtime.host import loops
from runtime.net.addresses import plan_addresses
from runtime.net.network import ZoneNetwork

RUN = Path("/tmp/dom0-builds")
SETTLED_WITHIN_S = 30.0
WARM_UP = 8
DIRECTORIES = ("/run/netns", "/sys/class/net", "/sys/bus/xen-backend/devices")


def ignored(kind: str, **fields: Any) -> None:
    """No ledger: what this program made is gone with it, or found by what is left."""


class Builds:
    def __init__(self, facts: dict[str, Any]) -> None:
        self.kernel, self.ramdisk = FileRange(*facts["kernel"]), (FileRange(*facts["ramdisk"]),)
        self.rootfs, self.scratch = facts["rootfs"], Path(facts["scratch"])
        self.info = read_kernel(self.kernel)
        self.hypervisor, self.xenstore = doors.open_doors(), XenStore()

    def one(self) -> None:
        """Network, two disks, a vif in the network, console and agent's channel; then all of it goes.

        One vCPU, as zones have: of each domain with a second one that never came up, Xen 4.17 keeps some 300 bytes
        (104 of them cost 10 pages; with one vCPU, 40 cost none).
        """
        addresses = plan_addresses(202)
        network = ZoneNetwork("builds", addresses, 1500, ignored, run_directory=RUN / "net")
        scratch = loops.LoopDevice(self.scratch, ignored, readonly=False)
        try:
            network.create()
            spec = DomainSpec(
                name="builds",
                uuid=str(uuid.uuid4()),
                kernel=self.kernel,
                ramdisk=self.ramdisk,
                memory_mib=128,
                disks=(Disk("xvda", self.rootfs), Disk("xvdb", str(scratch.device), readonly=False)),
                vif=Vif(addresses.zone_mac),
            )
            planned = plan_domain(spec, self.info)
            log = RUN / "console.log"
            with build.build_domain(planned, self.hypervisor, self.xenstore, ignored, console_log=log) as domain:
                network.attach(domain.wait_vif())
                domain.connect_vif()
        finally:
            network.destroy()
            scratch.close()

    def left(self) -> dict[str, Any]:
        domains = list(self.hypervisor.domains())
        # dom0's kernel gives pages to Xen for what it maps of others, and takes them back later: its own count, too.
        dom0_pages = sum(info.tot_pages for info in domains if not info.domid)
        return {
            "domains": len(domains),
            "trees": self.xenstore.children("/local/domain"),
            "free pages, and dom0's": self.hypervisor.free_pages() + dom0_pages,
            "event channels": len(list(machine.channels(self.hypervisor, Domid(0)))),
            "loop devices": loops.in_use(),
            "descriptors": len(os.listdir("/proc/self/fd")),
        } | {directory: sorted(os.listdir(directory)) for directory in DIRECTORIES}


def main(facts: str, count: str) -> None:
    RUN.mkdir(exist_ok=True)
    builds = Builds(json.loads(Path(facts).read_text()))
    for _ in range(WARM_UP):
        builds.one()  # what the first ones load and open stays, here and in Xen
    before = builds.left()
    for _ in range(int(count)):
        builds.one()
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while (after := builds.left()) != before and time.monotonic() < deadline:
        time.sleep(0.2)  # a loop device clears itself when its back end has let go
    sys.stdout.write(json.dumps([before, after]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
