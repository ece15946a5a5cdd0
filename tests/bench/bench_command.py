"""How long the `zone` command takes to say the least it can: its start, one question of a scripted zoned."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import PROJECT, Measure
from support.fakezoned import FakeZoned

ROUNDS = 20
COMMANDS = {
    "python_start": [sys.executable, "-c", "pass"],
    "zone_help": ["zone", "--help"],
    "zone_ps": ["zone", "ps"],
    "zone_exec": ["zone", "exec", "zone-0", "true"],
    "zone_completion": ["zone", "completion", "words", "fish", "--", "inspect", "zone"],
}


def measure(out: Path) -> list[Measure]:
    """Milliseconds of wall time, whole process, the median of twenty."""

    async def true(run: object) -> int:
        return 0

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, FakeZoned(Path(scratch, "zoned.sock")) as zoned:
        for number in range(10):
            zoned.add(f"zone-{number}", ports=((8000 + number, 80),))
        zoned.programs["true"] = true
        path = f"{PROJECT}/.venv/bin:{os.environ['PATH']}"
        env = os.environ | {"ZONE_HOST": zoned.address, "PATH": path, "ZONEWRIGHT_STORE": scratch}
        found = {name: sorted(_once(command, env) for _ in range(ROUNDS)) for name, command in COMMANDS.items()}
    return [Measure(name, round(statistics.median(times) * 1000, 1), "ms") for name, times in found.items()]


def _once(command: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
