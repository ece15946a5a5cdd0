"""`zone top`, `zone metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from argparse import ArgumentTypeError, Namespace
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import Parser, format_argument, seconds, zone_argument
from runtime.host.cli.terminal import escaped, one_of_many, plain_table, show, size_text, table, write

TOP = """\
examples:
  zone top                                 all zones, redrawn every two seconds; Ctrl-C ends it
  zone top web                             the processes of one
  zone top --once web
"""
METRICS = """\
examples:
  zone metrics web
  zone metrics web --format json | jq -r '.metrics[] | "\\(.name) \\(.value)"'
  zone metrics --watch --interval 10 web   redrawn; the zone tells them by itself
  zone metrics --watch web --format json | jq -c '[.unix_s, (.metrics[] | select(.name == "load.1min") | .value)]'
"""
INTERVAL_S = 2.0
SECOND = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}
# Names of figures that a zone's agent reports: /proc/meminfo, /proc/stat, and the cgroup of the workload.
MEMORY_TOTAL, MEMORY_FREE, PROCESSES = "memory_kib.MemTotal", "memory_kib.MemAvailable", "containers.main.pids"
CPU_S = tuple(f"cpu.cpu.{kind}" for kind in ("user", "nice", "system", "irq", "softirq"))


# Each way: what passed the zone's interfaces but lo, and its disks; a part of a disk is counted with it.
_PASSED = {
    "NET IN": re.compile(r"network\.(?!lo\.)[^.]+\.rx_bytes"),
    "NET OUT": re.compile(r"network\.(?!lo\.)[^.]+\.tx_bytes"),
    "READ": re.compile(r"disks\.xvd[a-z]+\.read_bytes"),
    "WRITTEN": re.compile(r"disks\.xvd[a-z]+\.written_bytes"),
}
_PRESSED = ("cpu", "io", "memory")


def fill_top(parser: Parser) -> None:
    """The arguments of `zone top`."""
    parser.set_defaults(run=run_top)
    parser.epilog = TOP
    parser.add_argument("--once", action="store_true", help="show it once")
    parser.add_argument("--interval", type=_interval, default=INTERVAL_S, metavar="S", help="seconds between two looks")
    zone_argument(parser, optional=True)
    format_argument(parser)


def _interval(text: str) -> float:
    if not (value := seconds(text)):
        raise ArgumentTypeError(f"expected more than 0 seconds, got {text!r}")  # or the host did nothing else
    return value


def fill_metrics(parser: Parser) -> None:
    """The arguments of `zone metrics`."""
    parser.set_defaults(run=run_metrics)
    parser.epilog = METRICS
    parser.add_argument("--watch", action="store_true", help="go on, and show them again and again")
    text = "seconds between two looks, from 0.1 on"
    parser.add_argument("--interval", type=_interval, default=INTERVAL_S, metavar="S", help=text)
    zone_argument(parser)
    format_argument(parser)


def run_metrics(arguments: Namespace) -> None:
    """Show a zone's figures."""
    from runtime.host.api.host_pb2 import ReadMetricsRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    if arguments.watch:
        ask(arguments, lambda client: _watch(client, arguments))
        return
    request = ReadMetricsRequest(zone=arguments.zone)
    reply = ask(arguments, lambda client: client.acall(client.host.ReadMetrics, request))
    if not show(document(reply), arguments.format):
        table(_FIGURES, _figure_rows(reply))


_FIGURES = ["NAME", "VALUE"]


def _figure_rows(reply: Any) -> list[list[Any]]:
    return [[metric.name, value_text(metric)] for metric in reply.metrics]


async def _watch(client: Any, arguments: Namespace) -> None:
    from runtime.host.api.host_pb2 import WatchMetricsRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.redraw import Redraw

    request = WatchMetricsRequest(zone=arguments.zone, interval_s=arguments.interval)
    with Redraw() if arguments.format == "table" else contextlib.nullcontext() as screen:
        async for reply in client.astream(client.host.WatchMetrics, request):
            if screen is not None:
                screen.draw(_drawn(_FIGURES, _figure_rows(reply)))
            else:
                write(one_of_many(document(reply), arguments.format))


def _drawn(head: list[str], rows: list[list[Any]]) -> list[str]:
    return plain_table([head, *([escaped(cell) for cell in row] for row in rows)]).splitlines()


def value_text(metric: Any) -> str:
    """A figure for people."""
    if metric.unit == "bytes":
        return size_text(int(metric.value))
    if "_kib" in metric.name:
        return size_text(int(metric.value) << 10)
    if metric.unit in SECOND:
        return f"{metric.value / SECOND[metric.unit]:.3f} s"
    return f"{metric.value:g} %" if metric.unit == "percent" else f"{metric.value:g}"


def run_top(arguments: Namespace) -> None:
    """Show zones, or a zone's processes, again and again."""
    from runtime.host.cli.link import ask

    view = _processes if arguments.zone else _Zones().rows
    ask(
        arguments,
        lambda client: _once(client, arguments, view) if _is_once(arguments) else _redraw(client, arguments, view),
    )


def _is_once(arguments: Namespace) -> bool:
    return bool(arguments.once or arguments.format != "table")


async def _once(client: Any, arguments: Namespace, view: Any) -> None:
    head, rows = await view(client, arguments)
    if not show(_documents(head, rows), arguments.format):
        table(head, rows)


def _documents(head: list[str], rows: list[list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip([title.lower() for title in head], row, strict=True)) for row in rows]


async def _redraw(client: Any, arguments: Namespace, view: Any) -> None:
    from runtime.host.cli.redraw import Redraw

    with Redraw() as screen:
        while True:
            head, rows = await view(client, arguments)
            screen.draw(_drawn(head, rows))
            await asyncio.sleep(arguments.interval)


async def _processes(client: Any, arguments: Namespace) -> tuple[list[str], list[list[Any]]]:
    from runtime.host.api.host_pb2 import ListProcessesRequest

    found = await client.acall(client.host.ListProcesses, ListProcessesRequest(zone=arguments.zone))
    rows = [
        [p.pid, p.parent, p.uid, p.state, size_text(p.resident_kib << 10), f"{p.cpu_s:.2f} s", p.command]
        for p in sorted(found.processes, key=lambda process: (-process.cpu_s, process.pid))
    ]
    return ["PID", "PPID", "UID", "STATE", "RESIDENT", "CPU", "COMMAND"], rows


def _passed(figures: dict[str, float], form: re.Pattern[str]) -> str:
    found = [value for name, value in figures.items() if form.fullmatch(name)]
    return size_text(int(sum(found))) if found else ""


def _pressure(figures: dict[str, float]) -> str:
    """For how much of the last ten seconds somebody waited for what; nothing where the kernel does not say."""
    waits = {kind: figures.get(f"pressure.{kind}.some.avg10") for kind in _PRESSED}
    return " ".join(f"{kind} {share:g}%" for kind, share in waits.items() if share is not None)


class _Zones:
    """Rows of all running zones; the share of a processor is that since the look before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}

    async def rows(self, client: Any, arguments: Namespace) -> tuple[list[str], list[list[Any]]]:
        from runtime.host.api.host_pb2 import ListZonesRequest

        zones = (await client.acall(client.host.ListZones, ListZonesRequest())).zones
        running = [zone for zone in zones if zone.state in ("running", "ready", "stopping")]
        figures = await asyncio.gather(*(self._figures(client, zone) for zone in running))
        head = ["NAME", "STATE", "CPU", "MEMORY", "OF", "PROCESSES", "VCPUS", *_PASSED, "PRESSURE"]
        return head, [self._row(zone, found) for zone, found in zip(running, figures, strict=True)]

    async def _figures(self, client: Any, zone: Any) -> dict[str, float]:
        """What a zone reports; nothing where it does not answer: the others are shown all the same."""
        from runtime.host.api.host_pb2 import ReadMetricsRequest

        try:
            reply = await client.acall(client.host.ReadMetrics, ReadMetricsRequest(zone=zone.id), timeout_s=5)
        except RuntimeFault:
            return {}
        return {metric.name: metric.value for metric in reply.metrics}

    def _row(self, zone: Any, figures: dict[str, float]) -> list[Any]:
        total = int(figures.get(MEMORY_TOTAL, zone.memory_mib << 10))
        used = total - int(figures[MEMORY_FREE]) if MEMORY_FREE in figures else None
        cpu_s = [figures[name] for name in CPU_S if name in figures]
        return [
            zone.name,
            zone.state,
            self._share(zone.id, sum(cpu_s) if cpu_s else None),
            "" if used is None else size_text(used << 10),
            size_text(total << 10),
            f"{figures[PROCESSES]:g}" if PROCESSES in figures else "",
            zone.vcpus,
            *(_passed(figures, form) for form in _PASSED.values()),
            _pressure(figures),
        ]

    def _share(self, zone: str, cpu_s: float | None) -> str:
        if cpu_s is None:
            return ""
        now = time.monotonic()
        before, self._before[zone] = self._before.get(zone), (now, cpu_s)
        if before is None or now <= before[0]:
            return f"{cpu_s:.1f} s"
        return f"{max(cpu_s - before[1], 0) / (now - before[0]):.0%}"
