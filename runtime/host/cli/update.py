"""`zone update`."""

from __future__ import annotations

from argparse import Namespace

from runtime.errors import RuntimeFault
from runtime.host.cli.amounts import bandwidth_or_none, memory_mib, whole_cpus
from runtime.host.cli.parsers import BANDWIDTH, EGRESS, LIMIT, Parser, complete, zone_argument
from runtime.host.cli.terminal import escaped, write

EXAMPLES = """\
Memory and vCPUs go up to the maximum the zone was booted with; `zone inspect` shows both, and what the zone has by now.

examples:
  zone update -m 384m web
  zone update -c 2 --restart on-failure:3 web
  zone update --egress "allow 192.0.2.0/24 443" --egress "deny any" web     in place of the rules it has
  zone update --bandwidth 100mbit web      each way; none takes the limit away
  zone update --limit memory.max=64m --limit pids.max=64 --limit cpu.max=0.5 web    of its workload; max lifts one
  zone update --publish-add 8443:443 --publish-rm 8080 web
  zone update --publish-add 53:53/udp --publish-add 8000-8010:9000-9010 dns
  zone update --publish-rm 53/udp --publish-rm 8000-8010 dns
"""

ADD = "one more port, or a range, as `zone run -p` has it"
REMOVE = "no longer: [ADDRESS:]HOST_PORT[/udp], or a range"


class NothingToDo(RuntimeFault):
    """An update that changes nothing."""


def fill_update(parser: Parser) -> None:
    """The arguments of `zone update`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    parser.add_argument("-m", "--memory", type=memory_mib, metavar="AMOUNT", help="256m, 1g")
    parser.add_argument("-c", "--cpus", type=whole_cpus, metavar="N", help="vCPUs")
    restart = parser.add_argument("--restart", metavar="POLICY", help="no, on-failure[:MAX], always, unless-stopped")
    complete(restart, "restarts")
    parser.add_argument("--publish-add", action="append", default=[], metavar="RULE", help=ADD)
    parser.add_argument("--publish-rm", action="append", default=[], metavar="PORT", help=REMOVE)
    rules = parser.add_mutually_exclusive_group()
    rules.add_argument("--egress", action="append", metavar="RULE", help=f"instead of its rules: {EGRESS}")
    rules.add_argument("--no-egress", action="store_true", help="no rules of its own; connections that run go on")
    parser.add_argument("--bandwidth", metavar="RATE|none", help=BANDWIDTH)
    limit = parser.add_argument("--limit", action="append", default=[], metavar="KEY=VALUE", help=LIMIT)
    complete(limit, "limits")
    zone_argument(parser)


def run(arguments: Namespace) -> None:
    """Change a zone; refused as a whole where one part cannot be."""
    from pipeline.bundle.limits import parse_limit, split_assignment
    from pipeline.bundle.ports import check_ports, parse_host_ends, parse_ports
    from pipeline.bundle.spec import parse_egress, parse_restart
    from pipeline.store import Store
    from runtime.host import actions
    from runtime.host.api import host_pb2 as messages
    from runtime.host.cli.link import meant_by
    from runtime.host.hosts import select_host

    added = [port for text in arguments.publish_add for port in parse_ports(text, subject="--publish-add")]
    removed = [port for text in arguments.publish_rm for port in parse_host_ends(text, subject="--publish-rm")]
    check_ports(added, subject="--publish-add")
    egress = [] if arguments.no_egress else arguments.egress
    bandwidth = bandwidth_or_none(arguments.bandwidth)
    named = dict(split_assignment(text, subject="--limit") for text in arguments.limit)
    limits = {file: parse_limit(file, text, subject=f"--limit {file}") for file, text in named.items()}
    given = (arguments.memory, arguments.cpus, arguments.restart, egress, bandwidth)
    if not added and not removed and not limits and all(value is None for value in given):
        raise NothingToDo(f"zone {arguments.zone}", expected="something to change", got="nothing", hint="-m, -c, …")
    request = messages.UpdateZoneRequest(
        zone=arguments.zone,
        memory_mib=arguments.memory,
        vcpus=arguments.cpus,
        bandwidth_bit_s=bandwidth,
        limits=limits,
        remove_ports=[
            messages.PortRule(
                host_address=port.host_address,
                host_port=port.host_port,
                # On a host that is somewhere else the port is where it was asked for, and is seen under another name.
                address=port.host_address,
                port=port.host_port,
                protocol=port.protocol,
            )
            for port in removed
        ],
    )
    if arguments.restart is not None:
        policy = parse_restart(arguments.restart, subject="--restart")
        request.restart.CopyFrom(messages.RestartPolicy(name=policy.name, max_retries=policy.max_retries))
    if egress is not None:
        rules = parse_egress(egress, subject="--egress")
        request.egress.CopyFrom(messages.EgressRules(rules=rules))
    host = select_host(Store(), arguments.host)
    with host.connect() as client, meant_by(client, arguments.zone):
        request.add_ports.extend(host.listen_for(added, released=removed))
        zone = client.call(client.host.UpdateZone, request, timeout_s=120)
        if added:
            host.expose(zone.ports)
        if removed:
            actions.tidy(host, client)
    write(f"{escaped(zone.name)}\n")
