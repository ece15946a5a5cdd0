"""`zone logs`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError, Namespace
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.moments import moment
from runtime.host.cli.parsers import Parser, zone_argument

EXAMPLES = """\
Output and errors come apart, byte for byte as the workload wrote them, on our stdout and stderr.

examples:
  zone logs web
  zone logs -f --tail 20 web               the last twenty lines, then what comes, until the zone ends
  zone logs --since 10m -t web             each line with its time
  zone logs --console web                  what its kernel and its init said
  zone logs web 2>/dev/null | grep 404
"""


MOST_LINES = (1 << 31) - 1  # more than is kept of any zone, and what a message takes


class NoTimes(RuntimeFault):
    """Times were asked for of a console, whose file is what the zone printed and no more."""


def _no_times(zone: str) -> NoTimes:
    expected = "no --since, --until or --timestamps for a console"
    return NoTimes(f"logs of zone {zone}", expected=expected, got="one, of which no times are kept")


def fill_logs(parser: Parser) -> None:
    """The arguments of `zone logs`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the zone ends")
    parser.add_argument("-n", "--tail", type=_lines, default=-1, metavar="N", help="how many lines to begin with; all")
    parser.add_argument("--since", type=moment, default=0.0, metavar="T", help="from then on: 10m, a date, seconds")
    parser.add_argument("--until", type=moment, default=0.0, metavar="T", help="up to then")
    parser.add_argument("-t", "--timestamps", action="store_true", help="each line with its time, in UTC")
    parser.add_argument("--console", action="store_true", help="the kernel's console rather than the workload's output")
    zone_argument(parser)


def _lines(text: str) -> int:
    if text == "all":
        return -1
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"expected a number of lines, or all, got {text!r}")
    return min(int(text), MOST_LINES)


def run(arguments: Namespace) -> None:
    """Show a zone's logs."""
    from runtime.host.api.host_pb2 import ReadLogsRequest
    from runtime.host.cli.link import ask

    if arguments.console and (arguments.since or arguments.until or arguments.timestamps):
        raise _no_times(arguments.zone)
    request = ReadLogsRequest(
        zone=arguments.zone,
        follow=arguments.follow,
        since_unix_s=arguments.since,
        until_unix_s=arguments.until,
        tail=arguments.tail,
        console=arguments.console,
    )
    writer = Writer(timestamps=arguments.timestamps)

    async def read(client: Any) -> None:
        async for entry in client.astream(client.host.ReadLogs, request):
            if arguments.timestamps and entry.stream == "console":  # of a zone without an agent
                raise _no_times(arguments.zone)
            writer.write(entry)

    ask(arguments, read)


class Writer:
    """Log entries onto our own files; a time stands where a line begins, not where a piece of one does."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._inside = {1: False, 2: False}

    def write(self, entry: Any) -> None:
        """One entry. Raises BrokenPipeError, NotShown."""
        from runtime.host.cli.console import write_out

        fd = 2 if entry.stream == "stderr" else 1
        write_out(fd, self._stamped(fd, entry) if self._timestamps else entry.data)

    def _stamped(self, fd: int, entry: Any) -> bytes:
        from runtime.host.cli.documents import time_text

        stamp = f"{time_text(entry.unix_s)} ".encode()
        # Not splitlines: what a carriage return has drawn over itself, as progress bars do, is one line.
        lines = re.findall(rb"[^\n]*\n|[^\n]+", entry.data)
        head = b"" if self._inside[fd] else stamp
        if entry.data:
            self._inside[fd] = not entry.data.endswith(b"\n")
        return head + stamp.join(lines) if lines else b""
