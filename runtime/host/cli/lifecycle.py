"""`zone stop`, `kill`, `start`, `restart`, `pause`, `unpause`, `wait`, `rm`: several zones, each told when done."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.errors import SentenceError
from runtime.host.cli.parsers import Parser, complete, seconds, zone_argument
from runtime.host.cli.terminal import escaped, write

STOP = """\
The workload gets its stop signal, then, after its spec's timeout or -t, is killed. A zone that has ended is fine.

examples:
  zone stop web
  zone stop -t 0 web db
"""
KILL = """\
Without -s the zone ends at once, as if its plug was pulled; with -s its workload gets the signal, and may handle it.

examples:
  zone kill web
  zone kill -s HUP web
"""
START = """\
It is the same zone: its id, its ports, its logs, its scratch disk. One that runs is fine.

examples:
  zone start web
  zone start $(zone ps -aq --filter state=exited)
"""
RESTART = """\
examples:
  zone restart web                         the same zone: its id, its ports, its logs
  zone restart -t 2 web
"""
PAUSE = """\
Every process of the workload stands still where it is, and so do those that were run beside it. The zone itself goes
on, keeps its memory and takes connections, which nobody answers; `zone ps` shows it as paused, `zone stop` ends it.

examples:
  zone pause web
  zone unpause web
"""
WAIT = """\
examples:
  zone wait web                            prints its exit code; so does $?
  zone wait --until ports web && curl http://127.0.0.1:8080/
"""
RM = """\
examples:
  zone rm old
  zone rm -f web                           stop it first
  zone rm $(zone ps -aq --filter state=exited)
"""
UNTIL = ("exited", "running", "ready", "ports", "removed")
# What a call of zoned that waits for something may take beyond what it waits for.
MARGIN_S = 60.0


def fill_stop(parser: Parser) -> None:
    """The arguments of `zone stop`."""
    _several(parser, run_stop, STOP)
    _timeout(parser)


def fill_start(parser: Parser) -> None:
    """The arguments of `zone start`."""
    _several(parser, run_start, START)


def fill_restart(parser: Parser) -> None:
    """The arguments of `zone restart`."""
    _several(parser, run_restart, RESTART)
    _timeout(parser)


def fill_pause(parser: Parser) -> None:
    """The arguments of `zone pause`."""
    _several(parser, run_pause, PAUSE)


def fill_unpause(parser: Parser) -> None:
    """The arguments of `zone unpause`."""
    _several(parser, run_unpause, PAUSE)


def fill_kill(parser: Parser) -> None:
    """The arguments of `zone kill`."""
    _several(parser, run_kill, KILL)
    signal = parser.add_argument("-s", "--signal", metavar="SIGNAL", help="HUP, SIGHUP, 1: to the workload alone")
    complete(signal, "signals")


def fill_wait(parser: Parser) -> None:
    """The arguments of `zone wait`."""
    _several(parser, run_wait, WAIT)
    parser.add_argument("--until", choices=UNTIL, default="exited", metavar="U", help=f"{', '.join(UNTIL)}")
    parser.add_argument("--timeout", type=seconds, default=0.0, metavar="S", help="give up, with 1, after so long")


def fill_rm(parser: Parser) -> None:
    """The arguments of `zone rm`."""
    _several(parser, run_rm, RM)
    parser.add_argument(
        "-f", "--force", action="store_true", help="stop what runs first; a zone that is not there is fine"
    )


def _several(parser: Parser, run: Any, epilog: str) -> None:
    parser.set_defaults(run=run)
    parser.epilog = epilog
    zone_argument(parser, many=True)


def _timeout(parser: Parser) -> None:
    text = "seconds until it is killed (default: its spec's)"
    parser.add_argument("-t", "--timeout", "--time", type=seconds, metavar="S", help=text)


def run_stop(arguments: Namespace) -> int:
    """Stop zones."""
    from runtime.host import actions

    async def stop(client: Any, name: str) -> str:
        return actions.stopped_line(await actions.stop_zone(client, name, arguments.timeout))

    return _each(arguments, "stopping", stop)


def run_start(arguments: Namespace) -> int:
    """Start zones that have ended."""
    return _started(arguments, "starting", unless_live=True)


def run_restart(arguments: Namespace) -> int:
    """Restart zones."""
    return _started(arguments, "restarting", unless_live=False)


def _started(arguments: Namespace, doing: str, *, unless_live: bool) -> int:
    from runtime.host import actions
    from runtime.host.api.host_pb2 import GetZoneRequest, RestartZoneRequest

    async def start(client: Any, name: str) -> str:
        # Asked first: a zonewright that knows no unless_live would stop what runs.
        zone = await client.acall(client.host.GetZone, GetZoneRequest(zone=name)) if unless_live else None
        if zone is None or zone.state in (*actions.ENDED, "stopping"):
            timeout_s = getattr(arguments, "timeout", None)
            request = RestartZoneRequest(zone=name, timeout_s=timeout_s, unless_live=unless_live)
            zone = await client.acall(client.host.RestartZone, request, timeout_s=None)
            started.append(zone)
        return f"zone {zone.name} is {zone.state}"

    started: list[Any] = []

    def lead(host: Any, client: Any) -> None:
        actions.tidy(host, client)  # what leads to where their ports were
        for zone in started:
            host.expose(zone.ports)

    def provide(host: Any, client: Any, store: Any, progress: Any) -> None:
        actions.bring_again(host, client, store, arguments.zones, progress)

    return _each(arguments, doing, start, first=provide, then=lead)


def run_pause(arguments: Namespace) -> int:
    """Have workloads stand still."""
    from runtime.host.api.host_pb2 import PauseZoneRequest

    async def pause(client: Any, name: str) -> str:
        await client.acall(client.host.PauseZone, PauseZoneRequest(zone=name), timeout_s=MARGIN_S)
        return name

    return _each(arguments, "pausing", pause, then=_nothing_remains)


def run_unpause(arguments: Namespace) -> int:
    """Let them go on."""
    from runtime.host.api.host_pb2 import UnpauseZoneRequest

    async def unpause(client: Any, name: str) -> str:
        await client.acall(client.host.UnpauseZone, UnpauseZoneRequest(zone=name), timeout_s=MARGIN_S)
        return name

    return _each(arguments, "going on", unpause, then=_nothing_remains)


def _nothing_remains(host: Any, client: Any) -> None:
    """No zone has ended."""


def run_kill(arguments: Namespace) -> int:
    """End zones at once, or signal them."""
    from runtime.host.api.host_pb2 import KillZoneRequest

    number = _signal(arguments.signal)

    async def kill(client: Any, name: str) -> str:
        await client.acall(client.host.KillZone, KillZoneRequest(zone=name, signal=number), timeout_s=MARGIN_S)
        return name

    return _each(arguments, "ending", kill)


def _signal(text: str | None) -> int:
    if text is None:
        return 0
    from pipeline.bundle.spec import signal_number

    return signal_number(text, subject="-s")


def run_wait(arguments: Namespace) -> int:
    """Wait for zones; the last one's exit code is ours."""
    from runtime.host.api.host_pb2 import WaitZoneRequest

    codes: dict[str, int] = {}

    async def wait(client: Any, name: str) -> str:
        request = WaitZoneRequest(zone=name, until=arguments.until, timeout_s=arguments.timeout)
        zone = await client.acall(client.host.WaitZone, request, timeout_s=None)
        codes[name] = zone.exit.code if arguments.until == "exited" else 0
        return str(codes[name]) if arguments.until == "exited" else f"zone {escaped(zone.name)}: {arguments.until}"

    failed = _each(arguments, f"waiting until it is {arguments.until}", wait)
    return failed or codes[arguments.zones[-1]]


def run_rm(arguments: Namespace) -> int:
    """Forget zones."""
    from runtime.host.api.host_pb2 import RemoveZoneRequest
    from runtime.host.cli.link import UNKNOWN_ZONE
    from runtime.host.faults import RemoteFault

    async def remove(client: Any, name: str) -> str:
        try:
            request = RemoveZoneRequest(zone=name, force=arguments.force)
            await client.acall(client.host.RemoveZone, request, timeout_s=None)
        except RemoteFault as fault:
            if not (arguments.force and fault.kind == UNKNOWN_ZONE):
                raise
            return ""
        return name

    return _each(arguments, "removing", remove)


def _each(
    arguments: Namespace,
    doing: str,
    work: Callable[[Any, str], Awaitable[str]],
    first: Callable[[Any, Any, Any, Any], None] | None = None,
    then: Callable[[Any, Any], None] | None = None,
) -> int:
    """Do it to all zones side by side; 1 where one could not be, with its sentence, the others done all the same.

    first:   what is to be done with the host itself before: (host, client, store, progress).
    then:    what remains to be done with it; the ports and disks of zones that have ended, else.
    """
    from pipeline.store import Store
    from runtime.host import actions
    from runtime.host.cli.link import meant
    from runtime.host.cli.terminal import with_progress
    from runtime.host.hosts import select_host

    async def one(client: Any, name: str, progress: Any) -> bool:
        try:
            with progress.bar(f"zone {name}: {doing}", unit="steps"):
                line = await work(client, name)
        except SentenceError as error:
            sys.stderr.write(f"error: {await meant(client, [name], error)}\n")
            return False
        if line:
            write(f"{escaped(line)}\n")
        return True

    async def every(client: Any, progress: Any) -> list[bool]:
        return await asyncio.gather(*(one(client, name, progress) for name in dict.fromkeys(arguments.zones)))

    store = Store()
    host = select_host(store, arguments.host)
    with host.connect() as client:
        if first is not None:
            with_progress(lambda progress: first(host, client, store, progress), patient=True)
        done = with_progress(lambda progress: client.run(every(client, progress)), patient=True)
        if any(done):
            (then or actions.tidy)(host, client)
    return 0 if all(done) else 1
