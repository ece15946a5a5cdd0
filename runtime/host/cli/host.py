"""`zone host`: the lab, or the zoned of a machine with Xen; and the ways to it."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from runtime.host.cli.parsers import Parser, below, command, complete, format_argument
from runtime.host.cli.terminal import duration_text, escaped, pairs, show, table, with_progress, write

UP = """\
examples:
  zone host up
  zone host up --memory 4096 --vcpus 4     a larger lab
  zone host up --port 2222:22              a port of this machine that leads to dom0
"""
DOWN = """\
For the lab alone: on a machine with Xen zones outlive their zoned, and the machine is yours to stop.
The lab's state disk stays, with logs and the zones that are to come back, unless --wipe takes that away, too.

examples:
  zone host down
  zone host down --wipe                    and begin with an empty one
"""
CONSOLE = """\
The lab's is live and both ways, with dom0's shell. Of another host it is what its Xen has said, as far as Xen keeps it.

examples:
  zone host console                        Ctrl-] leaves it
  zone host console --tail                 what was said last, and no more
  zone --host ssh://root@192.0.2.7 host console | less
"""
STATUS = """\
examples:
  zone host status
  zone --host ssh://root@192.0.2.7 host status --format json
"""
TOPOLOGY = """\
examples:
  zone host topology
  zone host topology --format yaml
"""
PLATFORM = """\
What zones without a kernel of their own boot from, as clients of the ControlService make them: kernel, initrd and an
empty root. The host keeps it; what it lacks of it is sent. `zone run` and `zone boot` do not need it.

examples:
  zone host platform
  zone --host tls://192.0.2.7:4354 host platform --kernel recipe:debian-cloud
"""
DIAL = """\
The far end of ssh://: `ssh HOST zone host dial-stdio` is a connection to HOST's zoned.

examples:
  zone --host ssh://root@192.0.2.7 ps      uses it by itself
"""
CONSOLE_TAIL_LINES = 40
CLASSES = ("standard", "performance", "efficiency")


def fill_host(parser: Parser) -> None:
    """`host` and its commands."""
    from runtime.host.cli import cert

    commands = below(parser)
    text = "Bring it up; the flags are for the lab and win over lab.toml."
    up = command(commands, "up", text, run=run_up, epilog=UP)
    up.add_argument("--memory", type=int, metavar="MIB", dest="memory_mib", help="memory of the whole lab")
    up.add_argument("--dom0-memory", type=int, metavar="MIB", dest="dom0_memory_mib", help="dom0's share of it")
    up.add_argument("--vcpus", type=int, metavar="N", help="processors of the lab")
    up.add_argument("--port", action="append", metavar="RULE", dest="ports", help="[ADDRESS:]HOST_PORT:DOM0_PORT")
    down = command(commands, "down", "End the lab and every zone in it.", run=run_down, epilog=DOWN)
    down.add_argument("--wipe", action="store_true", help="its state disk, too")
    text = "Is it up, what runs there, what is left."
    format_argument(command(commands, "status", text, run=run_status, epilog=STATUS))
    text = "The processors, as Xen sees them."
    format_argument(command(commands, "topology", text, run=run_topology, epilog=TOPOLOGY))
    text = "The console of Xen; the lab's is dom0's as well, Ctrl-] leaves it."
    console = command(commands, "console", text, run=run_console, epilog=CONSOLE)
    console.add_argument("--tail", action="store_true", help="what was said last, and no more")
    text = "Give the host the platform its ControlService boots zones from."
    platform = command(commands, "platform", text, run=run_platform, epilog=PLATFORM)
    kernel = platform.add_argument("--kernel", metavar="REF", help="kernel image (default: recipe:debian-cloud)")
    complete(kernel, "images")
    command(commands, "cert", "Make certificates for tls://.", epilog=cert.EXAMPLES, fill=cert.fill)
    text = "Join standard input and output with this machine's zoned."
    dial = command(commands, "dial-stdio", text, run=run_dial_stdio, epilog=DIAL)
    complete(dial.add_argument("--socket", metavar="PATH", help="where zoned listens"), "files")


def run_up(arguments: Namespace) -> None:
    """Bring the host up."""
    from pipeline.store import Store
    from runtime.host.hosts import select_host

    flags = {name: getattr(arguments, name) for name in ("memory_mib", "dom0_memory_mib", "vcpus", "ports")}
    host = select_host(Store(), arguments.host, flags=flags)
    with_progress(host.up)
    write(f"host {host.name} is up\n")


def run_down(arguments: Namespace) -> None:
    """End the lab."""
    _lab(arguments).down(wipe=arguments.wipe)
    write(f"host lab is down{', its state wiped' if arguments.wipe else ''}\n")


def run_console(arguments: Namespace) -> None:
    """Join the lab's console; show that of another host's hypervisor."""
    import os

    from runtime.host.cli.console import write_out

    host = _host(arguments)
    if not hasattr(host, "lab"):
        write(_xen_console(arguments))
    elif arguments.tail or not os.isatty(0):
        write_out(1, host.lab.console_tail().encode())
    else:
        host.lab.console()


def _xen_console(arguments: Namespace) -> str:
    """What Xen has said. Guests of it may have said some of that, and what they say moves no cursor."""
    from runtime.host.api.control_grpc import ControlServiceStub
    from runtime.host.api.control_pb2 import ReadHypervisorConsoleRequest
    from runtime.host.cli.link import ask

    async def look(client: Any) -> Any:
        stub = ControlServiceStub(client.channel)
        return await client.acall(stub.ReadHypervisorConsole, ReadHypervisorConsoleRequest())

    lines = ask(arguments, look).data.replace("\r", "").splitlines()
    shown = lines[-CONSOLE_TAIL_LINES:] if arguments.tail else lines
    return "".join(f"{escaped(line.expandtabs())}\n" for line in shown)


def _lab(arguments: Namespace) -> Any:
    host = _host(arguments)
    if not hasattr(host, "lab"):
        from runtime.host.hosts import NoSuchHost

        hint = "zone stop ends a zone; a zoned may be stopped by systemctl, and its zones go on"
        got = "a real one, which this command leaves alone"
        raise NoSuchHost(f"host {host.name}", expected="the lab", got=got, hint=hint)
    return host.lab


def _host(arguments: Namespace) -> Any:
    from pipeline.store import Store
    from runtime.host.hosts import select_host

    return select_host(Store(), arguments.host)


def run_status(arguments: Namespace) -> None:
    """Is it up, and what is there; of a lab that is down, its settings."""
    from runtime.errors import RuntimeFault
    from runtime.host.api.host_pb2 import GetStatusRequest
    from runtime.host.cli.documents import document

    host = _host(arguments)
    status: dict[str, Any] = {"host": host.name, "up": host.is_up(), "problem": ""}
    if hasattr(host, "lab"):
        status |= host.lab.status()
    if status["up"]:
        try:
            with host.connect() as client:
                status |= document(client.call(client.host.GetStatus, GetStatusRequest()))
        except RuntimeFault as fault:
            status |= {"up": False, "problem": str(fault)}
    if not show(status, arguments.format):
        pairs((_label(key), _shown(key, value)) for key, value in status.items())


def _label(key: str) -> str:
    return key.removesuffix("_unix_s").removesuffix("_kib").replace("_", " ")


def _shown(key: str, value: Any) -> str:
    import time

    from runtime.host.cli.terminal import size_text

    if key == "disks":
        return f"{len(value)} plugged in"
    if key.endswith("_kib"):
        return size_text(value << 10)
    if key.endswith("_unix_s"):
        return f"{duration_text(time.time() - value)} ago"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def run_topology(arguments: Namespace) -> None:
    """The processors."""
    from runtime.host.api.control_grpc import ControlServiceStub
    from runtime.host.api.control_pb2 import GetHostCpuTopologyRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    async def look(client: Any) -> Any:
        stub = ControlServiceStub(client.channel)
        return await client.acall(stub.GetHostCpuTopology, GetHostCpuTopologyRequest())

    cpus = [{"cpu": number, **document(cpu)} for number, cpu in enumerate(ask(arguments, look).cpus)]
    for cpu in cpus:
        cpu["class"] = CLASSES[cpu["class"]] if cpu["class"] < len(CLASSES) else str(cpu["class"])
    if not show(cpus, arguments.format):
        keys = ("cpu", "socket", "node", "core", "thread", "class")
        table([key.upper() for key in keys], [[escaped(cpu[key]) for key in keys] for cpu in cpus])


def run_platform(arguments: Namespace) -> None:
    """Make the platform, or find it made, and give it to the host."""
    from pipeline.bundle.spec import DEFAULT_KERNEL
    from pipeline.compose import initrd_of
    from pipeline.env import open_env
    from pipeline.jsonmodel import to_json
    from pipeline.oci import canonical_json
    from runtime.host.api.host_pb2 import SetPlatformRequest
    from runtime.host.images.platform import blobs
    from runtime.host.images.work import platform_of
    from runtime.host.upload import upload

    host = _host(arguments)
    kernel = arguments.kernel or DEFAULT_KERNEL

    def given(progress: Any) -> int:
        env = open_env(progress)
        platform = platform_of(env.store, initrd_of(kernel, env))
        host.up(progress)
        with host.connect() as client:
            # Not by `provide`: a lab's disks are unplugged once no zone uses them.
            sent = upload(client, env.store, blobs(platform), progress)
            client.call(client.host.SetPlatform, SetPlatformRequest(platform=canonical_json(to_json(platform))))
        return sent

    sent = with_progress(given, patient=True)
    write(f"host {escaped(host.name)} boots zones from {escaped(kernel)} (parts sent: {sent})\n")


def run_dial_stdio(arguments: Namespace) -> None:
    """Join our stdin and stdout with zoned's socket."""
    from pathlib import Path

    from runtime.host.client.dialstdio import dial_stdio

    if arguments.socket:
        dial_stdio(Path(arguments.socket))
    else:
        dial_stdio()
