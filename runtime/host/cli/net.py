"""`zone net`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from runtime.host.cli.amounts import mtu_bytes
from runtime.host.cli.capture import EXAMPLES as CAPTURE
from runtime.host.cli.capture import fill_capture
from runtime.host.cli.parsers import Parser, below, command, complete, format_argument, quiet_argument, zone_argument
from runtime.host.cli.terminal import duration_text, escaped, show, size_text, table, write

LS = """\
examples:
  zone net ls
  zone net ls --format json | jq '.[].counters'
"""
CREATE = """\
A network that does not exist is made for the first zone that names it, and goes with the last; one made by this command
stays until `zone net rm`, with its addresses.

examples:
  zone net create backend
  zone run -d --name db --network backend recipe:postgres
  zone run -it --rm --network backend debian           finds the other one as `db`
"""
RM = """\
examples:
  zone net rm backend
"""
FLOWS = """\
examples:
  zone net flows
  zone net flows web
  zone net flows --counters web      what was counted since its network engine was started
  zone net flows --format json | jq '.[].flows[] | select(.bytes_down > 1e9)'
"""


def fill_net(parser: Parser) -> None:
    """`net` and its commands."""
    commands = below(parser)
    ls = command(commands, "ls", "List the networks, and the zones in each.", run=run_ls, epilog=LS)
    quiet_argument(ls, "names alone")
    format_argument(ls)
    create = command(commands, "create", "Make a network that zones can share.", run=run_create, epilog=CREATE)
    create.add_argument(
        "--mtu", type=mtu_bytes, default=0, metavar="N", help="of its zones' interfaces (default: 1500)"
    )
    create.add_argument("name", metavar="NAME", help="what zones name it by")
    rm = command(commands, "rm", "Remove networks that zones shared.", run=run_rm, epilog=RM)
    complete(rm.add_argument("names", metavar="NAME", nargs="+", help="networks without zones in them"), "networks")
    flows = command(commands, "flows", "List the connections that pass now.", run=run_flows, epilog=FLOWS)
    flows.add_argument("--counters", action="store_true", help="what was counted instead, in a table")
    format_argument(flows)
    zone_argument(flows, optional=True)
    command(commands, "capture", "Record what passes a zone's interface.", epilog=CAPTURE, fill=fill_capture)


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


def run_create(arguments: Namespace) -> None:
    """Make a network."""
    from runtime.host.api.host_pb2 import CreateNetworkRequest
    from runtime.host.cli.link import ask

    request = CreateNetworkRequest(name=arguments.name, mtu=arguments.mtu)
    made = ask(arguments, lambda client: client.acall(client.host.CreateNetwork, request))
    write(f"{escaped(made.name)}\n")


def run_rm(arguments: Namespace) -> None:
    """Remove networks, in order; the first that cannot be ends it."""
    from runtime.host.api.host_pb2 import RemoveNetworkRequest
    from runtime.host.cli.link import ask

    async def remove(client: Any) -> None:
        for name in arguments.names:
            await client.acall(client.host.RemoveNetwork, RemoveNetworkRequest(name=name))
            write(f"{escaped(name)}\n")

    ask(arguments, remove)


def run_flows(arguments: Namespace) -> int:
    """List what passes zones' networks. 1 where the only zone asked for does not say."""
    import sys

    from runtime.host.api.host_pb2 import ListFlowsRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    request = ListFlowsRequest(zone=arguments.zone or "")
    zones = ask(arguments, lambda client: client.acall(client.host.ListFlows, request)).zones
    code = 1 if arguments.zone and any(zone.problem for zone in zones) else 0
    if arguments.format != "table":
        show([document(zone) for zone in zones], arguments.format)
        return code
    if arguments.counters:
        rows = [[zone.zone, name, str(zone.counters[name])] for zone in zones for name in sorted(zone.counters)]
        table(["ZONE", "COUNTER", "VALUE"], rows)
    else:
        head = ["ZONE", "PROTOCOL", "ZONE SIDE", "OUTSIDE", "STATE", "UP", "DOWN", "AGE"]
        table(head, [_row(zone.zone, flow) for zone in zones for flow in zone.flows])
    for zone in zones:
        if zone.problem:
            sys.stderr.write(f"{escaped(zone.zone)}: {escaped(zone.problem)}\n")
    return code


def _row(zone: str, flow: Any) -> list[str]:
    sizes = [size_text(flow.bytes_up), size_text(flow.bytes_down)]
    return [zone, flow.protocol, flow.zone_side, flow.outside, flow.state, *sizes, duration_text(flow.age_s)]
