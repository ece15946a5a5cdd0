"""`zone ps`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from argparse import ArgumentTypeError, Namespace
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import Parser, complete, format_argument, quiet_argument
from runtime.host.cli.terminal import escaped, plain_table, show, write

EXAMPLES = """\
A filter is KEY=VALUE; with several keys all must fit, with one key twice either may:
  name=TEXT  state=STATE  image=TEXT  label=KEY[=VALUE]  exited=CODE  health=STATE  network=NAME
`state=paused` are those of the ready ones whose workload stands still.

examples:
  zone ps                                  what runs, or is about to
  zone ps -a                               what has ended, too
  zone ps --watch                          redrawn as things change; Ctrl-C ends it
  zone ps -a --filter state=exited -q      names alone, for `zone rm $(…)`
  zone ps --format json | jq -r '.[].name'
"""
HEAD = ["NAME", "IMAGE", "STATE", "DOMID", "MIB", "VCPUS", "ADDRESS", "PORTS"]
KEYS = ("name", "state", "image", "label", "exited", "health", "network")
TICK_S = 2.0


class CannotWatch(RuntimeFault):
    """What is redrawn in place is for eyes."""


def fill_ps(parser: Parser) -> None:
    """The arguments of `zone ps`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    parser.add_argument("-a", "--all", action="store_true", help="those that have ended, too")
    parser.add_argument("--watch", action="store_true", help="go on, and redraw in place when something changes")
    found = parser.add_argument(
        "--filter", action="append", default=[], type=condition, metavar="F", help="only those that fit, see below"
    )
    complete(found, "filters")
    quiet_argument(parser, "names alone")
    format_argument(parser)


def condition(text: str) -> tuple[str, str]:
    """A filter, read. Raises what argparse expects of a type."""
    key, equals, value = text.partition("=")
    key = {"status": "state"}.get(key, key)
    if not equals or key not in KEYS:
        raise ArgumentTypeError(f"expected KEY=VALUE with a key of {', '.join(KEYS)}, got {text!r}")
    return key, value


def fits(zone: Any, conditions: list[tuple[str, str]]) -> bool:
    """Does a zone fit a filter for each key there is one for?"""
    by_key: dict[str, list[str]] = {}
    for key, value in conditions:
        by_key.setdefault(key, []).append(value)
    return all(any(_fits(zone, key, value) for value in values) for key, values in by_key.items())


def _fits(zone: Any, key: str, value: str) -> bool:
    if key in ("name", "image"):
        return value in getattr(zone, key)
    if key == "label":
        name, equals, wanted = value.partition("=")
        return name in zone.labels and (not equals or zone.labels[name] == wanted)
    if key == "exited":
        return zone.state in ("exited", "failed") and str(zone.exit.code) == value
    if (key, value) == ("state", "paused"):
        return bool(zone.paused)
    return bool(getattr(zone, key) == value)


def run(arguments: Namespace) -> None:
    """List the zones: none where the lab is down, as nothing runs there; of any other host nobody can tell then."""
    from runtime.host.cli.link import ask

    if arguments.watch and arguments.format != "table":
        expected = f"no --format {arguments.format} beside it"
        raise CannotWatch("--watch", expected=expected, got="both", hint="zone events --format json tells every change")
    try:
        ask(arguments, lambda zoned: _watch(zoned, arguments) if arguments.watch else _once(zoned, arguments))
    except RuntimeFault:
        if arguments.watch or not _is_lab_down(arguments.host):
            raise
        _show([], arguments)


def _is_lab_down(address: str | None) -> bool:
    """Is a lab meant, and does none run? One that does not answer may have zones all the same."""
    from pipeline.store import Store
    from runtime.host.client.endpoint import host_name, lab_name
    from runtime.host.hosts import select_host

    name = host_name(address)
    return lab_name(name) is not None and not select_host(Store(), name).is_up()


async def _once(zoned: Any, arguments: Namespace) -> None:
    _show(await _zones(zoned, arguments), arguments)


async def _zones(zoned: Any, arguments: Namespace) -> list[Any]:
    from runtime.host.api.host_pb2 import ListZonesRequest

    everything = arguments.all or any(key in ("exited", "state") for key, _ in arguments.filter)
    reply = await zoned.acall(zoned.host.ListZones, ListZonesRequest(all=everything), timeout_s=60)
    return [zone for zone in reply.zones if fits(zone, arguments.filter)]


async def _watch(zoned: Any, arguments: Namespace) -> None:
    """Until Ctrl-C: once for every burst of events, and every two seconds, as times pass."""
    from runtime.host.cli.redraw import Redraw

    changed = asyncio.Event()
    listener = asyncio.ensure_future(_listen(zoned, changed))
    try:
        await changed.wait()  # what changes behind the first list is heard of
        with Redraw() as screen:
            while True:
                changed.clear()
                text = _names_text if arguments.quiet else table_text
                screen.draw(text(await _zones(zoned, arguments)).splitlines())
                with contextlib.suppress(TimeoutError):
                    if not listener.done():
                        await asyncio.wait_for(changed.wait(), TICK_S if screen.in_place else None)
                if listener.done():
                    listener.result()
                    return
    finally:
        listener.cancel()


async def _listen(zoned: Any, changed: asyncio.Event) -> None:
    """Tell of every event, and before the first that none is missed from then on."""
    from runtime.host.api.host_pb2 import WatchEventsRequest
    from runtime.host.client.client import received

    try:
        async with zoned.opened(zoned.host.WatchEvents) as stream:
            await stream.send_message(WatchEventsRequest(follow=True), end=True)
            await stream.recv_initial_metadata()
            changed.set()
            async for _ in received(stream):
                changed.set()
    finally:
        changed.set()


def _show(zones: list[Any], arguments: Namespace) -> None:
    from runtime.host.cli.documents import zone_document

    if arguments.quiet:
        write(_names_text(zones))
    elif not show([zone_document(zone) for zone in zones], arguments.format):
        write(table_text(zones))


def _names_text(zones: list[Any]) -> str:
    return "".join(f"{escaped(zone.name)}\n" for zone in zones)


def table_text(zones: list[Any]) -> str:
    """The table, on a terminal, too, in plain columns: what is folded cannot be read, or copied, as a line."""
    now = time.time()
    return plain_table([HEAD, *([escaped(cell) for cell in row(zone, now)] for zone in zones)])


def row(zone: Any, now: float) -> list[Any]:
    """A zone's row."""
    from runtime.host.cli.documents import ports_text, short, state_text

    memory = f"{zone.memory_mib}/{zone.memory_max_mib}" if zone.memory_max_mib > zone.memory_mib else zone.memory_mib
    vcpus = f"{zone.vcpus}/{zone.vcpus_max}" if zone.vcpus_max > zone.vcpus else zone.vcpus
    address = zone.addresses[0].partition("/")[0] if zone.addresses else ""
    domid = zone.domid or ""
    return [
        zone.name,
        short(zone.image),
        state_text(zone, now, brief=True),
        domid,
        memory,
        vcpus,
        address,
        ports_text(zone),
    ]
