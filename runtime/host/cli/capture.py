"""`zone net capture`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError, Namespace
from ipaddress import ip_address
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import Parser, complete, zone_argument

EXAMPLES = """\
Every frame that passes the zone's interface, both ways, also those its network refuses. Ctrl-C ends it.
Where the file is written too slowly, frames are lost, and counted.

examples:
  zone net capture web -o web.pcap
  zone net capture web --port 53 --seconds 10 -o dns.pcap
  zone net capture web --address 192.0.2.7 --count 100 -o - | tcpdump -nr -
  zone net capture web -o - | wireshark -k -i -
"""


class CannotCapture(RuntimeFault):
    """A capture that has nowhere to go."""


def fill_capture(parser: Parser) -> None:
    """The arguments of `zone net capture`."""
    parser.set_defaults(run=run)
    output = parser.add_argument("-o", "--output", metavar="FILE", required=True, help="a pcap file; - for stdout")
    complete(output, "files")
    parser.add_argument("-c", "--count", type=_number(1 << 62), default=0, metavar="N", help="end after N frames")
    parser.add_argument("--seconds", type=_seconds, default=0.0, metavar="S", help="end after S seconds")
    parser.add_argument("--port", type=_number(65535), default=0, metavar="N", help="only TCP, UDP, SCTP from or to it")
    parser.add_argument("--address", type=_address, metavar="A", help="only frames from or to it")
    parser.add_argument("--snap", type=_number(65553), default=0, metavar="BYTES", help="keep so much of a frame; all")
    zone_argument(parser)


def _number(most: int) -> Any:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
            raise ArgumentTypeError(f"expected a number from 1 to {most}, got {text!r}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ArgumentTypeError(f"expected seconds, got {text!r}")
    return seconds


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ArgumentTypeError(f"expected an IPv4 or IPv6 address, got {text!r}") from None


def run(arguments: Namespace) -> None:
    """Capture until an end is reached. Raises CannotCapture, BrokenPipeError."""
    from runtime.host.api.host_pb2 import CaptureNetworkRequest
    from runtime.host.cli.link import ask

    if arguments.output == "-" and os.isatty(1):
        raise CannotCapture("zone net capture", expected="stdout to be a file or a pipe", got="a terminal")
    request = CaptureNetworkRequest(
        zone=arguments.zone,
        count=arguments.count,
        seconds=arguments.seconds,
        snap_bytes=arguments.snap,
        host=arguments.address or "",
        port=arguments.port,
    )
    file = File(arguments.output)

    async def read(client: Any) -> None:
        async for reply in client.astream(client.host.CaptureNetwork, request):
            file.write(reply)

    try:
        ask(arguments, read)
    except KeyboardInterrupt:  # the usual end of a capture that has no other
        if not file.begun:
            raise
    finally:
        file.close()


class File:
    """Where a capture goes. A file is opened, and what it held is gone, only when the capture has begun."""

    def __init__(self, path: str) -> None:
        self._path, self._fd = path, -1
        self._frames = self._lost = 0

    @property
    def begun(self) -> bool:
        """Has anything come?"""
        return self._fd >= 0

    def write(self, reply: Any) -> None:
        """One piece. Raises CannotCapture, BrokenPipeError."""
        from runtime.host.cli.console import write_all

        try:
            if not self.begun:
                self._open()
            write_all(self._fd, reply.pcap)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CannotCapture(f"file {self._path}", expected="to write it", got=str(error)) from error
        self._frames, self._lost = reply.frames, reply.lost

    def _open(self) -> None:
        # What a zone says to others is for the eyes of whoever captured it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = 1 if self._path == "-" else os.open(self._path, flags, 0o600)
        where = "stdout" if self._path == "-" else self._path
        sys.stderr.write(f"capturing to {where}\n")

    def close(self) -> None:
        """Say what there is."""
        if not self.begun:
            return
        if self._fd != 1:
            os.close(self._fd)
        lost = f", {self._lost} lost: they came faster than they were taken" if self._lost else ""
        sys.stderr.write(f"{self._frames} frames{lost}\n")
