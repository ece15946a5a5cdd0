"""Pipeline benchmarks: from a registry on loopback to a squashfs, against the usual way and against what is possible.

Whole processes, taken in turn; medians of pairs. $BENCH_PAIRS says how many pairs (5), $BENCH_HITS how many hits (20).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from against import against_others
from place import PAIRS, Place, middle, place, say
from process import Spent, spend, zone
from run import PROJECT, Measure, NotMeasured
from scaling import growth_by_entries, growth_by_layers, growth_in_one_directory, hits, memory
from two_hosts import two_hosts

from pipeline.errors import PipelineError
from pipeline.store import Store

RECIPE = "recipe/nginx"
NOBODY = 65534


def measure(out: Path) -> list[Measure]:
    """All pipeline measures; what one of them lacks does not keep the others."""
    out.mkdir(parents=True, exist_ok=True)
    groups: list[tuple[tuple[str, ...], Callable[[Place], list[Measure]]]] = [
        (("wall_ratio", "cpu_ratio", "limit_ratio"), against_others),
        (("peak_memory",), memory),
        (("hit_pull",), hits),
        (("growth_entries",), growth_by_entries),
        (("growth_layers",), growth_by_layers),
        (("growth_directory",), growth_in_one_directory),
        (("two_hosts_ratio",), two_hosts),
        (("same_squashfs", "pack_nginx"), same_everywhere),
    ]
    only = os.environ.get("BENCH_ONLY")  # the functions above, with commas
    taken: list[Measure] = []
    with place(out) as at:
        for names, take in groups:
            if only and take.__name__ not in only.split(","):
                continue
            say(take.__name__)
            try:
                taken += take(at)
            except (NotMeasured, PipelineError, OSError, subprocess.SubprocessError) as error:
                taken += [Measure(name, None, why=str(error)) for name in names]
    return taken


def same_everywhere(at: Place) -> list[Measure]:
    """How many different digests come out of two stores and two users, and how long one packing of nginx takes."""
    made = subprocess.run(["./doit", "recipe:nginx"], cwd=PROJECT, capture_output=True, text=True)
    if made.returncode:
        raise NotMeasured(f"./doit recipe:nginx: {made.stderr.strip()[-300:]}")
    with tempfile.TemporaryDirectory(
        prefix="bench-same-"
    ) as scratch:  # a plain user may not reach the checkout's build
        os.chmod(scratch, 0o755)
        layout, plain = Path(scratch, "layout"), Path(scratch, "plain")
        spend("skopeo", "copy", "--quiet", f"oci:{Store().root}:{RECIPE}", f"oci:{layout}:{RECIPE}")
        subprocess.run(["chmod", "-R", "a+rX", layout], check=True)

        def packed(store: Path, user: int | None = None) -> Spent:
            return zone(store, "image", "pack", f"oci:{layout}:{RECIPE}", "-o", store / "out.squashfs", user=user)

        taken = [packed(Path(scratch, f"store{index}")) for index in range(max(PAIRS, 2))]
        digests = {one.said for one in taken}
        if os.getuid() == 0:
            plain.mkdir()
            os.chown(plain, NOBODY, NOBODY)
            digests.add(packed(plain, NOBODY).said)
    return [
        Measure("same_squashfs", len(digests), "digests"),
        Measure("pack_nginx", middle(one.wall_s for one in taken), "s"),
    ]
