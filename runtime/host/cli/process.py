"""`zone exec`, `zone attach`: a process of a zone, joined to this terminal."""

from __future__ import annotations

import contextlib
import os
from argparse import REMAINDER, Namespace
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import Parser, complete, zone_argument

EXEC = """\
The exit code is the command's own: 128 + N where signal N killed it, 126 where it cannot be run, 127 where there is no
such command; 1 where zone itself failed. Without -t, Ctrl-C and SIGTERM go to the command; three of them leave it.
Signals that are ignored where zone is started, as nohup does it, do not reach the command.

examples:
  zone exec web nginx -t
  zone exec -it web sh                     a shell; Ctrl-] leaves it
  zone exec -u www-data -w /srv -e MODE=dry web ./clean
  pg_dump db | zone exec -i web tar -xf -  every byte both ways, stderr apart
  zone exec -d web sh -c 'sleep 3600'      returns once it has started
  zone exec -i --zone web styrolite - <c.json  a config of styrolite, in the zone itself
"""
ATTACH = """\
What the workload said before comes first. On a terminal Ctrl-] leaves it running; the exit code is the workload's own.

examples:
  zone attach web
  zone attach --no-stdin web               watch only
"""


class NotATerminal(RuntimeFault):
    """-t where there is no terminal to be one."""


def fill_exec(parser: Parser) -> None:
    """The arguments of `zone exec`."""
    parser.set_defaults(run=run_exec)
    parser.epilog = EXEC
    parser.usage = "zone exec [OPTIONS] ZONE COMMAND [ARG ...]"
    process_arguments(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="return once it has started")
    where = "in the zone itself, outside of every container, such as styrolite"
    parser.add_argument("--zone", dest="zone_itself", action="store_true", help=where)
    zone_argument(parser)
    complete(parser.add_argument("argv", metavar="COMMAND", nargs=REMAINDER, help="what to run"), "words")


def process_arguments(parser: Parser) -> None:
    """What `exec` and `run` share."""
    parser.add_argument("-i", "--interactive", action="store_true", help="pass our stdin on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="run as this user, by name or number")
    parser.add_argument("-w", "--workdir", metavar="DIR", help="directory it starts in")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="KEY[=VALUE]", help="set; or pass on ours")
    env_file = parser.add_argument("--env-file", action="append", default=[], metavar="FILE", help="lines KEY[=VALUE]")
    complete(env_file, "files")


def fill_attach(parser: Parser) -> None:
    """The arguments of `zone attach`."""
    parser.set_defaults(run=run_attach)
    parser.epilog = ATTACH
    parser.add_argument("--no-stdin", action="store_true", help="pass no input on")
    zone_argument(parser)


def run_exec(arguments: Namespace) -> int:
    """Run a command in a zone; its exit code."""
    from runtime.host.api import host_pb2 as messages
    from runtime.host.cli.environment import environment
    from runtime.host.cli.link import ask

    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise RuntimeFault("zone exec", expected="a command after the zone's name", got="none")
    check_terminal(arguments)
    start = messages.ProcessStart(
        zone=arguments.zone,
        argv=argv,
        env=environment(arguments.env, arguments.env_file),
        cwd=arguments.workdir or "",
        user=arguments.user or "",
        tty=arguments.tty,
        stdin=arguments.interactive,
        detach=arguments.detach,
        outside=arguments.zone_itself,
        size=size(messages) if arguments.tty else None,
    )
    exit = ask(arguments, lambda zoned: session(zoned, zoned.host.ExecZone, start, messages))
    return exit_code(exit)


def run_attach(arguments: Namespace) -> int:
    """Join a zone's workload; its exit code."""
    from runtime.host.api import host_pb2 as messages
    from runtime.host.cli.link import ask

    async def attach(zoned: Any) -> Any:
        found = await zoned.acall(zoned.host.GetZone, messages.GetZoneRequest(zone=arguments.zone), timeout_s=60)
        tty = found.tty and os.isatty(0)
        start = attach_start(messages, found.id, tty=tty, stdin=not arguments.no_stdin)
        return await session(zoned, zoned.host.AttachZone, start, messages)

    return exit_code(ask(arguments, attach))


def attach_start(messages: Any, zone: str, *, tty: bool, stdin: bool) -> Any:
    """The first message of an attach."""
    return messages.ProcessStart(zone=zone, tty=tty, stdin=stdin, replay=True, size=size(messages) if tty else None)


async def session(zoned: Any, method: Any, start: Any, messages: Any) -> Any:
    """The process's ExitStatus, or None when it was left."""
    from h2.exceptions import StreamClosedError

    from runtime.host.cli.console import Session

    async with zoned.opened(method) as stream:
        stdin = start.stdin and not start.detach
        one = Session(stream, start, messages, stdin=stdin, tty=start.tty, closed=bool(start.argv) and not start.tty)
        found = await one.run()
        if not start.detach:
            with contextlib.suppress(StreamClosedError):
                await stream.cancel()  # or leaving would wait for zoned, which waits for us
        return found


def exit_code(status: Any) -> int:
    """What this command exits with for a process's end; 0 where it was left, or detached."""
    import sys

    if status is None:
        return 0
    if status.reason:
        sys.stderr.write(f"error: {status.text}\n")
    return int(status.code)


def size(messages: Any) -> Any:
    """The terminal's size as a message."""
    from runtime.host.cli.terminal import window_size

    rows, columns = window_size()
    return messages.TerminalSize(rows=rows, columns=columns)


def check_terminal(arguments: Namespace) -> None:
    """Refuse -it where stdin is no terminal, as docker does. Raises NotATerminal."""
    if arguments.tty and arguments.interactive and not os.isatty(0):
        raise NotATerminal("stdin", expected="a terminal, for -t", got="none", hint="leave -t away")
