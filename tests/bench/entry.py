"""From a zone's kernel entry to its workload's exec: Debian's kernel as it comes, and with the best command line found.

Both load the same four modules, in the order the host computed: fewer do not boot a zone. Seconds are the zone's own,
from its kernel's start; the boots are taken in turn.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from run import Measure
from timeline import draw

from runtime.host.api import host_pb2 as pb

if TYPE_CHECKING:
    from bench_zone import World

ROUNDS = 5
PLAIN = ("console", "panic", "quiet")  # what a zone cannot do without; all else of its command line is there for speed
Reached = dict[str, float]


def entry(here: World, out: Path) -> Iterator[Measure]:
    """Medians of both, their ratio, and a picture of the two boots in the middle."""
    best = here.base.cmdline
    plain = " ".join(word for word in best.split() if word.partition("=")[0] in PLAIN)
    lines = {"stock": plain, "best": best}
    boots: dict[str, list[Reached]] = {name: [] for name in lines}
    for _ in range(ROUNDS):
        for name, line in lines.items():
            boots[name].append(_boot(here, line))
    middle = {name: sorted(found, key=_workload)[ROUNDS // 2] for name, found in boots.items()}
    pairs = zip(boots["stock"], boots["best"], strict=True)
    ratio = statistics.median(_workload(stock) / _workload(fast) for stock, fast in pairs)
    out.mkdir(parents=True, exist_ok=True)
    (out / "zone-entry.svg").write_text(_picture(middle, lines))
    yield Measure("entry_stock", round(_workload(middle["stock"]), 2), "s")
    yield Measure("entry_best", round(_workload(middle["best"]), 2), "s")
    yield Measure("entry_ratio", round(ratio, 2), "ratio")


def _workload(reached: Reached) -> float:
    return reached["workload"]


def _boot(here: World, cmdline: str) -> Reached:
    """When a boot with this command line reached what, in seconds from its kernel's start."""
    from bench_zone import free_port

    here.boot(dataclasses.replace(here.bundle("entry", free_port()), cmdline=cmdline))
    with here.host.connect() as client:
        zone = client.call(client.host.GetZone, pb.GetZoneRequest(zone="entry"))
    here.remove("entry")
    return dict(zone.zone_timings)


def _picture(boots: dict[str, Reached], lines: dict[str, str]) -> str:
    """One bar per phase, a boot below the other."""
    lanes = []
    for name, reached in boots.items():
        steps, before = [], 0.0
        for phase, at in sorted(reached.items(), key=lambda item: item[1]):
            steps.append((f"{name}: to {phase}", before, at))
            before = at
        lanes.append(("zone" if name == "best" else "host", steps))
    note = "; ".join(f"{name}: {line}" for name, line in lines.items())
    return draw("kernel entry to the workload's exec", lanes, note=note)
