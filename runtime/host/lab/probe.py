"""Does Xen boot on this machine's KVM? /dev/kvm alone does not say: under nested KVM Xen may die in its first second.

The answer is found by booting the lab's own Xen and dom0 kernel, bounded in time, and remembered for this QEMU, kernel
and processor.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.oci import canonical_json
from pipeline.store import write_atomic

log = logging.getLogger(__name__)

KVM = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
PROBE_TIMEOUT_S = 12.0
POLL_S = 0.1
# The first words of dom0's initrd (os/dom0/initrd-init): Xen and a dom0 kernel ran up to user space.
SIGN = b"zonewright: dom0 starts"


def processor() -> str:
    """The processor's model name, which together with the kernel decides what KVM can do."""
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def probe_key(qemu_version: str, xen_digest: str) -> str:
    """What the answer depends on."""
    parts = {"qemu": qemu_version, "kernel": platform.release(), "processor": processor(), "xen": xen_digest}
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def kvm_works(argv: Sequence[str], directory: Path, key: str) -> tuple[bool, str]:
    """(answer, why), remembered as `directory/kvm-<key>.json`.

    argv:    QEMU with -accel kvm, without a monitor, serial on stdout.
    Effects: at most one QEMU for PROBE_TIMEOUT_S seconds.
    """
    if not os.access(KVM, os.R_OK | os.W_OK):
        return False, "no /dev/kvm this user may open" if KVM.exists() else "no /dev/kvm"
    path = directory / f"kvm-{key[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        remembered = json.loads(path.read_bytes())
        return bool(remembered["works"]), str(remembered["why"])
    works, why = _boot(argv, directory)
    write_atomic(path, canonical_json({"works": works, "why": why}))
    log.info("KVM probe: %s (%s)", works, why)
    return works, why


def _boot(argv: Sequence[str], directory: Path) -> tuple[bool, str]:
    directory.mkdir(parents=True, exist_ok=True)
    output = directory / f"kvm-probe.{os.getpid()}.log"
    with open(output, "wb") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        return _watch(process, output)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.unlink(missing_ok=True)


def _watch(process: subprocess.Popen[bytes], output: Path) -> tuple[bool, str]:
    begin = time.monotonic()
    while time.monotonic() - begin < PROBE_TIMEOUT_S:
        ended = process.poll() is not None
        said = output.read_bytes()
        if SIGN in said:
            return True, f"Xen and dom0's kernel ran after {time.monotonic() - begin:.1f} s"
        if b"KVM internal error" in said:
            return False, "KVM internal error"
        if ended:
            lines = said.decode(errors="replace").strip().splitlines()
            return False, f"QEMU ended: {lines[-1][:160] if lines else 'no message'}"
        time.sleep(POLL_S)
    return False, f"Xen and dom0's kernel did not come up within {PROBE_TIMEOUT_S:.0f} s"
