"""The table of all commands: what `zone --help` lists, and the module that has each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from runtime.host.cli.parsers import Parser, complete, elsewhere
from runtime.version import VERSION


@dataclass(frozen=True)
class Command:
    """`fill_NAME(parser)` of the module adds the arguments and says, as default `run`, what is run."""

    name: str
    group: str
    module: str
    text: str


_ZONES, _INSIDE, _HOST, _IMAGES = "zones", "inside a zone", "the host", "images and the store"

COMMANDS = (
    Command("boot", _ZONES, "boot", "Boot a zone from the store, or from where `doit publish` put it."),
    Command("run", _ZONES, "run", "Make a zone of an image and run a command in it."),
    Command("ps", _ZONES, "ps", "List the zones of this host."),
    Command("inspect", _ZONES, "inspect", "Show everything about zones."),
    Command("logs", _ZONES, "logs", "Show what a zone's workload, or its kernel, has said."),
    Command("port", _ZONES, "inspect", "Show where a zone's ports are on this machine."),
    Command(
        "update",
        _ZONES,
        "update",
        "Change a zone's memory, vCPUs, restart policy, ports, egress rules, bandwidth or limits while it runs.",
    ),
    Command("pause", _ZONES, "lifecycle", "Have the processes of zones' workloads stand still."),
    Command("unpause", _ZONES, "lifecycle", "Let workloads that were paused go on."),
    Command("stop", _ZONES, "lifecycle", "Stop zones: ask their workloads to end, and see to it."),
    Command("kill", _ZONES, "lifecycle", "End zones at once, or send their workloads a signal."),
    Command("start", _ZONES, "lifecycle", "Start zones that have ended again."),
    Command("restart", _ZONES, "lifecycle", "Stop zones if they run, and start them again."),
    Command("wait", _ZONES, "lifecycle", "Wait until zones have ended, and print their exit codes."),
    Command("rm", _ZONES, "lifecycle", "Forget zones that have ended, with their logs."),
    Command("events", _ZONES, "events", "Show what happens to zones."),
    Command("attach", _INSIDE, "process", "Join this terminal and a zone's workload; Ctrl-] leaves it running."),
    Command("exec", _INSIDE, "process", "Run a command in a zone that runs."),
    Command("cp", _INSIDE, "cp", "Copy files into a zone or out of it."),
    Command("top", _INSIDE, "top", "Show what zones use, or a zone's processes, as it changes."),
    Command("metrics", _INSIDE, "top", "Show what a zone measures of itself."),
    Command("sysctl", _INSIDE, "sysctl", "Show or change settings of a zone's kernel while it runs."),
    Command("snoop", _INSIDE, "snoop", "Show what passes between the host and the agents of zones."),
    Command("host", _HOST, "host", "The host itself: the lab, or this machine's zoned."),
    Command("net", _HOST, "net", "The networks zones are in."),
    Command("system", _HOST, "system", "What the host holds: is anything left behind, what can go."),
    Command("image", _IMAGES, "image", "Work with images, without any zone."),
    Command("store", _IMAGES, "store", "Look after the store: where its bytes are, whether they are sound."),
    Command("cache", _IMAGES, "cache", "The cache that hosts share: results of the pipeline in a registry, signed."),
    Command("completion", _IMAGES, "completion", "Print what makes a shell complete this command."),
)

# Words of docker's that are no commands here: what is.
DOCKER = {
    "pull": "zone image pull",
    "images": "zone image ls",
    "rmi": "zone image rm",
    "diff": "zone image diff",
    "history": "zone image inspect",
    "save": "zone image pack",
    "push": "./doit publish",
    "create": "zone run",
    "container": "zone ps",
    "stats": "zone top",
    "network": "zone net",
    "volume": "zone run -v",
    "info": "zone host status",
    "version": "zone --version",
}

EXAMPLES = """\
examples:
  zone run -it --rm debian     a shell in a zone of its own, from Docker Hub's image
  zone run -d -p 8080:80 --name web recipe:nginx
  zone boot nginx              boot the zone whose bundle `doit bundle zone=nginx` made
  zone boot docker://127.0.0.1:5000/zones/nginx    boot what another host published, byte for byte
  zone ps                      the zones of this host
  zone logs -f nginx           what its workload says, as it comes
  zone exec -it nginx sh       a shell in it
  zone stop nginx              stop it; the lab stays up
  zone host status             is the lab up, and how much memory is left in it
  zone host up --memory 4096   a lab with room for larger zones
  zone host down               end the lab
  zone image pack docker://127.0.0.1:5000/nginx -o nginx.squashfs
  zone image diff oci:dir:1 oci:dir:2              what changed between two images, by path
  zone store du                what the store holds; gc takes away what nobody needs, fsck finds damage

Zones run on this machine if it is a control domain of Xen, else in the lab: Xen and a Debian dom0 inside QEMU.
--host or $ZONE_HOST (xen, lab, lab:NAME, ssh://USER@HOST, tls://HOST:PORT) says otherwise. Artifacts lie in
$ZONEWRIGHT_STORE (~/.cache/zonewright). `zone COMMAND --help` shows a command's options and examples."""


def parser() -> Parser:
    """The command line. No command's own module is imported until that command is asked for."""
    import argparse

    usage = "zone [-h] [--host H] [--verbose] [--version] COMMAND ..."
    top = Parser(
        prog="zone", usage=usage, description="Boots zones and looks after them.", epilog=f"{_listed()}\n{EXAMPLES}"
    )
    host = top.add_argument(
        "--host",
        metavar="H",
        help="where zones run: xen, lab, ssh://…, tls://… (default: $ZONE_HOST, else what this is)",
    )
    complete(host, "hosts")
    top.add_argument("--verbose", action="store_true", help="say what is done, step by step, on stderr")
    top.add_argument("--version", action="version", version=f"zone {VERSION}", help="say which zonewright this is")
    commands = top.add_subparsers(
        metavar="COMMAND", required=True, parser_class=Parser, prog="zone", help=argparse.SUPPRESS
    )
    elsewhere(commands, DOCKER)
    for one in COMMANDS:
        commands.add_parser(one.name, help=one.text, description=one.text, fill=_filler(one))
    return top


def _filler(one: Command) -> Any:
    def fill(made: Parser) -> None:
        getattr(import_module(f"runtime.host.cli.{one.module}"), f"fill_{one.name}")(made)

    return fill


def _listed() -> str:
    lines = []
    for group in dict.fromkeys(one.group for one in COMMANDS):
        lines.append(f"{group}:")
        lines += [f"  {one.name:<11} {one.text}" for one in COMMANDS if one.group == group]
        lines.append("")
    return "\n".join(lines)
