"""The `zone` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import SentenceError
from pipeline.signals import exit_on_sigterm
from runtime.host import cli_cache, cli_image, cli_store
from runtime.host.terminal import command, table, with_progress, write

if TYPE_CHECKING:
    from runtime.host.hosts import Host

EXAMPLES = """\
examples:
  zone boot nginx              boot the zone whose bundle `doit bundle zone=nginx` made
  zone ps                      the zones of this host
  zone boot docker://127.0.0.1:5000/zones/nginx    boot what another host published, byte for byte
  zone logs -f nginx           its console, as it comes
  zone stop nginx              stop it; the lab stays up
  zone host status             is the lab up, and how much memory is left in it
  zone host up --memory 4096   a lab with room for larger zones
  zone host down               end the lab
  zone image pack docker://127.0.0.1:5000/nginx -o nginx.squashfs
  zone image diff oci:dir:1 oci:dir:2              what changed between two images, by path
  zone store du                what the store holds; gc takes away what nobody needs, fsck finds damage

Zones run on this machine if it is a control domain of Xen, else in the lab: Xen and a Debian dom0 inside QEMU.
--host or $ZONE_HOST (xen, lab) says otherwise. Artifacts lie in $ZONEWRIGHT_STORE (~/.cache/zonewright)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for an error said in one sentence, 130 for Ctrl-C (SIGTERM: 143)."""
    arguments = parser().parse_args(argv)
    exit_on_sigterm()
    if arguments.verbose:
        import logging  # costs a cache hit 5 ms; warnings are shown without it, by logging's last resort

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    try:
        return int(arguments.run(arguments) or 0)
    except SentenceError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line, in one table."""
    top = command(None, "zone", "Boots zones and looks after them.", epilog=EXAMPLES)
    top.add_argument("--host", metavar="H", help="where zones run: xen or lab (default: $ZONE_HOST, else what this is)")
    top.add_argument("--verbose", action="store_true", help="say what is done, step by step, on stderr")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    boot = command(commands, "boot", "Boot a zone from the store, or from where `doit publish` put it.", run=_boot)
    boot.add_argument("name", metavar="NAME|REF", help="a zone's name; or docker://HOST/REPO[:TAG][@DIGEST], oci:DIR")
    boot.add_argument("--replace", action="store_true", help="REF may take its name from another bundle here")
    boot.add_argument("--no-wait", action="store_true", help="return when its domain runs, before its ports answer")

    stop = command(commands, "stop", "Stop a zone, or forget one that exited.", run=_stop)
    stop.add_argument("name", help="a zone's name")
    stop.add_argument(
        "--timeout", type=float, metavar="S", help="seconds to wait before it is killed (default: its spec's)"
    )

    ps = command(commands, "ps", "List the zones of this host.", run=_ps)
    ps.add_argument("--format", choices=("table", "json"), default="table", help="default: table")

    logs = command(commands, "logs", "Show a zone's console.", run=_logs)
    logs.add_argument("name", help="a zone's name")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the zone ends")
    logs.add_argument("--tail", type=int, default=200, metavar="N", help="how many lines to begin with (default: 200)")

    host = command(commands, "host", "The host itself: the lab, or this machine's zoned.")
    host_commands = host.add_subparsers(metavar="COMMAND", required=True)
    up = command(host_commands, "up", "Bring it up; the flags are for the lab and win over lab.toml.", run=_host_up)
    up.add_argument("--memory", type=int, metavar="MIB", dest="memory_mib", help="memory of the whole lab")
    up.add_argument("--dom0-memory", type=int, metavar="MIB", dest="dom0_memory_mib", help="dom0's share of it")
    up.add_argument("--vcpus", type=int, metavar="N", help="processors of the lab")
    up.add_argument("--port", action="append", metavar="RULE", dest="ports", help="[ADDRESS:]HOST_PORT:DOM0_PORT")
    command(host_commands, "down", "End the lab and every zone in it.", run=_host_down)
    command(host_commands, "console", "The console of the lab's dom0 and of Xen; Ctrl-] leaves it.", run=_host_console)
    status = command(host_commands, "status", "Is it up, what runs there, what is left.", run=_host_status)
    status.add_argument("--format", choices=("table", "json"), default="table", help="default: table")

    cli_image.add_to(commands)
    cli_cache.add_to(commands)
    cli_store.add_to(commands)
    return top


def _host(arguments: argparse.Namespace) -> Host:
    from pipeline.store import Store
    from runtime.host.hosts import select_host

    return select_host(Store(), arguments.host)


def _boot(arguments: argparse.Namespace) -> None:
    from pipeline.env import open_env
    from pipeline.remote import bundles
    from pipeline.store import Store
    from runtime.host import actions

    host, store = _host(arguments), Store()

    def boot(progress: Any) -> actions.Booted:
        wait = not arguments.no_wait
        if not bundles.is_reference(arguments.name):
            return actions.boot(host, store, arguments.name, wait=wait, progress=progress)
        found = bundles.pull_bundle(open_env(progress), arguments.name, replaces=arguments.replace)
        return actions.boot_bundle(host, store, *found, wait=wait, progress=progress)

    booted = with_progress(boot)
    write(up_line(booted) + "\n")


def up_line(booted: Any) -> str:
    """`zone nginx is up: http://127.0.0.1:8080/`."""
    where = ", ".join(booted.urls) or ", ".join(booted.zone["addresses"])
    return f"zone {booted.zone['name']} is up: {where}"


def _stop(arguments: argparse.Namespace) -> None:
    from runtime.host import actions

    zone = with_progress(
        lambda progress: actions.stop(_host(arguments), arguments.name, timeout_s=arguments.timeout, progress=progress)
    )
    write(f"zone {zone['name']} is stopped{': ' + zone['exit_text'] if zone['exit_text'] else ''}\n")


def _ps(arguments: argparse.Namespace) -> None:
    from runtime.host import actions

    zones = actions.zones(_host(arguments))
    if arguments.format == "json":
        write(json.dumps(zones, indent=2, sort_keys=True) + "\n")
        return
    rows = [
        [z["name"], _state(z), z["domid"], z["memory_mib"], z["vcpus"], z["addresses"][0], _ports(z)] for z in zones
    ]
    table(["NAME", "STATE", "DOMID", "MIB", "VCPUS", "ADDRESS", "PORTS"], rows)


def _state(zone: dict[str, Any]) -> str:
    if zone["state"] == "running":
        return f"running {_duration(time.time() - zone['started_at'])}"
    return f"{zone['state']} ({zone['exit_text']})" if zone["exit_text"] else str(zone["state"])


def _ports(zone: dict[str, Any]) -> str:
    return ", ".join(f"{rule['host_address']}:{rule['host_port']}->{rule['zone_port']}" for rule in zone["published"])


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _logs(arguments: argparse.Namespace) -> None:
    from runtime.host import actions

    actions.follow_logs(_host(arguments), arguments.name, write, follow=arguments.follow, tail=arguments.tail)


def _host_up(arguments: argparse.Namespace) -> None:
    from pipeline.store import Store
    from runtime.host.hosts import select_host

    flags = {name: getattr(arguments, name) for name in ("memory_mib", "dom0_memory_mib", "vcpus", "ports")}
    host = select_host(Store(), arguments.host, flags=flags)
    with_progress(host.up)
    write(f"host {host.name} is up\n")


def _host_down(arguments: argparse.Namespace) -> None:
    _lab(arguments).down()
    write("host lab is down\n")


def _host_console(arguments: argparse.Namespace) -> None:
    _lab(arguments).console()


def _lab(arguments: argparse.Namespace) -> Any:
    from runtime.host.hosts import LabHost, NoSuchHost

    host = _host(arguments)
    if not isinstance(host, LabHost):
        raise NoSuchHost(f"host {host.name}", expected="the lab", got="a real one, which this command leaves alone")
    return host.lab


def _host_status(arguments: argparse.Namespace) -> None:
    from runtime.host.hosts import LabHost

    host = _host(arguments)
    status: dict[str, Any] = {"host": host.name, "up": host.is_up()}
    if isinstance(host, LabHost):
        status |= host.lab.status()
    if status["up"]:
        status |= host.call("status", {})
    if arguments.format == "json":
        write(json.dumps(status, indent=2, sort_keys=True) + "\n")
    else:
        table(["WHAT", "VALUE"], [[key.replace("_", " "), _shown(key, value)] for key, value in status.items()])


def _shown(key: str, value: Any) -> str:
    if key == "disks":
        return f"{len(value)} plugged in"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
