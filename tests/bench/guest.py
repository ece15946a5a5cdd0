"""Guest instructions, the kernel's own on a program's behalf included: a QEMU whose clock is its count of instructions.

With `-icount shift=0` an instruction takes a nanosecond of the guest's time, whatever the host does meanwhile; so the
times the kernel prints, in microseconds, are thousands of instructions. The zone's own kernel starts the program under
the name `zone`, which says its first line and ends, upon which the kernel panics: all between its two lines is counted.

Source:  QEMU, docs/devel/tcg-icount.rst; init/main.c, run_init_process.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from run import NotMeasured
from support import zoneparts
from support.tools import require

from pipeline.fetch.model import FetchResult
from pipeline.layers import Spools
from pipeline.unpack import UnpackParams, open_rootfs
from pipeline.unpack import run as unpack

CMDLINE = "console=ttyS0 loglevel=7 panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on rdinit=/bin/zone"
MACHINE = ("-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "qemu64,+rdrand", "-m", "256")
BOOT_S = 300.0
_STARTED = re.compile(r"^\[ *(\d+)\.(\d{6})\] Run /bin/zone as init process$", re.M)
_ENDED = re.compile(r"^\[ *(\d+)\.(\d{6})\] Kernel panic - not syncing: Attempted to kill init!", re.M)


def first_line(directory: Path, initrd: Path) -> int:
    """Instructions from the kernel's start of the program to its end behind its first line. Raises NotMeasured."""
    require("qemu-system-x86_64")
    env, image = zoneparts.env(), zoneparts.zone_kernel().image
    fetched = FetchResult("recipe:debian-cloud", image.manifest, image.config, image.layers, image.diff_ids)
    kernel = directory / "kernel"
    with Spools(env.store) as spools:
        kernel.write_bytes(open_rootfs(env.store, unpack(UnpackParams(fetched), env), spools).read("kernel/image"))
    argv = ["qemu-system-x86_64", *MACHINE, "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    argv += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", CMDLINE]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_S)
    return between(done.stdout.decode(errors="replace").replace("\r", ""))


def between(console: str) -> int:
    """Instructions between the two lines of the kernel. Raises NotMeasured."""
    stamps = [pattern.search(console) for pattern in (_STARTED, _ENDED)]
    if not all(stamps) or "zone: " not in console:
        raise NotMeasured(f"the guest said nothing of its init: {console[-300:]!r}")
    started, ended = (int(found[1]) * 10**9 + int(found[2]) * 1000 for found in stamps if found)
    return ended - started
