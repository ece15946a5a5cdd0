"""`zone host cert`: the certificates of tls://, made on the host they are for."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from runtime.host.cli.parsers import Parser, below, command, complete
from runtime.host.cli.terminal import escaped, write

DIRECTORY = Path("/etc/zonewright/tls")
MOST_DAYS = 36500  # a certificate ends by the year 9999
EXAMPLES = """\
On the host; zoned listens with TLS once there is a server certificate, and asks every client for one of this authority.

examples:
  zone host cert server zones.example.org 192.0.2.7
  zone host cert client alice              its three files go to ~/.config/zonewright/tls/HOST of alice's machine
  zone host cert renew zones.example.org   a new authority: no client made before is let in any more
"""


def fill(parser: Parser) -> None:
    """`cert` and its commands."""
    commands = below(parser)
    text = "Make the certificate zoned shows, and the authority that signs it."
    server = command(commands, "server", text, run=run_server, epilog=EXAMPLES)
    text = "Make a certificate for somebody who may use this host."
    client = command(commands, "client", text, run=run_client, epilog=EXAMPLES)
    text = "Make a new authority and server certificate; clients made before are shut out."
    renew = command(commands, "renew", text, run=run_renew, epilog=EXAMPLES)
    for one in (server, renew):
        one.add_argument("names", metavar="NAME", nargs="+", help="a name or address clients reach this host by")
    client.add_argument("name", metavar="NAME", help="whose it is")
    complete(client.add_argument("--into", type=Path, metavar="DIR", help="where its files go"), "directories")
    for one in (server, client, renew):
        one.add_argument("--days", type=_days, default=825, metavar="N", help="how long it holds (default: 825)")
        directory = one.add_argument(
            "--directory", type=Path, default=DIRECTORY, metavar="DIR", help=f"default: {DIRECTORY}"
        )
        complete(directory, "directories")


def _days(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= MOST_DAYS:
        raise ArgumentTypeError(f"expected 1 to {MOST_DAYS} days, got {text!r}")
    return int(text)


def run_server(arguments: Namespace) -> None:
    """Make a server certificate."""
    from runtime.host.certificates import make_server

    _say(make_server(arguments.directory, arguments.names, days=arguments.days))


def run_client(arguments: Namespace) -> None:
    """Make a client certificate."""
    from runtime.host.certificates import make_client

    _say(make_client(arguments.directory, arguments.name, days=arguments.days, into=arguments.into))


def run_renew(arguments: Namespace) -> None:
    """Make a new authority."""
    from runtime.host.certificates import renew_authority

    _say(renew_authority(arguments.directory, arguments.names, days=arguments.days))


def _say(made: list[Any]) -> None:
    write("".join(f"{escaped(file.path)}: {file.what}\n" for file in made))
