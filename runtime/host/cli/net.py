"""`zone net`."""

from __future__ import annotations

from argparse import Namespace

from runtime.host.cli.parsers import Parser, below, command, format_argument, quiet_argument
from runtime.host.cli.terminal import escaped, show, table, write

LS = """\
examples:
  zone net ls
  zone net ls --format json | jq '.[].counters'
"""


def fill_net(parser: Parser) -> None:
    """`net` and its commands."""
    ls = command(below(parser), "ls", "List the networks, and the zones in each.", run=run_ls, epilog=LS)
    quiet_argument(ls, "names alone")
    format_argument(ls)


def run_ls(arguments: Namespace) -> None:
    """List the networks."""
    from runtime.host.api.host_pb2 import ListNetworksRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    networks = ask(arguments, lambda client: client.acall(client.host.ListNetworks, ListNetworksRequest())).networks
    if arguments.quiet:
        write("".join(f"{escaped(network.name)}\n" for network in networks))
    elif arguments.format != "table":
        show([document(network) for network in networks], arguments.format)
    else:
        head = ["NAME", "IPV4", "IPV6", "GATEWAY", "ENGINE", "ZONES"]
        table(head, [[n.name, n.ipv4, n.ipv6, n.gateway4, n.engine, ", ".join(n.zones)] for n in networks])
