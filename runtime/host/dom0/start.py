"""Bring the lab's dom0 up, once. Nothing here is needed on a real Xen host, where the distribution does the same."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import kernelmodules
from runtime.boot import schedule
from runtime.boot.doors import open_doors
from runtime.boot.model import Domid
from runtime.errors import RuntimeFault
from runtime.host.dom0.daemonstate import RUN

log = logging.getLogger("runtime.host.dom0.start")

# In RUN once the steps are done: os/dom0/zoned looks for it.
UP = "up"
DIRECTORIES = (
    "/run/xen",
    "/run/xenstored",
    "/run/lock",
    "/run/netns",
    "/run/zonewright",
    "/var/lib/xenstored",
    "/var/lib/xen/dump",
    "/var/log/xen",
)
XENSTORED_SOCKET = Path("/run/xenstored/socket")
XENSTORED_PID = Path("/run/xenstored.pid")
XENSTORED_TIMEOUT_S = 60.0
TOOL_TIMEOUT_S = 120.0
DOM0, DOM0_WEIGHT = Domid(0), 2048
# QEMU's user-mode network: this machine, its router, its name server. Source: QEMU, net/slirp.c, net_slirp_init.
NETWORK_CARD = "eth0"
NETWORK = (
    f"link set {NETWORK_CARD} up",
    f"address replace 10.0.2.15/24 dev {NETWORK_CARD}",
    "route replace default via 10.0.2.2",
)
NAME_SERVER = "10.0.2.3"
# The network engine; what pulls images, with the libraries it loads when it needs them.
PROGRAMS = (
    "runtime.net.engine.main",
    *("runtime.host.images.child", "pipeline.fetch.registry", "pipeline.squashfs", "pipeline.unpack.tar"),
    *("urllib3", "zstandard", "cffi.api", "concurrent.futures.thread"),
)


class BringUpFailed(RuntimeFault):
    """dom0 could not be made ready for zones."""


def load_modules() -> None:
    """Load every module zones need."""
    _run(["/usr/bin/busybox", "modprobe", "-a", *kernelmodules.LAB])


def mount_xenfs() -> None:
    """/proc/xen, which says whether this is the control domain."""
    if not Path("/proc/xen/capabilities").exists():
        _run(["/usr/bin/busybox", "mount", "-t", "xenfs", "xenfs", "/proc/xen"])


def favour_dom0() -> None:
    """Let no zone keep dom0 from the CPUs: all of them wait for what runs here.

    With the weight all domains start with, five zones under load left dom0 less than half of what it asked for, and a
    zoned that was started again needed a minute to come up.
    """
    hypervisor = open_doors()
    try:
        schedule.set_weight(hypervisor, DOM0, DOM0_WEIGHT)
    finally:
        hypervisor.close()


def make_directories() -> None:
    """Where xenstored and zoned keep their files."""
    for path in DIRECTORIES:
        Path(path).mkdir(parents=True, exist_ok=True)


def start_xenstored() -> None:
    """xenstored, once: it cannot be restarted without losing what domains have written."""
    if _is_socket(XENSTORED_SOCKET):
        return
    daemons = sorted(Path("/usr/lib").glob("xen-*/bin/xenstored"))
    if not daemons:
        raise BringUpFailed("xenstored", expected="it below /usr/lib/xen-*", got="none in the dom0 image")
    _run([str(daemons[-1]), "--pid-file", str(XENSTORED_PID)])
    deadline = time.monotonic() + XENSTORED_TIMEOUT_S
    while not _is_socket(XENSTORED_SOCKET):
        if time.monotonic() > deadline:
            raise BringUpFailed("xenstored", expected=f"{XENSTORED_SOCKET}", got="no such socket")
        time.sleep(0.02)


def start_network() -> None:
    """The network card towards the machine that runs the lab."""
    if not Path(f"/sys/class/net/{NETWORK_CARD}").exists():
        log.warning("no network card: the lab was started without one")
        return
    _run(["ip", "-batch", "-"], "\n".join(NETWORK))
    Path("/etc/resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")


def warm_programs() -> None:
    """Import once what is started again and again: compiled modules and cached files stay, in the snapshot as well."""
    _run([sys.executable, "-c", f"import {', '.join(PROGRAMS)}"])


STEPS: tuple[Callable[[], None], ...] = (
    load_modules,
    mount_xenfs,
    favour_dom0,
    make_directories,
    start_xenstored,
    start_network,
    warm_programs,
)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _run(argv: Sequence[str], text: str = "") -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip().splitlines()[-2:]
        raise BringUpFailed(" ".join(argv[:3]), expected="success", got=f"code {done.returncode}: {' | '.join(tail)}")


def main() -> None:
    """Every step in order."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    for step in STEPS:
        begin = time.monotonic()
        try:
            step()
        except (RuntimeFault, OSError, subprocess.SubprocessError):
            # zoned comes up even so: it can say what is missing, and the lab's shell can look into it.
            log.exception("%s", step.__name__)
        log.info("%s: %.2f s", step.__name__, time.monotonic() - begin)
    (RUN / UP).touch()


if __name__ == "__main__":
    main()
