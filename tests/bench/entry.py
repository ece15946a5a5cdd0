"""From a zone's kernel entry to its workload's exec: Debian's kernel as it comes, and with the best command line found.

Both load the same four modules, in the order the host computed: fewer do not boot a zone. A third boot, with the best
command line, loads those of a usual initrd, too. Seconds are the zone's own, from its kernel's start; the boots are
taken in turn.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from run import Measure
from timeline import draw

from pipeline import initrd, task, unpack
from pipeline.build import init, kernel
from pipeline.build.model import InitParams, KernelParams
from pipeline.bundle.model import Bundle
from pipeline.env import Env
from pipeline.fetch.model import FetchResult
from pipeline.initrd.model import InitrdParams
from pipeline.unpack.model import UnpackParams
from runtime.host.api import host_pb2 as pb

if TYPE_CHECKING:
    from bench_zone import World

ROUNDS = 5
PLAIN = ("console", "panic", "quiet")  # what a zone cannot do without; all else of its command line is there for speed
# What an initrd for any machine has beside a zone's four: drivers of other virtual machines, file systems, a filter.
MORE = ("virtio_blk", "virtio_net", "erofs", "fuse", "loop", "nf_tables", "vsock")
PHASES = ("init", "modules", "root", "network", "workload")
Reached = dict[str, float]


def entry(here: World, out: Path) -> Iterator[Measure]:
    """Medians of both, their ratio, and a picture of the two boots in the middle."""
    best = here.base.cmdline
    plain = " ".join(word for word in best.split() if word.partition("=")[0] in PLAIN)
    lines = {"stock": plain, "best": best, "more": f"the same, and {len(MORE)} more modules"}
    bundles = {
        "stock": dataclasses.replace(here.base, cmdline=plain),
        "best": here.base,
        "more": with_modules(here.base, task.env(), MORE),
    }
    boots: dict[str, list[Reached]] = {name: [] for name in bundles}
    for _ in range(ROUNDS):
        for name, bundle in bundles.items():
            boots[name].append(_boot(here, bundle))
    middle = {name: sorted(found, key=_workload)[ROUNDS // 2] for name, found in boots.items()}
    pairs = zip(boots["stock"], boots["best"], strict=True)
    ratio = statistics.median(_workload(stock) / _workload(fast) for stock, fast in pairs)
    out.mkdir(parents=True, exist_ok=True)
    (out / "zone-entry.svg").write_text(_picture(middle, lines))
    yield Measure("entry_stock", round(_workload(middle["stock"]), 2), "s")
    yield Measure("entry_best", round(_workload(middle["best"]), 2), "s")
    yield Measure("entry_ratio", round(ratio, 2), "ratio")
    yield Measure("entry_more", round(_workload(middle["more"]), 2), "s")
    for name, reached in middle.items():
        for phase in PHASES[:-1]:
            yield Measure(f"entry_{name}_{phase}", round(reached[phase], 2), "s")


def with_modules(bundle: Bundle, env: Env, more: tuple[str, ...]) -> Bundle:
    """The same zone with its kernel built to load further modules from the initrd, and what they depend on."""
    recipe, locks = kernel.load("debian-cloud"), task.BUILD / "lock"
    recipe["modules"] = {"boot": [*recipe["modules"]["boot"], *more]}
    image = kernel.run(KernelParams("debian-cloud-more", recipe, str(locks / "debian-cloud.json")), env).image
    program = init.run(InitParams("init", init.load(), str(locks / "os-init.json")), env)
    fetched = FetchResult("recipe:debian-cloud-more", image.manifest, image.config, image.layers, image.diff_ids)
    made = initrd.run(InitrdParams(unpack.run(UnpackParams(fetched), env), program), env)
    return dataclasses.replace(bundle, initrd=(bundle.initrd[0], made.modules_segment), modules=made.modules)


def _workload(reached: Reached) -> float:
    return reached["workload"]


def _boot(here: World, bundle: Bundle) -> Reached:
    """When a boot of this bundle reached what, in seconds from its kernel's start."""
    from bench_zone import free_port

    named = here.bundle("entry", free_port())
    kept = {key: getattr(bundle, key) for key in ("cmdline", "initrd", "modules")}
    here.boot(dataclasses.replace(named, **kept))
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
