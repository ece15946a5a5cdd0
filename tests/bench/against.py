"""Ours against the usual way and against what two cores could do at best, in turn."""

from __future__ import annotations

import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pictures
from place import PAIRS, Place, megabytes, middle, pack, say
from process import Spent, in_turn
from run import Measure
from support import benchimage
from traced_pack import trace
from usual import Limit, Usual, limit, usual_way

from pipeline.oci import Digest
from pipeline.store import Store


@dataclass
class Rounds:
    """What was measured in turn."""

    ours: list[Spent] = field(default_factory=list)
    zstd: list[Spent] = field(default_factory=list)
    usual: list[Usual] = field(default_factory=list)
    limit: list[Limit] = field(default_factory=list)


def against_others(at: Place) -> list[Measure]:
    """Ours, the usual way, and the limit, in turn; the first round warms the page cache and does not count."""
    reference, zstd = at.reference("standard"), at.reference("zstd")
    layers = layer_files("standard")
    image, tar = at.scratch / "warm.squashfs", at.scratch / "merged.tar"
    pack(at, reference, image)
    size = image.stat().st_size
    with open(tar, "wb") as file:
        subprocess.run(["sqfs2tar", image], stdout=file, check=True)
    usual_way(reference, at.scratch)
    rounds = Rounds()
    for number in range(PAIRS):
        say(f"round {number + 1} of {PAIRS}")
        rounds.ours.append(pack(at, reference))
        rounds.usual.append(usual_way(reference, at.scratch))
        rounds.limit.append(limit(layers, tar))
        rounds.zstd.append(pack(at, zstd))
    tar.unlink()
    draw(at, rounds, reference)
    return compare(rounds, size, sum(path.stat().st_size for path in layers))


def compare(rounds: Rounds, size_bytes: int, layer_bytes: int) -> list[Measure]:
    """The ratios of each round, their medians, and the figures behind them."""
    usual = [in_turn(list(one.steps.values())) for one in rounds.usual]
    pairs = list(zip(rounds.ours, usual, rounds.limit, strict=True))
    rows = [
        Measure("wall_ratio", middle(ours.wall_s / theirs.wall_s for ours, theirs, _ in pairs)),
        Measure("cpu_ratio", middle(ours.cpu_s / theirs.cpu_s for ours, theirs, _ in pairs)),
        Measure("limit_ratio", middle(ours.wall_s / least.wall_s for ours, _, least in pairs)),
        Measure("pack_wall", middle(one.wall_s for one in rounds.ours), "s"),
        Measure("pack_cpu", middle(one.cpu_s for one in rounds.ours), "s"),
        Measure("pack_zstd_wall", middle(one.wall_s for one in rounds.zstd), "s"),
        Measure("pack_zstd_cpu", middle(one.cpu_s for one in rounds.zstd), "s"),
        Measure("usual_wall", middle(one.wall_s for one in usual), "s"),
        Measure("usual_cpu", middle(one.cpu_s for one in usual), "s"),
        Measure("usual_peak", middle(one.peak_mib for one in usual), "MiB"),
    ]
    for name, parts in parts_of_limit(rounds).items():
        rows.append(Measure(f"limit_{name}", parts, "s"))
    return [
        *rows,
        Measure("image_layers", megabytes(layer_bytes), "MB"),
        Measure("pack_size", megabytes(size_bytes), "MB"),
        Measure("usual_size", megabytes(int(statistics.median(one.size_bytes for one in rounds.usual))), "MB"),
    ]


def parts_of_limit(rounds: Rounds) -> dict[str, float]:
    """The medians of the limit and of its parts, in seconds."""
    return {
        "wall": middle(one.wall_s for one in rounds.limit),
        "inflate": middle(one.inflate_s for one in rounds.limit),
        "hashes": middle(one.hashes_s for one in rounds.limit),
        "compressor": middle(one.compressor_s for one in rounds.limit),
    }


def draw(at: Place, rounds: Rounds, reference: str) -> None:
    """Bars beside those of the others, and where the time of one packing goes."""
    limits = parts_of_limit(rounds)
    groups: dict[str, dict[str, pictures.Stack]] = {}
    for heading, figure in (("wall time", "wall_s"), ("CPU time", "cpu_s")):
        groups[heading] = {
            "zone image pack": [("zone image pack", middle(getattr(one, figure) for one in rounds.ours))],
            "the usual way": [
                (step, middle(getattr(one.steps[step], figure) for one in rounds.usual))
                for step in rounds.usual[0].steps
            ],
        }
        cores = 2 if figure == "wall_s" else 1
        parts: pictures.Stack = [(name, limits[name] / cores) for name in ("inflate", "hashes", "compressor")]
        groups[heading]["limit of two cores"] = parts
    note = f"four layers of gzip from a registry on loopback, zstd-3, nothing cached; medians, rounds: {PAIRS}"
    bars = pictures.stacked("From a registry to a squashfs: seconds, shorter is better", note, groups)
    (at.out / "pipeline-bars.svg").write_text(bars)
    over_time = trace(reference, at.scratch)
    for index, (name, start, end) in enumerate(over_time.bars):
        over_time.bars[index] = (name.replace(f" of {reference}", ""), start, end)
    note = "one run of the same image with an empty store; sampling it costs some of the time that is shown"
    (at.out / "pipeline-time.svg").write_text(pictures.timeline("zone image pack, over time", note, over_time))


def layer_files(name: str) -> list[Path]:
    """The layer blobs of one of the images."""
    store = Store(benchimage.IMAGES)
    manifest = store.read_json(store.tags()[benchimage.tag(name)].digest)
    return [store.path(Digest.parse(layer["digest"])) for layer in manifest["layers"]]
