"""zoned: owns the zones of one host. This is its process: the lock, the signals, what is opened and closed, and when.

zoned           on a real host
zoned --lab     in the lab's dom0: state and keys come only once it runs, so it waits for them
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import RuntimeFault
from runtime.host.dom0 import daemonstate
from runtime.host.serve.notify import notify

if TYPE_CHECKING:
    from runtime.host.daemon.manager import Manager

log = logging.getLogger("zoned")

RUN = daemonstate.RUN
STATE = Path("/var/lib/zonewright")
SOCKET = RUN / "zoned.sock"


class AlreadyRunning(RuntimeFault):
    """Another zoned owns this host's zones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; zones run on and are adopted by the next zoned."""
    parser = argparse.ArgumentParser(prog="zoned", description="Owns the zones of this host.")
    parser.add_argument("--lab", action="store_true", help="wait for the lab's agent to bring state and keys")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    RUN.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        with _only_one():
            asyncio.run(_serve(lab=arguments.lab))
    except RuntimeFault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    lock = os.open(RUN / "zoned.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning("zoned", got="another one runs on this host") from None
    finally:
        os.close(lock)


async def _serve(*, lab: bool) -> None:
    loop, stop, again = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, again.set)
    # Imported here, so that a host that cannot load them still says why; in the lab the snapshot holds them loaded.
    from runtime.host.serve.host import HostService
    from runtime.host.serve.server import HostServer
    from runtime.host.serve.tls import SYSTEM_DIRECTORY

    if lab and not await _configured(stop, again):
        return
    daemonstate.say("starting")
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    manager = _make_manager(lab=lab)
    await manager.start()
    tls = [RUN / "tls"] if lab else [SYSTEM_DIRECTORY, STATE / "tls"]
    server = HostServer([HostService(manager)], path=SOCKET, tls=tls)
    try:
        await server.start()
        daemonstate.say("serving")
        notify("READY=1")
        log.info("serving %s", SOCKET)
        while await _first(stop, again) is again:
            again.clear()
            await server.reload()
        notify("STOPPING=1")
    finally:
        await server.close()
        await manager.close()


async def _configured(stop: asyncio.Event, again: asyncio.Event) -> bool:
    """Wait for the agent; False when zoned is to end before."""
    while not (RUN / daemonstate.CONFIGURED).exists():
        daemonstate.say("waiting")
        if await _first(stop, again) is stop:
            return False
        again.clear()
    return True


async def _first(*events: asyncio.Event) -> asyncio.Event:
    """The first of the events that is set."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
    return next(event for event in events if event.is_set())


def _make_manager(*, lab: bool) -> Manager:
    from runtime.host.daemon.manager import Manager

    return Manager()


if __name__ == "__main__":
    sys.exit(main())
