"""`zone sysctl`: settings of a zone's kernel, read and changed while it runs."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any

from runtime.host.cli.parsers import Parser, format_argument, zone_argument
from runtime.host.cli.terminal import escaped, show, write

EXAMPLES = """\
A change holds until the zone ends; `zone run --sysctl` and a spec's kernel_options.sysctls are for every start. They
are the zone's own: the workload has its own of namespaces that are its own, such as kernel.shmmax.

examples:
  zone sysctl web vm.swappiness net.core.somaxconn
  zone sysctl web vm.swappiness=10 net.ipv4.ip_local_port_range="20000 40000"
  zone sysctl -n web fs.file-nr
"""


def fill_sysctl(parser: Parser) -> None:
    """The arguments of `zone sysctl`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    parser.add_argument("-n", "--values", action="store_true", help="the values alone")
    zone_argument(parser)
    parser.add_argument("settings", metavar="KEY[=VALUE]", nargs="+", type=_setting, help="to show, or to set")
    format_argument(parser)


def _setting(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not key:
        raise ArgumentTypeError(f"expected KEY or KEY=VALUE, got {text!r}")
    return key, value if equals else None


def run(arguments: Namespace) -> None:
    """Set, in order, and show each as it is then."""
    from runtime.host.api.host_pb2 import SysctlRequest
    from runtime.host.cli.link import ask

    async def each(client: Any) -> None:
        found = []
        for key, value in arguments.settings:
            request = SysctlRequest(zone=arguments.zone, key=key, value=value)
            found.append({"key": key, "value": (await client.acall(client.host.Sysctl, request)).value})
            if arguments.format == "table":  # at once: a later one may be refused
                head = "" if arguments.values else f"{key} = "
                # Some have lines and columns, and nothing else that could move a cursor.
                value = "\n".join(escaped(line.expandtabs()) for line in found[-1]["value"].split("\n"))
                write(f"{head}{value}\n")
        if arguments.format != "table":
            show(found, arguments.format)

    ask(arguments, each)
