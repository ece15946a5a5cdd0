"""Runs benchmarks: one row per measure on stdout, build/bench/NAME.json, pictures beside it.

A measure that falls short of its goal is shown as short and changes no exit code; one that could not be taken does.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
OUT = PROJECT / "build" / "bench"
BENCHES = ("boot", "pipeline", "fresh", "command", "zone", "init", "net", "netback")
DEFAULT = ("boot", "pipeline")
PART = {"zone": "init"}  # a bench that is also a part of another one

sys.path[:0] = [str(PROJECT), str(HERE), str(PROJECT / "tests")]


@dataclass(frozen=True)
class Measure:
    """One number that was measured; `name` finds its goal. value is None where it could not be: `why` says it."""

    name: str
    value: float | None
    unit: str = ""
    why: str = ""


class NotMeasured(Exception):
    """Something a measure needs is not there, or failed; the other measures go on."""


def goals() -> dict[str, Any]:
    """tests/bench/goals.toml."""
    return tomllib.loads((HERE / "goals.toml").read_text())


def goals_of(bench: str) -> dict[str, Any]:
    """The goals of a bench's measures, those of the bench that is part of it among them."""
    every = goals()
    part: dict[str, Any] = every.get(PART.get(bench, ""), {})
    return every.get(bench, {}) | {name_of_part(bench, name): goal for name, goal in part.items()}


def name_of_part(bench: str, name: str) -> str:
    """What a measure of the bench that is part of another one is called there: that one may have its name."""
    return f"{PART[bench]}_{name}" if name in goals().get(bench, {}) else name


def row(measure: Measure, goal: dict[str, Any]) -> dict[str, Any]:
    """A row of the report: a measure beside its goal; ok is None where there is none."""
    ok, text, value = None, "", math.nan if measure.value is None else measure.value  # nothing is as large as no number
    if "max" in goal:
        ok, text = value <= goal["max"], f"<= {goal['max']}"
    elif "min" in goal:
        ok, text = value >= goal["min"], f">= {goal['min']}"
    elif "equal" in goal:
        ok, text = value == goal["equal"], f"= {goal['equal']}"
    unit = measure.unit or goal.get("unit", "")
    made = {"name": measure.name, "value": measure.value, "unit": unit, "goal": text, "ok": ok}
    return made | ({"why": measure.why} if measure.why else {})


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def run(bench: str) -> bool:
    """Take the measures of one bench; each is printed and in its JSON once it is there. Could all of them be taken?"""
    conditions, known = machine(), goals_of(bench)
    rows: list[dict[str, Any]] = []
    OUT.mkdir(parents=True, exist_ok=True)
    for measure in importlib.import_module(f"bench_{bench}").measure(OUT):
        rows.append(row(measure, known.get(measure.name, {})))
        document = {"date": time.strftime("%Y-%m-%d"), "machine": conditions, "rows": rows}
        (OUT / f"{bench}.json").write_text(json.dumps(document, indent=2) + "\n")
        print(line(bench, rows[-1]), flush=True)
    return all(entry["value"] is not None for entry in rows)


def line(bench: str, entry: dict[str, Any]) -> str:
    """A row as it is printed."""
    verdict = {True: "ok", False: "short", None: "-"}[entry["ok"]]
    if entry["value"] is None:
        value, verdict = "none", f"could not be measured: {entry['why']}"
    else:
        value = f"{entry['value']:g} {entry['unit']}"
        verdict += f": {entry['why']}" if entry.get("why") else ""
    return f"{bench + '.' + entry['name']:36} {value:>20}  {entry['goal']:>10}  {verdict}"


def main() -> None:
    """`run.py [BENCH…]`."""
    chosen = sys.argv[1:] or DEFAULT
    for bench in chosen:
        if bench not in BENCHES:
            sys.exit(f"bench {bench!r}: no such bench (there are: {', '.join(BENCHES)})")
    taken = [run(bench) for bench in chosen]
    sys.exit(0 if all(taken) else 1)


if __name__ == "__main__":
    main()
