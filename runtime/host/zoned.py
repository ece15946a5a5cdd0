"""zoned: owns the zones of one host. One process, one event loop; what it serves is in runtime/host/serve."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from runtime.errors import RuntimeFault

log = logging.getLogger("zoned")

RUN = Path("/run/zonewright")
STATE = Path("/var/lib/zonewright")


class AlreadyRunning(RuntimeFault):
    """Another zoned owns this host's zones."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM. Zones run on, and the next zoned adopts them."""
    parser = argparse.ArgumentParser(prog="zoned", description="owns the zones of this host")
    parser.add_argument("--run", type=Path, default=RUN, metavar="DIR", help="sockets and ledgers (%(default)s)")
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR", help="database, logs, store (%(default)s)")
    parser.add_argument("--store", type=Path, action="append", default=[], metavar="DIR", help="a store to read blobs from")
    parser.add_argument("--disk-wait", type=float, default=0.0, metavar="S", help="blobs may be plugged in as disks")
    parser.add_argument("--deny", action="append", default=[], metavar="NET", help="a network no zone may reach")
    parser.add_argument("--end-zones", action="store_true", help="end all zones at SIGTERM")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    options.run.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        with only_one(options.run):
            return asyncio.run(_serve(options))
    except RuntimeFault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


@contextlib.contextmanager
def only_one(run: Path) -> AsyncIterator[None]:
    """Hold this host's lock; raises AlreadyRunning."""
    lock = os.open(run / "zoned.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning("zoned", got="another one runs on this host") from None
        yield
    finally:
        os.close(lock)
