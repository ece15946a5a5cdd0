"""zoned: owns the zones of one host. One process, one event loop; the core is in daemon/, what it serves in serve/.

SIGTERM, SIGINT   end; zones run on, and the next zoned adopts them (--end-zones: they end first)
SIGHUP            read the TLS credentials anew
In the lab it waits, before it looks at its state, for dom0's agent to put the state disk and the credentials in place.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import importlib
import logging
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host import privileges
from runtime.host.dom0 import daemonstate

log = logging.getLogger("zoned")

RUN = Path("/run/zonewright")
STATE = Path("/var/lib/zonewright")
SOCKET = "zoned.sock"
# What is imported where it is used, so that a host that cannot load it still says why.
MODULES = (
    *("runtime.boot.doors", "runtime.boot.xenstore", "runtime.net.supervise", "runtime.host.preflight"),
    *("runtime.host.daemon.manager", "runtime.host.serve.host", "runtime.host.serve.server"),
    *("runtime.host.serve.control.opening", "runtime.host.serve.control.service"),
)
# In the lab a blob may come as a disk that is being plugged in.
LAB_DISK_WAIT_S = 20.0


class AlreadyRunning(RuntimeFault):
    """Another zoned owns this host's zones."""


class Unprepared(RuntimeFault):
    """This machine lacks what zones need."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="zoned", description="owns the zones of this host")
    parser.add_argument("--run", type=Path, default=RUN, metavar="DIR", help="socket and ledgers (%(default)s)")
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR", help="database, logs, store (%(default)s)")
    parser.add_argument("--store", type=Path, action="append", default=[], metavar="DIR", help="blobs are here too")
    parser.add_argument("--end-zones", action="store_true", help="end all zones at SIGTERM")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("grpclib").setLevel(logging.WARNING)  # a client that goes in the middle of a call is no news
    privileges.keep_needed()
    Path("/proc/self/comm").write_text(daemonstate.PROCESS)
    options.run.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        with only_one(options.run):
            return asyncio.run(_serve(options))
    except RuntimeFault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


@contextlib.contextmanager
def only_one(run: Path) -> Iterator[None]:
    """Hold this host's lock, which a killed zoned lets go of. Raises AlreadyRunning."""
    lock = os.open(run / "zoned.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning("zoned", got="another one runs on this host") from None
    finally:
        os.close(lock)


class Signals:
    """The signals of one zoned, as events of its loop."""

    def __init__(self) -> None:
        self.end, self.reload = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)


async def _serve(options: argparse.Namespace) -> int:
    from runtime.host.dom0.methods import LAB_SUBNET, lab_ports

    signals = Signals()
    lab = bool(lab_ports())
    if lab and not await _configured(options.run, signals):
        return 0
    if lab:  # restored with it, OpenSSL's generator would else say again what it said in every other start
        ssl.RAND_add(os.urandom(64), 64.0)
    daemonstate.say("starting", run=options.run)
    log.info("starting with the state in %s", options.state)
    _settle_pools(options.run)
    missing = await asyncio.to_thread(_missing)
    log.info("this machine has what zones need, but for %d things", len(missing))
    # In the lab the network card's subnet leads to the loopback of whoever runs the lab: closed, as any loopback is.
    deny = (LAB_SUBNET,) if lab else ()
    manager, hypervisor = await asyncio.to_thread(_manager, options, missing, deny, LAB_DISK_WAIT_S if lab else 0.0)
    await manager.start()
    log.info("zones are as they were left, or on their way there")
    try:
        return await _until_end(options, manager, hypervisor, signals)
    finally:
        await manager.close(end_zones=options.end_zones)


def load() -> None:
    """Import all that serving takes, for the processes that are forked from this one to be zoned."""
    for name in MODULES:
        importlib.import_module(name)


async def _configured(run: Path, signals: Signals) -> bool:
    """Wait for the lab's agent; False where zoned is to end instead."""
    while not (run / daemonstate.CONFIGURED).exists():
        daemonstate.say("waiting", run=run)
        await _first(signals.end, signals.reload)
        if signals.end.is_set():
            return False
        signals.reload.clear()
    return True


def _settle_pools(run: Path) -> None:
    """Have this host's networks be of the pools that it names. Raises BadPools."""
    from runtime.net.hostpools import read_pools, settle
    from runtime.net.pool import use

    networks = any(any((run / name).glob("*")) for name in ("ledger", "networks"))
    chosen = read_pools()
    settle(chosen, run / "pools", networks=networks)
    use(chosen)


def _missing() -> tuple[str, ...]:
    """What this host lacks without being unfit. Raises Unprepared, naming all that it must not lack."""
    from runtime.host.preflight import preflight

    lacks = preflight()
    fatal = [lack.sentence for lack in lacks if lack.fatal]
    if fatal:
        raise Unprepared("this machine", expected="what zones need", got="; ".join(fatal))
    return tuple(lack.sentence for lack in lacks)


def _manager(
    options: argparse.Namespace, missing: tuple[str, ...], deny: tuple[str, ...], disk_wait_s: float
) -> tuple[Any, Any]:
    # Imported here, so that a host that cannot load them still says why.
    from runtime.boot.doors import open_doors
    from runtime.boot.xenstore import XenStore
    from runtime.host.daemon.core import Settings
    from runtime.host.daemon.edge import Edge
    from runtime.host.daemon.manager import Manager
    from runtime.host.xenstoremark import FORGOTTEN, has_forgotten
    from runtime.net.supervise import EngineSupervisor

    stores = [options.state / "store", *options.store]
    if explicit := os.environ.get("ZONEWRIGHT_STORE"):
        stores.append(Path(explicit))
    hypervisor, xenstore = open_doors(), XenStore()
    unfit = FORGOTTEN if has_forgotten(xenstore, options.run) else ""
    settings = Settings(options.run, options.state, warnings=(*missing, *filter(None, [unfit])), unfit=unfit)
    edge = Edge(
        hypervisor,
        xenstore,
        stores=tuple(stores),
        deny=deny,
        private=(options.run, options.state, *stores),
        disk_wait_s=disk_wait_s,
        engines=EngineSupervisor(),
    )
    return Manager(settings, edge), hypervisor


async def _until_end(options: argparse.Namespace, manager: Any, hypervisor: Any, signals: Signals) -> int:
    from runtime.host.serve.checking import Checker
    from runtime.host.serve.control.opening import open_context
    from runtime.host.serve.control.service import ControlService
    from runtime.host.serve.host import HostService
    from runtime.host.serve.notify import notify
    from runtime.host.serve.server import HostServer
    from runtime.host.serve.tls import SYSTEM_DIRECTORY

    context = await asyncio.to_thread(open_context, manager, hypervisor, options.state)
    checker = Checker(lambda: manager.check(lambda: server.ports()))
    services = [HostService(manager, check=checker, platform=context.platform), ControlService(context)]
    server = HostServer(services, path=options.run / SOCKET, tls=(SYSTEM_DIRECTORY, options.run / "tls"))
    await server.start()
    daemonstate.say("serving", run=options.run)
    notify("READY=1")
    log.info("serving %s", options.run / SOCKET)
    fatal = asyncio.ensure_future(manager.until_fatal())
    try:
        while not signals.end.is_set() and not fatal.done():
            await _first(signals.end, signals.reload, fatal)
            if signals.reload.is_set():
                signals.reload.clear()
                await server.reload()
                daemonstate.say("serving", run=options.run)
    finally:
        fatal.cancel()
        notify("STOPPING=1")
        await server.close()
        await context.close()
    if fatal.done() and not fatal.cancelled():
        log.error("%s; the next zoned goes on from here", fatal.result())
        return 1
    return 0


async def _first(*waited: asyncio.Event | asyncio.Future[str]) -> None:
    tasks = [asyncio.ensure_future(item.wait() if isinstance(item, asyncio.Event) else item) for item in waited]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, item in zip(tasks, waited, strict=True):
        if isinstance(item, asyncio.Event):
            task.cancel()


if __name__ == "__main__":
    sys.exit(main())
