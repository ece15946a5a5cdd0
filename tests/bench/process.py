"""Whole processes, measured: wall time, CPU of everything they started, memory of the largest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from run import HERE, PROJECT, NotMeasured

ZONE = str(PROJECT / ".venv" / "bin" / "zone")
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Spent:
    """What a command cost; peak_mib is the resident memory of the largest of its processes.

    said, told: its standard output and error.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    said: str = ""
    told: str = ""

    def then(self, other: Spent) -> Spent:
        """Both commands, one after the other."""
        wall_s, cpu_s = self.wall_s + other.wall_s, self.cpu_s + other.cpu_s
        return Spent(wall_s, cpu_s, max(self.peak_mib, other.peak_mib), other.said, other.told)


def in_turn(steps: Sequence[Spent]) -> Spent:
    """Several commands as one."""
    return reduce(Spent.then, steps)


def spend(*words: str | Path, env: Mapping[str, str] | None = None, user: int | None = None) -> Spent:
    """Run a command to its end.

    env:     the whole environment besides PATH and HOME.
    user:    who runs it, with a group of the same number; None: whoever runs this.
    Raises:  NotMeasured with the end of what it said.
    """
    program = shutil.which(str(words[0]), path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise NotMeasured(f"{words[0]} is not installed")
    whole = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(env or {})}
    done = subprocess.run(
        [sys.executable, "-I", "-S", HERE / "launcher.py", program, *words[1:]],
        env=whole,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    *said, last = done.stdout.strip().splitlines() or [""]
    if done.returncode or not last.startswith("{"):
        raise NotMeasured(f"{words[0]}: {done.stderr.strip()[-300:]}")
    spent = json.loads(last)
    if spent.pop("code"):
        raise NotMeasured(f"{' '.join(map(str, words[:3]))}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return Spent(**spent, said="\n".join(said).strip(), told=done.stderr)


def zone(store: Path, *words: str | Path, config: Path | None = None, user: int | None = None) -> Spent:
    """`zone …` with a store of its own, as a user runs it."""
    store.mkdir(parents=True, exist_ok=True)
    env = {"ZONEWRIGHT_STORE": str(store), "XDG_CONFIG_HOME": str(store / "no-config")}
    if config is not None:
        env["ZONEWRIGHT_CONFIG"] = str(config)
    return spend(ZONE, *words, env=env, user=user)


def settle() -> None:
    """Let nobody pay for what the one before left to be written to disk."""
    os.sync()
