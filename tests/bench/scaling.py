"""What a larger image, or one that is there already, costs: memory, cache hits, growth."""

from __future__ import annotations

import math
import os
import statistics

from place import PAIRS, Place, cold, pack
from process import zone
from run import Measure, NotMeasured

HITS = int(os.environ.get("BENCH_HITS", "20"))
ROUNDS = min(PAIRS, 3)
ENTRIES, LAYERS, PER_LAYER, FLAT = 8000, 4, 2000, 3000


def memory(at: Place) -> list[Measure]:
    """The peak of the largest process, for the image and for one four times as large."""
    once = pack(at, at.reference("standard")).peak_mib
    four_times = pack(at, at.reference("times4")).peak_mib
    return [
        Measure("peak_memory", round(max(once, four_times), 1), "MiB"),
        Measure("peak_memory_1x", round(once, 1), "MiB"),
        Measure("peak_memory_4x", round(four_times, 1), "MiB"),
    ]


def hits(at: Place) -> list[Measure]:
    """`zone image pull` of a digest that is in the store, as a whole process."""
    pinned = at.pinned("standard")
    with cold(at.scratch) as work:
        zone(work / "store", "image", "pull", pinned)
        taken = [zone(work / "store", "image", "pull", pinned) for _ in range(HITS)]
    milliseconds = sorted(one.wall_s * 1000 for one in taken)
    return [
        Measure("hit_pull", round(statistics.median(milliseconds), 1), "ms"),
        Measure("hit_pull_best", round(milliseconds[0], 1), "ms"),
        Measure("hit_pull_cpu", round(statistics.median(one.cpu_s for one in taken) * 1000, 1), "ms"),
    ]


def growth_by_entries(at: Place) -> list[Measure]:
    """Ten times the entries in as many layers."""
    return growth(at, "entries", f"grown-{ENTRIES}-{LAYERS}", f"grown-{10 * ENTRIES}-{LAYERS}")


def growth_by_layers(at: Place) -> list[Measure]:
    """Ten times the layers, each with as many entries."""
    small, large = LAYERS * PER_LAYER, 10 * LAYERS * PER_LAYER
    return growth(at, "layers", f"grown-{small}-{LAYERS}", f"grown-{large}-{10 * LAYERS}")


def growth_in_one_directory(at: Place) -> list[Measure]:
    """Ten times the entries in a single directory."""
    return growth(at, "directory", f"flat-{FLAT}", f"flat-{10 * FLAT}")


def growth(at: Place, name: str, small: str, large: str) -> list[Measure]:
    """The exponent of CPU time in what grows tenfold; what packing one empty file costs is no part of it."""
    sizes = {"start": "grown-1-1", "small": small, "large": large}
    images = {size: at.reference(image) for size, image in sizes.items()}
    seconds: dict[str, list[float]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size, reference in images.items():
            seconds[size].append(pack(at, reference).cpu_s)
    start, little, much = (statistics.median(seconds[size]) for size in sizes)
    if not start < little < much:
        raise NotMeasured(f"CPU times of {start:.2f}, {little:.2f} and {much:.2f} s are too near each other")
    return [
        Measure(f"growth_{name}", round(math.log10((much - start) / (little - start)), 2), "exponent"),
        Measure(f"growth_{name}_1x", round(little - start, 2), "s"),
        Measure(f"growth_{name}_10x", round(much - start, 2), "s"),
    ]
