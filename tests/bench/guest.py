"""Instructions, where the clock is too noisy: those of an emulated machine, the same whatever the host does meanwhile.

A plugin of QEMU's (counter.c) counts them one by one, in user mode and in the kernel. With `-icount shift=0` an
instruction takes a nanosecond of the guest's time, too; so the times the kernel prints, in microseconds, are thousands
of instructions. The zone's own kernel starts the program, without Xen.

Source:  QEMU, docs/devel/tcg-icount.rst, tcg-plugins.rst; init/main.c, run_init_process.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from run import NotMeasured
from support import guestzone
from support.containers import gcc
from support.guestzone import MACHINE, GuestZone
from support.tinyprogram import EXIT, WRITE, elf
from support.tools import require

from pipeline.bundle.model import Launch, Process

CMDLINE = guestzone.CMDLINE.replace("quiet", "loglevel=7")
COUNTED = ("-icount", "shift=0,sleep=off", "-cpu", "qemu64,+rdrand")
SOURCE = Path(__file__).with_name("counter.c")
MARK = bytes.fromhex("0f1f840037133713")  # an instruction that does nothing and is in no other program: counter.c
MARKED = elf(MARK + WRITE + EXIT)
BOOT_S = 600.0
_STARTED = re.compile(r"^\[ *(\d+)\.(\d{6})\] Run (\S+) as init process$", re.M)
_ENDED = re.compile(r"^\[ *(\d+)\.(\d{6})\] Kernel panic - not syncing: Attempted to kill init!", re.M)
_PHASE = re.compile(r"^zone: phase (\w+) after ([\d.]+) s$", re.M)
_COUNTED = re.compile(r"^counted: user (\d+) kernel (\d+) at (mark|end)$", re.M)


@dataclass(frozen=True)
class Counts:
    """Instructions from the first in user mode on: to the mark, unless there was none, and to the end."""

    at_mark: tuple[int, int] | None
    at_end: tuple[int, int]
    console: str

    @property
    def marked(self) -> tuple[int, int]:
        """In user mode and in the kernel, to the mark. Raises NotMeasured."""
        if self.at_mark is None:
            raise NotMeasured(f"the guest did not come to its workload: {self.console[-300:]!r}")
        return self.at_mark


def run(argv: Sequence[str], directory: Path) -> Counts:
    """Run QEMU to its end with the plugin, which is made in a directory. Raises NotMeasured."""
    require("qemu-system-x86_64")
    gcc("-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", directory / "counter.so", SOURCE)
    words = [*argv, *COUNTED, "-plugin", str(directory / "counter.so")]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_S)
    console, said = (text.decode(errors="replace").replace("\r", "") for text in (done.stdout, done.stderr))
    found = {where: (int(user), int(kernel)) for user, kernel, where in _COUNTED.findall(said)}
    if "end" not in found:
        raise NotMeasured(f"QEMU did not count: {said[-300:]!r}")
    return Counts(found.get("mark"), found["end"], console)


def first_line(zone: GuestZone) -> tuple[int, int]:
    """From the kernel's start of the program to its end behind its first line, which under the name `zone` is at once.

    Gives: instructions in user mode, and those with the kernel's on its behalf. Raises NotMeasured.
    """
    initrd = zone.directory / "initrd-alone"
    initrd.write_bytes(zone.initrd)
    words = ["-kernel", str(zone.kernel), "-initrd", str(initrd), "-append", f"{CMDLINE} rdinit=/bin/zone"]
    counts = run(["qemu-system-x86_64", *MACHINE, "-serial", "stdio", *words], zone.directory)
    if "zone: " not in counts.console:
        raise NotMeasured(f"the program said nothing: {counts.console[-300:]!r}")
    return counts.at_end[0], between(counts.console)


def whole_job(zone: GuestZone, container: dict[str, object]) -> tuple[int, int, int]:
    """From the exec of /init to that of the workload, init, agent and the container's process together.

    zone:  has MARKED as /bin/marked.
    Gives: instructions in user mode, the kernel's, and both while init loads modules, to a million. Raises NotMeasured.
    """
    launch = Launch("box", "ab" * 32, zone.modules, Process(("/bin/marked",), ()), root=guestzone.ROOT, extra=container)
    counts = run(zone.argv(launch), zone.directory)
    phases = {name: round(float(at_s) * 10**9) for name, at_s in _PHASE.findall(counts.console)}
    return *counts.marked, phases["modules"] - phases["init"]


def between(console: str) -> int:
    """Instructions between the two lines of the kernel. Raises NotMeasured."""
    stamps = [pattern.search(console) for pattern in (_STARTED, _ENDED)]
    if not all(stamps):
        raise NotMeasured(f"the guest said nothing of its init: {console[-300:]!r}")
    started, ended = (int(found[1]) * 10**9 + int(found[2]) * 1000 for found in stamps if found)
    return ended - started
