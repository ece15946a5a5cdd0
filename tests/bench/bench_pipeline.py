"""Pipeline benchmarks: the same image packed in two stores, by root and by a plain user."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from run import PROJECT, Measure

from pipeline.store import Store

IMAGE = "recipe/nginx"
NOBODY = 65534
REPEATS = 3
ZONE = (PROJECT / ".venv/bin/python", "-m", "runtime.host.cli")


def measure(out: Path) -> list[Measure]:
    """How many different digests come out, and how long one packing takes with nothing cached."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as scratch:
        os.chmod(scratch, 0o755)
        layout = Path(scratch, "layout")
        shutil.copytree(Store().root, layout, ignore=shutil.ignore_patterns("tmp", "results", "locks"))
        subprocess.run(["chmod", "-R", "a+rX", layout], check=True)
        digests, seconds = set(), []
        for index in range(REPEATS):
            digest, elapsed = pack(layout, Path(scratch, f"store{index}"), user=None)
            digests.add(digest)
            seconds.append(elapsed)
        if os.getuid() == 0:
            digests.add(pack(layout, Path(scratch, "plain"), user=NOBODY)[0])
    return [
        Measure("same_squashfs", len(digests), "digests"),
        Measure("pack_nginx", round(statistics.median(seconds), 2), "s"),
    ]


def pack(layout: Path, store: Path, *, user: int | None) -> tuple[str, float]:
    """Pack the image with an empty store, as `user` (None: whoever runs this): the digest said, and seconds."""
    store.mkdir()
    if user is not None:
        os.chown(store, user, user)
    start = time.monotonic()
    done = subprocess.run(
        [
            PROJECT / ".venv/bin/python",
            "-m",
            "runtime.host.cli",
            "image",
            "pack",
            f"oci:{layout}:{IMAGE}",
            "-o",
            store / "out.squashfs",
        ],
        env={
            "PATH": os.environ["PATH"],
            "ZONEWRIGHT_STORE": str(store),
            "HOME": str(store),
            "PYTHONPATH": str(PROJECT),
        },
        cwd=store,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise SystemExit(f"bench: packing failed: {done.stderr}")
    return done.stdout.strip(), time.monotonic() - start
