"""From a fresh checkout, with an empty store and an empty home, to the first page."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench_boot import answers
from run import PROJECT, Measure

DEADLINE_S = 1800.0


def measure(out: Path) -> list[Measure]:
    """Seconds from `./doit boot zone=nginx` in a clone to the first HTTP 200; apt packages are there already."""
    if answers("127.0.0.1", 8080):
        raise SystemExit("bench: something answers on 127.0.0.1:8080 already")
    with tempfile.TemporaryDirectory(prefix="bench-fresh-") as scratch:
        clone = Path(scratch, "project")
        subprocess.run(["git", "clone", "-q", PROJECT, clone], check=True)
        home = Path(scratch, "home")
        home.mkdir()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ZONE", "XDG"))}
        env |= {"HOME": str(home)}
        start = time.monotonic()
        process = subprocess.Popen(["./doit", "boot", "zone=nginx"], cwd=clone, env=env, stdout=subprocess.DEVNULL)
        try:
            while not answers("127.0.0.1", 8080):
                if time.monotonic() - start > DEADLINE_S or process.poll() not in (None, 0):
                    raise SystemExit("bench: the fresh checkout did not come to a page")
                time.sleep(0.1)
            elapsed = time.monotonic() - start
            process.wait(300)
        finally:
            subprocess.run([".venv/bin/zone", "host", "down"], cwd=clone, env=env, check=False)
    return [Measure("first_200", round(elapsed, 1), "s")]
