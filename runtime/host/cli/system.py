"""`zone system`."""

from __future__ import annotations

from argparse import Namespace

from runtime.host.cli.parsers import Parser, below, command, format_argument
from runtime.host.cli.terminal import escaped, show, size_text, table, write

PRUNE = """\
What runs is never touched. The store of this machine is `zone store gc`'s.

examples:
  zone system prune --dry-run              what would go
  zone system prune                        zones that have ended, with their logs
  zone system prune --blobs                and what was uploaded and no zone uses
"""
DF = """\
examples:
  zone system df
  zone system df --format json
"""
CHECK = """\
Compares what Xen, xenstore and the kernel hold with what the zones' ledgers say, both ways. Exit code 0 when they
agree, 1 when something is left behind, or missing.

examples:
  zone system check
  zone system check --format json | jq '.findings'
"""


def fill_system(parser: Parser) -> None:
    """`system` and its commands."""
    commands = below(parser)
    prune = command(commands, "prune", "Remove zones that have ended.", run=run_prune, epilog=PRUNE)
    prune.add_argument("--blobs", action="store_true", help="blobs that were uploaded and no zone uses, too")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    df = command(commands, "df", "What takes how much on the host.", run=run_df, epilog=DF)
    check = command(commands, "check", "Is anything left behind on the host?", run=run_check, epilog=CHECK)
    for one in (prune, df, check):
        format_argument(one)


def run_prune(arguments: Namespace) -> None:
    """Remove zones that have ended."""
    from runtime.host.api.host_pb2 import PruneRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    request = PruneRequest(zones=True, blobs=arguments.blobs, dry_run=arguments.dry_run)
    reply = ask(arguments, lambda client: client.acall(client.host.Prune, request, timeout_s=600))
    if show(document(reply), arguments.format):
        return
    write("".join(f"{escaped(what)}\n" for what in reply.removed))
    write(f"{size_text(reply.freed_bytes)} {'would be freed' if arguments.dry_run else 'freed'}\n")


def run_df(arguments: Namespace) -> None:
    """What takes how much."""
    from runtime.host.api.host_pb2 import DiskUsageRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    rows = ask(arguments, lambda client: client.acall(client.host.DiskUsage, DiskUsageRequest())).rows
    if not show([document(row) for row in rows], arguments.format):
        head = ["WHAT", "COUNT", "SIZE", "RECLAIMABLE"]
        table(head, [[r.what, r.count, size_text(r.size_bytes), size_text(r.reclaimable_bytes)] for r in rows])


def run_check(arguments: Namespace) -> int:
    """Is anything left behind?"""
    from runtime.host.api.host_pb2 import CheckRequest
    from runtime.host.cli.documents import document
    from runtime.host.cli.link import ask

    reply = ask(arguments, lambda client: client.acall(client.host.Check, CheckRequest(), timeout_s=300))
    if not show(document(reply), arguments.format):
        if reply.findings:
            table(
                ["KIND", "WHAT", "PROBLEM", "REMEDY"], [[f.kind, f.what, f.problem, f.remedy] for f in reply.findings]
            )
        else:
            looked = ", ".join(f"{reply.looked_at[kind]} {kind}" for kind in sorted(reply.looked_at))
            write(f"nothing is left behind, and nothing is missing ({escaped(looked)})\n")
        write("".join(f"not seen: {escaped(sentence)}\n" for sentence in reply.unseen))
    return 1 if reply.findings else 0
