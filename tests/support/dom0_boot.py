"""Runs inside dom0, by hand or from a lab test: builds real domains and reports as JSON lines what became of them.

    python3 dom0_boot.py KERNEL KERNEL_BYTES INITRD INITRD_BYTES CASE

Only the standard library and what runtime.boot brings; PYTHONPATH names where that is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from runtime.boot import build, doors, elf, p2m, plan, teardown, xenstore
from runtime.boot.model import DomainSpec, FileRange, Pfn, Vif

DIRECTORY = Path(tempfile.gettempdir())
LEDGER = DIRECTORY / "dom0-boot.ledger"


class Case:
    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.kernel, self.initrd = FileRange(words[0], int(words[1])), FileRange(words[2], int(words[3]))
        self.info = elf.read_kernel(self.kernel)
        self.hypervisor, self.xenstore = doors.open_doors(), xenstore.XenStore()
        self.before = self.left()

    def spec(self, name: str, **changes: Any) -> DomainSpec:
        base = DomainSpec(
            name=name,
            uuid=str(uuid.uuid4()),
            kernel=self.kernel,
            ramdisk=(self.initrd,),
            memory_mib=128,
            cmdline="console=hvc0 panic=-1 mitigations=off loglevel=7",
            vif=Vif("02:00:00:00:00:01"),
        )
        return dataclasses.replace(base, **changes)

    def build(self, name: str, record: Any = lambda kind, **fields: None, **changes: Any) -> Any:
        planned = plan.plan_domain(self.spec(name, **changes), self.info)
        return self.build_planned(name, planned, record)

    def build_planned(self, name: str, planned: Any, record: Any = lambda kind, **fields: None) -> Any:
        log = DIRECTORY / f"dom0-boot-{name}.log"
        log.unlink(missing_ok=True)
        return build.build_domain(planned, self.hypervisor, self.xenstore, record, console_log=log)

    def left(self) -> dict[str, Any]:
        """Everything a domain could leave behind."""
        return {
            "domains": [info.domid for info in self.hypervisor.domains()],
            "homes": self.xenstore.children("/local/domain"),
            "vbd": self.xenstore.children("/local/domain/0/backend/vbd"),
            "vif": self.xenstore.children("/local/domain/0/backend/vif"),
            "interfaces": sorted(name for name in os.listdir("/sys/class/net") if name.startswith("vif")),
            "free_pages": self.hypervisor.free_pages(),
        }

    def say(self, **fields: Any) -> None:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()

    def boots(self, name: str, **changes: Any) -> None:
        """A domain's kernel says its version; how many CPUs it brought up, and the memory it counts, are in the log."""
        with self.build(name, **changes) as domain:
            domain.unpause()
            self.until_said(domain, "Linux version")
            self.until_said(domain, "Memory: ")
            self.until_said(domain, "smp: Brought up")
            self.say(name=name, console=domain.console.tail(1 << 20), timings=domain.timings)

    def until_said(self, domain: Any, words: str) -> None:
        deadline = time.monotonic() + 180
        while words not in domain.console.tail(1 << 20):
            if time.monotonic() > deadline or domain.shutdown_state() is not None:
                raise AssertionError(f"{domain.name}: no {words!r} in: {domain.console.tail()}")
            time.sleep(0.05)

    # -- cases

    def sizes(self) -> None:
        self.boots("small", memory_mib=128)
        self.boots("four", memory_mib=256, vcpus=4)
        self.boots("odd", memory_mib=131, memory_max_mib=300, vcpus=1, vcpus_max=2)

    def three(self) -> None:
        faults: list[str] = []

        def one(number: int) -> None:
            try:
                self.boots(f"at-once-{number}", vcpus=number)
            except BaseException as problem:
                faults.append(repr(problem))

        threads = [threading.Thread(target=one, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.say(faults=faults)

    def single_pages(self) -> None:
        """As if Xen's free memory were in pieces: a part of the memory is taken page by page."""
        planned = plan.plan_domain(self.spec("pieces"), self.info)
        kept = 20
        rest = Pfn(kept << p2m.ORDER_2MIB)
        extents = (
            p2m.Extent(Pfn(0), p2m.ORDER_2MIB, kept),
            p2m.Extent(rest, 0, planned.layout.nr_pages - rest),
        )
        with self.build_planned("pieces", dataclasses.replace(planned, extents=extents)) as domain:
            domain.unpause()
            self.until_said(domain, "smp: Brought up")

    def killed(self) -> None:
        """kill -9 of the builder at many moments; its ledger alone is enough to clean up."""
        seen = set()
        for turn in range(12):
            LEDGER.unlink(missing_ok=True)
            command = [sys.executable, __file__, *self.words[:4], "victim"]
            child = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(turn * 0.04)
            child.kill()
            child.wait()
            child.stdout.close()
            records = [json.loads(line) for line in LEDGER.read_text().splitlines()] if LEDGER.exists() else []
            seen.add(len(records))
            teardown.teardown(records, self.hypervisor, self.xenstore)
            left = self.left()
            if left != self.before:
                raise AssertionError(f"kill {turn} with {records}: left {left}, before {self.before}")
        self.say(records=sorted(seen))

    def victim(self) -> None:
        with open(LEDGER, "w", encoding="utf-8") as ledger:

            def record(kind: str, **fields: Any) -> None:
                ledger.write(json.dumps({"kind": kind, **fields}) + "\n")
                ledger.flush()
                os.fsync(ledger.fileno())

            self.say(ready=True)
            self.build("victim", record).unpause()
            time.sleep(60)

    def run(self) -> None:
        name = self.words[4]
        {case.__name__: case for case in (self.sizes, self.three, self.single_pages, self.killed, self.victim)}[name]()
        left = self.left()
        # xenstored answers from dom0's memory, Xen's own heap keeps some pages for the next domain.
        leaked_pages = self.before.pop("free_pages") - left.pop("free_pages")
        self.say(case=name, left=left, before=self.before, leaked_pages=leaked_pages)


if __name__ == "__main__":
    Case(sys.argv[1:]).run()
