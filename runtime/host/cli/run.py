"""`zone run`: an image, and a command in it, in a zone of its own."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import REMAINDER, Namespace
from typing import Any

from pipeline.errors import SentenceError
from runtime.host.cli.amounts import memory_mib, mtu_bytes, whole_cpus
from runtime.host.cli.confined import confinement_arguments
from runtime.host.cli.moments import span_s
from runtime.host.cli.parsers import (
    BANDWIDTH,
    EGRESS,
    SCRATCH,
    Parser,
    complete,
    network_arguments,
    start_timeout_argument,
)
from runtime.host.cli.process import check_terminal, process_arguments
from runtime.host.cli.terminal import escaped, with_progress, write
from runtime.host.faults import RemoteFault

EXAMPLES = """\
IMAGE is a reference (docker:// may be left out), recipe:NAME, or a name `zone image ls` shows; what the image says (its
entrypoint, user, environment, directory) holds unless said otherwise. The exit code is the command's own, 128 + N where
signal N killed it, 126 or 127 where it cannot be run; 125 where zone itself failed.

examples:
  zone run --rm docker.io/library/alpine uname -a
  zone run -it --rm debian                 a shell; Ctrl-] leaves it running
  zone run -d --name web -p 8080:80 recipe:nginx
  zone run -d -p 53:53 -p 53:53/udp -p 0.0.0.0:8000-8010:9000-9010 app
  zone run -d --name web -p 80 recipe:nginx    on a port that is free: `zone port web`
  zone run -d -m 256m --memory-max 1g -c 2 --restart on-failure:3 -e MODE=test 127.0.0.1:5000/app:1
  zone run --rm --egress "allow 192.0.2.0/24 443" --egress "deny any" alpine wget -O - https://192.0.2.7/
  zone run -d --kernel recipe:debian -v /srv/www:/var/www/html:dir:ro recipe:nginx    a directory of the host's
  zone run --rm -v tmpfs:/scratch:size=64m --read-only alpine df -h /scratch
  zone run --rm --scratch 2g alpine df -h /     what it writes goes to a disk, not to its memory
  zone run --rm --cap-drop ALL --cap-add NET_BIND_SERVICE --pids-limit 64 --ulimit nofile=1024:4096 --init app
  zone run -d --health-cmd "wget -q -O /dev/null 127.0.0.1" --health-interval 10s recipe:nginx
  echo hello | zone run -i --rm alpine tr a-z A-Z
"""


def fill_run(parser: Parser) -> None:
    """The arguments of `zone run`, as docker names them."""
    from runtime.host.cli.entry import OWN_FAILURE

    parser.set_defaults(run=run, failure_code=OWN_FAILURE)
    parser.epilog = EXAMPLES
    parser.usage = "zone run [OPTIONS] IMAGE [COMMAND [ARG ...]]"
    process_arguments(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="return once it runs; prints the zone's name")
    parser.add_argument("--rm", action="store_true", help="forget the zone when it has ended")
    parser.add_argument("--name", metavar="NAME", help="the zone's name (default: made from the image's)")
    parser.add_argument("--hostname", metavar="NAME", help="default: the zone's name")
    parser.add_argument("-p", "--publish", action="append", default=[], metavar="RULE", help=PORT)
    parser.add_argument("--dns", action="append", default=[], metavar="ADDRESS", help=DNS)
    parser.add_argument("--dns-search", action="append", default=[], metavar="DOMAIN", help="to complete names with")
    parser.add_argument("--dns-option", action="append", default=[], metavar="OPTION", help="ndots:2, use-vc, …")
    parser.add_argument("--egress", action="append", default=[], metavar="RULE", help=EGRESS)
    parser.add_argument("--bandwidth", metavar="RATE", help=f"{BANDWIDTH} (default: no limit)")
    parser.add_argument("-v", "--volume", action="append", default=[], metavar="VOLUME", help=VOLUME)
    parser.add_argument("--scratch", metavar="SIZE|DEVICE", help=f"{SCRATCH} (default: memory)")
    network_arguments(parser)
    parser.add_argument("--network-engine", default="", metavar="ENGINE", help="splice or pasta (default: splice)")
    parser.add_argument("--mtu", type=mtu_bytes, metavar="N", help="of its interface and its network (default: 1500)")
    parser.add_argument("--ip", default="", metavar="ADDRESS", help="its own address, of zones' pool (default: any)")
    parser.add_argument("-m", "--memory", type=memory_mib, metavar="AMOUNT", help="256m, 1g (default: 256m)")
    parser.add_argument("--memory-max", type=memory_mib, metavar="AMOUNT", help="what `zone update` may give it")
    parser.add_argument("-c", "--cpus", type=whole_cpus, metavar="N", help="vCPUs (default: 1)")
    parser.add_argument("--cpus-max", type=whole_cpus, metavar="N", help="what `zone update` may give it")
    restart = parser.add_argument("--restart", metavar="POLICY", help="no, on-failure[:MAX], always, unless-stopped")
    complete(restart, "restarts")
    parser.add_argument("--entrypoint", metavar="COMMAND", help="instead of the image's; its Cmd is dropped, too")
    parser.add_argument("--read-only", action="store_true", help="the root cannot be written to")
    confinement_arguments(parser)
    _health_arguments(parser)
    parser.add_argument("-l", "--label", action="append", default=[], metavar="KEY=VALUE", help="to list and filter by")
    kernel = parser.add_argument("--kernel", metavar="REF", help="kernel image (default: recipe:debian-cloud)")
    complete(kernel, "images")
    extension = parser.add_argument(
        "--extension", action="append", default=[], metavar="REF", help="extension image, before the next"
    )
    complete(extension, "images")
    parser.add_argument("--stop-signal", metavar="SIGNAL", help="default: the image's, else SIGTERM")
    parser.add_argument(
        "--stop-timeout", type=int, metavar="S", help="seconds until it is killed (default: the image's, else 10)"
    )
    start_timeout_argument(parser)
    parser.add_argument("--pull", choices=PULLS, default="missing", metavar="WHEN", help=PULL)
    complete(parser.add_argument("image", metavar="IMAGE", help="what to run"), "images")
    argv = parser.add_argument("argv", metavar="COMMAND", nargs=REMAINDER, help="instead of the image's Cmd")
    argv.required = False  # argparse takes it for needed, and would ask for it where only the image is missing
    complete(argv, "words")


def _health_arguments(parser: Parser) -> None:
    parser.add_argument("--health-cmd", metavar="TEXT", help="a command for the image's shell: 0 means it is well")
    for name, text in HEALTH_TIMES.items():
        parser.add_argument(f"--health-{name}", type=span_s, metavar="TIME", help=text)
    parser.add_argument("--health-retries", type=int, metavar="N", help="failures in a row that count (default: 3)")
    parser.add_argument("--no-healthcheck", action="store_true", help="not even the image's own")


HEALTH_TIMES = {
    "interval": "between two looks: 30s, 1m30s (default: the image's, else 30s)",
    "timeout": "after which a look has failed (default: 30s)",
    "start-period": "after the start, in which failures do not count (default: none)",
    "start-interval": "between two looks in the start period (default: 5s)",
}
PULLS = ("missing", "always", "never")
PORT = "[[ADDRESS:][HOST_PORT]:]ZONE_PORT[/udp], or ranges of one length; on 127.0.0.1 unless ADDRESS is given"
DNS = "a name server (default: the zone's gateway, which asks the host's)"
VOLUME = (
    "DIRECTORY:TARGET[:dir][:ro], tmpfs:TARGET[:size=N[m|g]][:ro], FILE.squashfs:TARGET, or DEVICE:TARGET[:ro]; "
    "directories and devices are those of the host it runs on"
)
PULL = "missing (default): a tag means what it did when last pulled; always: what it means now; never: no network"


def run(arguments: Namespace) -> int:
    """Make the zone, run it, and stay with it unless it is to be left alone; the workload's exit code."""
    from pipeline.compose import compose
    from pipeline.env import open_env
    from pipeline.store import Store
    from runtime.host import actions
    from runtime.host.cli.runspec import spec_of
    from runtime.host.hosts import select_host

    check_terminal(arguments)
    spec = spec_of(arguments)
    store, timeline = Store(), actions.Timeline()
    host = select_host(store, arguments.host)

    def prepared(progress: Any) -> Any:
        env = open_env(progress, offline=arguments.pull == "never")
        with timeline.step("make the bundle"):
            made = compose(spec, env, pull=arguments.pull)
        actions.prepare(host, store, made.manifest, made.bundle, timeline, progress)
        return made

    made = with_progress(prepared, patient=True)
    with host.connect() as client:
        # Attached: a workload that ends at once is still seen from its first byte, as the attach replays it.
        until = "ready" if arguments.detach else "running"
        attach, timeout_s = not arguments.detach, arguments.timeout
        wishes = actions.Wishes(until, remove=arguments.rm, attach=attach, fresh=True, start_timeout_s=timeout_s)

        def start(progress: Any) -> Any:
            return actions.start(client, host, made.manifest, made.bundle, wishes, timeline, progress)

        zone = with_progress(start, patient=True).zone
        if arguments.detach:
            write(f"{escaped(zone.name)}\n")
            return 0
        try:
            return client.run(_attached(client, zone, arguments))
        finally:
            with contextlib.suppress(SentenceError):
                actions.tidy(host, client)


async def _what_it_said(client: Any, zone: str, messages: Any) -> Any:
    """Of a zone that had ended before it could be attached to: its output, and its ExitStatus."""
    from runtime.host.cli.logs import Writer

    writer = Writer(timestamps=False)
    async for entry in client.astream(client.host.ReadLogs, messages.ReadLogsRequest(zone=zone, tail=-1)):
        writer.write(entry)
    return (await client.acall(client.host.GetZone, messages.GetZoneRequest(zone=zone))).exit


async def _attached(client: Any, zone: Any, arguments: Namespace) -> int:
    from runtime.host.api import host_pb2 as messages
    from runtime.host.cli.process import attach_start, exit_code, session

    start = attach_start(messages, zone.id, tty=arguments.tty and os.isatty(1), stdin=arguments.interactive)
    try:
        status = await session(client, client.host.AttachZone, start, messages)
    except RemoteFault as fault:
        if fault.kind != "WrongState":
            raise
        status = await _what_it_said(client, zone.id, messages)
    if status is None and os.isatty(0):
        sys.stderr.write(f"left zone {escaped(zone.name)} running; zone attach {escaped(zone.name)} comes back\n")
    return exit_code(status)
