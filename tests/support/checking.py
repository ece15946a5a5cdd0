"""A host of one zone, as far as it can be had without Xen: domain and trees on the fakes, all else in this kernel."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.boot import build, elf, vbd
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Disk, DomainSpec, FileRange, Vif
from runtime.boot.plan import DomainPlan, plan_domain
from runtime.boot.xenstore import XenStore
from runtime.host.check import Report, check
from runtime.host.check.look_host import Places
from runtime.host.ledger import Ledger, LedgerDir
from support.hypervisor import FakeXen
from support.kernels import kernel_elf
from support.xenstored import FakeXenstored

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def small_plan(directory: Path, *, uuid: str = UUID, vif: bool = True, **changes: Any) -> DomainPlan:
    """A domain of 64 MiB with two disks, changed as a DomainSpec's fields say."""
    (directory / "kernel").write_bytes(kernel_elf())
    kernel = FileRange(str(directory / "kernel"), len(kernel_elf()))
    spec = DomainSpec(
        name="web",
        uuid=uuid,
        kernel=kernel,
        memory_mib=64,
        disks=(Disk("xvda", "/dev/vdb"), Disk("xvdb", "/dev/vdc")),
        vif=Vif("02:00:00:00:00:01") if vif else None,
    )
    return plan_domain(dataclasses.replace(spec, **changes), elf.read_kernel(kernel))


class CheckedHost:
    """Fakes, directories and ledgers; `check` compares them.

    shared: kinds of which other programs of this machine have things too; only what names `mine` counts.
    """

    def __init__(self, directory: Path, mine: str) -> None:
        self.directory, self.mine = directory, mine
        self.run, self.store = directory / "run", directory / "store"
        self.devices, self.cgroups = directory / "devices", directory / "cgroups"
        for path in (self.run, self.store, self.devices, self.cgroups):
            path.mkdir(exist_ok=True)
        self.xen, self.xenstored = FakeXen(), FakeXenstored(directory)
        self.xenstore = XenStore(self.xenstored.path, timeout_s=60)
        self.ledgers = LedgerDir(self.run / "ledger")
        self.places = Places((self.run,), backends=self.devices, cgroups=self.cgroups)

    def close(self) -> None:
        self.xenstore.close()
        self.xenstored.close()

    def hypervisor(self) -> Hypervisor:
        return Hypervisor(self.xen)

    def build(self, ledger: Ledger, plan: DomainPlan) -> Any:
        log = self.run / "console.log"
        return build.build_domain(plan, self.hypervisor(), self.xenstore, ledger.record, console_log=log)

    def check(self) -> Report:
        allowed = (str(self.run / "ledger"),)
        report = check(
            self.hypervisor(), self.xenstore, self.ledgers.all, places=self.places, allowed=lambda: allowed,
            loop_files=(str(self.store),),
        )  # fmt: skip
        mine = tuple(finding for finding in report.findings if self._is_mine(str(finding)))
        return Report(mine, report.looked_at, report.unseen)

    def _is_mine(self, text: str) -> bool:
        """Other tests run on this machine at the same time, with namespaces and engines of their own."""
        return not text.startswith(("netns", "process", "mount /run/netns", "vif")) or self.mine in text


@contextmanager
def checked_host(directory: Path, mine: str, monkeypatch: Any) -> Iterator[CheckedHost]:
    """A host whose disks have numbers."""
    number_disks(monkeypatch)
    host = CheckedHost(directory, mine)
    yield host
    host.close()


def orphan(word: str) -> int:
    """A process with a word in its command line, whose parent has ended; its pid."""
    code = "from subprocess import *; import sys; print(Popen(sys.argv[1:], stdout=DEVNULL, stderr=DEVNULL).pid)"
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)", word]
    said = subprocess.run([sys.executable, "-c", code, *sleeper], capture_output=True, text=True, check=True).stdout
    return int(said)


def end_orphan(pid: int) -> None:
    """End it, and wait until it is gone."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        select.select([fd], [], [], 120)
    finally:
        os.close(fd)


def number_disks(monkeypatch: Any) -> None:
    """Any path is a block device."""
    monkeypatch.setattr(vbd, "device_number", lambda device: (254, 16))
