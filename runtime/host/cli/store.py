"""`zone store`: what lies in the store, whether it is sound, and what of it can go."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from runtime.host.cli.parsers import Parser, below, command, format_argument
from runtime.host.cli.terminal import escaped, show, size_text, table, with_progress, write

if TYPE_CHECKING:
    from pipeline.store.collect import Collected
    from pipeline.store.diskusage import Usage
    from pipeline.store.fsck import Damage

GC = """\
Kept is what has a name, what runs, what locks pin, what a build that runs now has found or made; and results
used within the last --keep-days days on which the store was used, last used first, while all that is kept takes
no more than --keep-gib GiB. The config file's [store] says otherwise for good. Builds may go on meanwhile.

examples:
  zone store gc --dry-run                  what would go
  zone store gc --keep-days 7 --keep-gib 5
  zone store gc --keep-days 0              all that has no name
"""
FSCK = """\
Exit code 0 when all is in order, 1 when something is not. What is removed is made again by the next build.

examples:
  zone store fsck
  zone store fsck --repair
  zone store fsck --format json | jq -r '.[].name'
"""
DU = """\
OWN is what would be free if only that name went; the rest of SIZE is shared with other names.

examples:
  zone store du
  zone store du --format json | jq '.kinds'
"""


def fill_store(parser: Parser) -> None:
    """`store` and its commands."""
    stores = below(parser)
    gc = command(stores, "gc", "Remove what nothing needs.", run=_gc, epilog=GC)
    gc.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    gc.add_argument("--keep-days", type=_amount, metavar="N", help="days a result is kept after its last use")
    gc.add_argument("--keep-gib", type=_amount, metavar="N", help="GiB up to which results are kept")
    fsck = command(stores, "fsck", "Hash every object, name every damaged one.", run=_fsck, epilog=FSCK)
    fsck.add_argument("--repair", action="store_true", help="set right what is wrong, mostly by removing it")
    du = command(stores, "du", "What takes how much, by kind and by name.", run=_du, epilog=DU)
    for one in (gc, fsck, du):
        format_argument(one)


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


_amount.__name__ = "number"  # argparse names the type in its error


def _gc(arguments: argparse.Namespace) -> None:
    from pipeline.config import load_config
    from pipeline.recipe import PROJECT
    from pipeline.store import Store
    from pipeline.store.collect import collect
    from runtime.host.hosts import select_host
    from runtime.host.storeuse import in_use

    settings, store = load_config().store, Store()
    if (PROJECT / "dodo.py").exists():  # the checkout this command belongs to, though nothing was built in it yet
        store.register(PROJECT)
    days = settings.keep_days if arguments.keep_days is None else arguments.keep_days
    gib = settings.keep_gib if arguments.keep_gib is None else arguments.keep_gib
    done: Collected = with_progress(
        lambda progress: collect(
            store,
            keep_days=days,
            keep_bytes=int(gib * (1 << 30)),
            in_use=in_use(store, select_host(store, arguments.host)),
            dry_run=arguments.dry_run,
            progress=progress,
        )
    )
    if arguments.format != "table":
        freed = {kind: {"objects": it.objects, "size_bytes": it.size_bytes} for kind, it in sorted(done.freed.items())}
        kept = {"objects": done.kept.objects, "size_bytes": done.kept.size_bytes}
        show({"dry_run": arguments.dry_run, "freed": freed, "kept_blobs": kept}, arguments.format)
        return
    rows = [[kind, it.objects, size_text(it.size_bytes)] for kind, it in sorted(done.freed.items())]
    if rows:
        table(["WOULD FREE" if arguments.dry_run else "FREED", "OBJECTS", "SIZE"], rows)
    total = size_text(sum(it.size_bytes for it in done.freed.values()))
    kept_text = f"{done.kept.objects} blobs kept ({size_text(done.kept.size_bytes)})"
    write(f"{total} {'would be freed' if arguments.dry_run else 'freed'}, {kept_text}\n")


def _fsck(arguments: argparse.Namespace) -> int:
    from pipeline.store import default_root
    from pipeline.store.fsck import fsck
    from runtime.host.storeuse import damaged_snapshots

    root = default_root()
    found: list[Damage] = with_progress(
        lambda progress: fsck(root, repair=arguments.repair, progress=progress, more=damaged_snapshots(root))
    )
    rows = [
        {"name": item.name, "problem": item.problem, "remedy": item.remedy, "repaired": arguments.repair}
        for item in found
    ]
    if show(rows, arguments.format):
        pass
    elif found:
        head = ["OBJECT", "PROBLEM", "REPAIRED" if arguments.repair else "REPAIR WOULD"]
        table(head, [[escaped(item.name), escaped(item.problem), item.remedy] for item in found])
    else:
        write(f"store {root} is in order\n")
    return 1 if found else 0


def _du(arguments: argparse.Namespace) -> None:
    from pipeline.store import Store
    from pipeline.store.diskusage import by_kind, by_name

    store = Store()
    kinds, names = by_kind(store), by_name(store)
    if show({"kinds": [_usage(it) for it in kinds], "names": [_usage(it) for it in names]}, arguments.format):
        return
    rows = [[it.name, it.objects, size_text(it.size_bytes)] for it in kinds]
    total = [sum(it.objects for it in kinds), size_text(sum(it.size_bytes for it in kinds))]
    table(["KIND", "OBJECTS", "SIZE"], [*rows, ["total", *total]])
    write("\n")
    table(
        ["NAME", "OBJECTS", "SIZE", "OWN"],
        [
            [escaped(it.name) or "(no name)", it.objects, size_text(it.size_bytes), size_text(it.own_bytes)]
            for it in names
        ],
    )


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "name": usage.name,
        "objects": usage.objects,
        "size_bytes": usage.size_bytes,
        "own_bytes": usage.own_bytes,
    }
