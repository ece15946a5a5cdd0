"""`zone inspect`, `zone port`."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError, Namespace
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import Parser, format_argument, zone_argument
from runtime.host.cli.terminal import escaped, pairs, plain_table, show, write

INSPECT = """\
examples:
  zone inspect web
  zone inspect web --format json | jq '.[0].timings'
  zone inspect $(zone ps -q) --format yaml
"""
PORT = """\
examples:
  zone port web
  zone port web 80                         127.0.0.1:8080
  zone port dns 53/udp                     127.0.0.1:53
"""


class NotPublished(RuntimeFault):
    """A port of a zone that leads nowhere."""


def fill_inspect(parser: Parser) -> None:
    """The arguments of `zone inspect`."""
    parser.set_defaults(run=run_inspect)
    parser.epilog = INSPECT
    zone_argument(parser, many=True)
    format_argument(parser)


def fill_port(parser: Parser) -> None:
    """The arguments of `zone port`."""
    parser.set_defaults(run=run_port)
    parser.epilog = PORT
    zone_argument(parser)
    parser.add_argument("port", metavar="PORT[/udp]", nargs="?", type=_port, help="of the zone: where it is, alone")
    format_argument(parser)


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    if not number.isascii() or not number.isdigit() or protocol not in ("", "tcp", "udp"):
        raise ArgumentTypeError(f"expected a port such as 80 or 53/udp, got {text!r}")
    return int(number), protocol or "tcp"


def run_inspect(arguments: Namespace) -> None:
    """Show everything about zones: a list of documents, or one block for each."""
    from runtime.host.api.host_pb2 import GetZoneRequest
    from runtime.host.cli.documents import zone_document
    from runtime.host.cli.link import ask

    async def look(client: Any) -> list[Any]:
        requests = [GetZoneRequest(zone=name, fresh=True) for name in arguments.zones]
        return [await client.acall(client.host.GetZone, request) for request in requests]

    zones = ask(arguments, look)
    if arguments.format != "table":
        show([zone_document(zone) for zone in zones], arguments.format)
        return
    for number, zone in enumerate(zones):
        write("\n" * (number > 0))
        pairs(rows(zone))
        write("".join(f"  {escaped(line)}\n" for line in zone.console_tail))


def rows(zone: Any) -> list[tuple[str, Any]]:
    """What `inspect` shows of a zone, in order; empty values are left out."""
    import shlex

    from pipeline.bundle.bandwidth import bandwidth_text
    from runtime.host.cli.documents import port_texts, restart_text, state_text, time_text

    # As Xen counts: what the zone's kernel calls its total is less by what it took for itself, see `zone metrics`.
    memory_seen = f", it has {zone.memory_seen_mib} MiB" if zone.memory_seen_mib else ""
    vcpus_seen = f", {zone.vcpus_seen} online" if zone.vcpus_seen else ""
    return [
        ("zone", zone.name),
        ("id", zone.id),
        ("state", state_text(zone, time.time())),
        ("exit", zone.exit.text),
        ("image", zone.image),
        ("kernel", zone.kernel),
        ("bundle", zone.manifest),
        ("command", shlex.join(zone.command)),
        ("tty", "yes" if zone.tty else ""),
        ("domid", zone.domid or ""),
        ("domain uuid", zone.domain_uuid),
        ("memory", f"{zone.memory_mib} MiB of at most {zone.memory_max_mib} MiB{memory_seen}"),
        ("vcpus", f"{zone.vcpus} of at most {zone.vcpus_max}{vcpus_seen}"),
        ("network", zone.network),
        *(("address", address) for address in zone.addresses),
        *(("port", text) for text in port_texts(zone.ports)),
        *(("egress", rule) for rule in zone.egress),
        ("bandwidth", bandwidth_text(zone.bandwidth_bit_s) if zone.bandwidth_bit_s else ""),
        *(("limit", f"{file} {zone.limits[file]}".replace("\n", ", ")) for file in sorted(zone.limits)),
        ("refuses", ", ".join(zone.refuse)),
        *(("volume", _volume_text(volume)) for volume in zone.volumes),
        *(("device", _device_text(device)) for device in zone.devices),
        ("restart", restart_text(zone.restart)),
        ("restarts", zone.restarts or ""),
        ("removed", "once it has ended" if zone.remove else ""),
        *(("label", f"{key}={zone.labels[key]}") for key in sorted(zone.labels)),
        ("created", time_text(zone.created_unix_s)),
        ("started", time_text(zone.started_unix_s)),
        ("finished", time_text(zone.finished_unix_s)),
        *(("timing", f"{key} {zone.timings[key]:.3f} s") for key in sorted(zone.timings, key=zone.timings.get)),
        *(
            ("in the zone", f"{key} {zone.zone_timings[key]:.3f} s")
            for key in sorted(zone.zone_timings, key=zone.zone_timings.get)
        ),
        ("console", "its last lines:" if zone.console_tail else ""),
    ]


def _volume_text(volume: Any) -> str:
    """`/dev/sdb -> /data, ext4, read-only, as xvdc`."""
    size = f" of at most {volume.size_mib} MiB" if volume.size_mib else ""
    where = f", as {volume.device}" if volume.device else ""
    return f"{volume.source} -> {volume.target}, {volume.type}{size}{_readonly_text(volume)}{where}"


def _device_text(device: Any) -> str:
    """`xvda: disk, rootfs, read-only, sha256:1e0b…`."""
    purpose = f", {device.purpose}" if device.purpose != device.kind else ""
    return f"{device.name}: {device.kind}{purpose}{_readonly_text(device)}, {device.source}"


def _readonly_text(item: Any) -> str:
    return ", read-only" if item.readonly else ""


def run_port(arguments: Namespace) -> None:
    """Show a zone's ports; for one, where it is on this machine."""
    from runtime.host.api.host_pb2 import GetZoneRequest
    from runtime.host.cli.documents import document, host_end
    from runtime.host.cli.link import ask

    zone = ask(arguments, lambda client: client.acall(client.host.GetZone, GetZoneRequest(zone=arguments.zone)))
    if arguments.port is None:
        if not show([document(rule) for rule in zone.ports], arguments.format):
            lines = [[f"{rule.zone_port}/{rule.protocol or 'tcp'}", "->", host_end(rule)] for rule in zone.ports]
            write(plain_table(lines) if lines else "")
        return
    found = [rule for rule in zone.ports if (rule.zone_port, rule.protocol or "tcp") == arguments.port]
    if not found:
        number, protocol = arguments.port
        known = ", ".join(f"{rule.zone_port}/{rule.protocol or 'tcp'}" for rule in zone.ports) or "none"
        raise NotPublished(f"zone {zone.name}", expected=f"port {number}/{protocol} to be published", got=known)
    if not show([document(rule) for rule in found], arguments.format):
        write("".join(f"{host_end(rule)}\n" for rule in found))
