"""`zone snoop`: what passes between the host and the agents of zones, frame by frame."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from runtime.host.cli.parsers import Parser, format_argument, zone_argument
from runtime.host.cli.terminal import escaped, one_of_many, write

EXAMPLES = """\
A line is the time, the zone, > (to it) or < (from it), the kind of frame, its stream and descriptor, and what is in it;
without a zone, of all zones that run or come to run while it goes on. Frames that come faster than they are taken are
left out, and counted. Ctrl-C ends it.

examples:
  zone snoop
  zone snoop web
  zone snoop web --format json | jq -r 'select(.kind == "OPEN") | .message.method'
"""
SHOWN = 160  # of a frame, on a line for people
DEEPEST = 64  # levels of a message: what is nested deeper is shown as the bytes it is


def fill_snoop(parser: Parser) -> None:
    """The arguments of `zone snoop`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    zone_argument(parser, optional=True)
    format_argument(parser)


def run(arguments: Namespace) -> None:
    """Show frames, each as it comes."""
    from runtime.host.api.control_grpc import ControlServiceStub
    from runtime.host.api.control_pb2 import SnoopIdmRequest
    from runtime.host.api.host_pb2 import GetZoneRequest, ListZonesRequest
    from runtime.host.cli.link import ask

    async def look(client: Any) -> None:
        wanted = ""
        if arguments.zone:
            wanted = (await client.acall(client.host.GetZone, GetZoneRequest(zone=arguments.zone))).id
        names: dict[str, str] = {}
        snoop = ControlServiceStub(client.channel).SnoopIdm
        async for reply in client.astream(snoop, SnoopIdmRequest()):
            for packet in reply.packets:
                if zone_of(packet) not in names:  # a zone that was made since
                    listed = (await client.acall(client.host.ListZones, ListZonesRequest(all=True))).zones
                    # One that is gone again already keeps its id as its name, and is not asked for twice.
                    names = {zone_of(packet): zone_of(packet), **names, **{zone.id: zone.name for zone in listed}}
                found = decoded(packet, names, time.time())
                if wanted in ("", found["zone_id"]):
                    write(line(found, arguments.format))
            if reply.skipped:
                sys.stderr.write(f"{reply.skipped} frames left out: they came faster than they were taken\n")

    ask(arguments, look)


def decoded(packet: Any, names: dict[str, str], unix_s: float) -> dict[str, Any]:
    """A packet as JSON-like data: a message as what it says, bytes as text, credit as a number.

    Shape:   zone, zone_id, to_zone, kind, stream, fd, size_bytes and one of message, data, credit; data escaped as for
             a terminal. Of what is no frame, the kind is LOST.
    """
    from runtime.init.channel import frames

    zone_id, to_zone = zone_of(packet), _sender(packet) == "host"
    whole = frames.Parser().feed(packet.packet)
    kind, fd, stream, payload = whole[0] if whole else (frames.LOST, 0, 0, packet.packet)
    found: dict[str, Any] = {
        "unix_s": round(unix_s, 6),
        "zone": names.get(zone_id, zone_id),
        "zone_id": zone_id,
        "to_zone": to_zone,
        "kind": "LOST" if kind == frames.LOST else frames.NAMES[kind],
        "stream": stream,
        "fd": fd,
        "size_bytes": len(payload),
    }
    if kind == frames.CREDIT:
        return found | {"credit": frames.credit_of(payload)}
    if kind in frames.JSON_KINDS:
        try:
            return found | {"message": _message(payload)}
        except (ValueError, RecursionError):
            pass  # shown as the bytes it is
    return found | {"data": escaped(payload)}


def _message(payload: bytes) -> Any:
    """What a JSON message says. Raises ValueError, RecursionError for one that could not be shown in every format."""
    value = json.loads(payload)
    json.dumps(value, allow_nan=False)
    level, depth = [value], 0
    while level := [inner for item in level if isinstance(item, (dict, list)) for inner in _inner(item)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"expected a message of at most {DEEPEST} levels, got more")
    return value


def _inner(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def zone_of(packet: Any) -> str:
    """The id of the zone whose channel a packet passes on."""
    sender = _sender(packet)
    return str(packet.to) if sender == "host" else sender


def _sender(packet: Any) -> str:
    return str(getattr(packet, "from"))


def line(found: dict[str, Any], format: str) -> str:
    """A frame as text: one line, one JSON document in one line, or one YAML document."""
    from runtime.host.cli.documents import time_text

    if format != "table":
        return one_of_many(found, format)
    if "message" in found:
        text = escaped(json.dumps(found["message"], ensure_ascii=False))
    elif "credit" in found:
        text = f"{found['credit']} bytes"
    else:
        text = found["data"]
    if len(text) > SHOWN:
        text = f"{text[:SHOWN]}… ({found['size_bytes']} bytes)"
    where = f"stream {found['stream']}" if found["stream"] else "link"
    descriptor = f" fd {found['fd']}" if found["kind"] in ("DATA", "EOF", "CREDIT") and found["stream"] else ""
    words = [time_text(found["unix_s"]), escaped(found["zone"]), ">" if found["to_zone"] else "<", found["kind"]]
    return " ".join([*words, where + descriptor, text]).rstrip() + "\n"
