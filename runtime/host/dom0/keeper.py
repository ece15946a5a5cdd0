"""Keeps a zoned in the lab's dom0: each is forked from a process that has imported all that serving takes.

Imports are nearly all of a start where processors are emulated. On a real host systemd does what is done here, and a
start takes half a second.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from runtime.host import zoned
from runtime.host.dom0.daemonstate import RUN, STOPPING
from runtime.net import netns

LOG, LOG_BYTES = "zoned.log", 1 << 20
APART_S = 1.0  # two starts are at least
# Source: linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Import, then keep one."""
    zoned.load()
    gc.collect()
    gc.freeze()  # what was imported stays out of the collections of each zoned, and its pages are shared
    keep(lambda: zoned.main([]), run=RUN)


def keep(serve: Callable[[], int], *, run: Path) -> None:
    """Run `serve` in a process of its own, again whenever that ends; left in those processes alone, by SystemExit.

    It ends with this one, told by SIGTERM. Nothing follows the last once the host goes down.
    """
    keeper = os.getpid()
    while True:
        if (run / STOPPING).exists():
            signal.pause()
        _turn_log(run / LOG)
        begin = time.monotonic()
        child = os.fork()
        if child == 0:
            netns.call("prctl", _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() == keeper:
                os.setsid()
                sys.exit(serve())
            sys.exit(0)
        os.waitpid(child, 0)
        time.sleep(max(0.0, APART_S - (time.monotonic() - begin)))


def _turn_log(log: Path) -> None:
    """Have what is said from now on be in the log, in a new one once it is long."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.rename(log.with_name(f"{log.name}.1"))
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


if __name__ == "__main__":
    main()
