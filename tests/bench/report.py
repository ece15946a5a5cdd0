"""Writes docs/bench.md from what the last benchmarks left in build/bench: `python tests/bench/report.py`."""

from __future__ import annotations

import json
import shutil
import tomllib
from typing import Any

from run import BENCHES, HERE, OUT, PROJECT

PICTURES = {"boot-warm.svg": "a boot from the snapshot", "boot-lab-up.svg": "a boot with the lab already up"}
HEAD = """# Measurements

Taken by `./doit bench` and written here by `tests/bench/report.py`. The lab is emulated (QEMU, TCG): seconds compare
with seconds of the same machine only, ratios are of one run. Goals stand in [goals.toml](../tests/bench/goals.toml).
"""


def main() -> None:
    """One section a bench, then the pictures."""
    goals = tomllib.loads((HERE / "goals.toml").read_text())
    parts = [HEAD]
    for bench in BENCHES:
        path = OUT / f"{bench}.json"
        if path.is_file():
            parts.append(section(bench, json.loads(path.read_text()), goals.get(bench, {})))
    for name, title in PICTURES.items():
        if (OUT / name).is_file():
            shutil.copyfile(OUT / name, PROJECT / "docs" / name)
            parts.append(f"![{title}: what the host, zoned and the zone do, and when]({name})\n")
    (PROJECT / "docs" / "bench.md").write_text("\n".join(parts))


def section(bench: str, document: dict[str, Any], goals: dict[str, Any]) -> str:
    """A bench's machine and its rows."""
    machine = document["machine"]
    lines = [
        f"## {bench}\n",
        f"{document['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, load {machine['load_1min']} at the start.\n",
        "| measure | what | value | goal | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        verdict = {True: "ok", False: "short", None: ""}[row["ok"]]
        what = goals.get(row["name"], {}).get("text") or WHAT.get(row["name"], "")
        lines.append(f"| `{row['name']}` | {what} | {row['value']:g} {row['unit']} | {row['goal']} | {verdict} |")
    return "\n".join(lines) + "\n"


WHAT = {
    "build_unpause": "our builder in zoned's place: from the plan to the running domain, 128 MiB, no devices",
    "xl_create": "`xl create` as a whole process, the same kernel ELF and initrd",
    "build_whole_process": "our builder as a whole process, the start of Python and its imports included",
    "pack_nginx": "`zone image pack` of the nginx image with an empty store",
}


if __name__ == "__main__":
    main()
