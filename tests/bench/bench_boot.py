"""Boot benchmarks: what a person waits for, and the builder against xl in the same lab."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import time
from pathlib import Path

from run import PROJECT, Measure
from timeline import draw

from pipeline.bundle.spec import load_spec

ZONE = "nginx"
DEADLINE_S = 300.0
REPEATS = 3
NOOPS = 5


def measure(out: Path) -> list[Measure]:
    """All boot measures; leaves the lab as it was found to be needed: down."""
    doit("bundle", "os:debian12", "os:debian12-bench", f"zone={ZONE}")
    zone("host", "down")
    zone("host", "up")
    zone("host", "down")
    warm = [first_200(out, "warm") for _ in range(REPEATS) if zone("host", "down")]
    up = []
    for _ in range(REPEATS):
        doit("stop", f"zone={ZONE}")
        up.append(first_200(out, "lab-up"))
    doit("stop", f"zone={ZONE}")
    zone("host", "down")
    noop = [seconds(lambda: doit("bundle", f"zone={ZONE}")) for _ in range(NOOPS)]
    own = [
        seconds(lambda: run("./doit", "--version")) - seconds(lambda: run(*PYTHON, "--version")) for _ in range(NOOPS)
    ]
    measures = [
        Measure("warm_boot", round(statistics.median(warm), 2), "s"),
        Measure("lab_up_boot", round(statistics.median(up), 2), "s"),
        Measure("noop_bundle", round(statistics.median(noop), 2), "s"),
        Measure("noop_wrapper", round(statistics.median(own) * 1000, 1), "ms"),
    ]
    from bench_xl import compare

    return [*compare(), *measures]


PYTHON = (".venv/bin/python", "-m", "doit")


def run(*words: str) -> str:
    """Run a command in the checkout to its end; its output matters only when it fails."""
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout or " "


def doit(*words: str) -> str:
    """`./doit …`."""
    return run("./doit", *words)


def zone(*words: str) -> str:
    """`zone …`."""
    return run(".venv/bin/zone", *words)


def seconds(work: object) -> float:
    """How long a call takes."""
    start = time.monotonic()
    work()  # type: ignore[operator]
    return time.monotonic() - start


def first_200(out: Path, name: str) -> float:
    """Seconds from the start of `./doit boot` to the first HTTP 200 of the page; draws the timeline of that boot."""
    port = load_spec(ZONE).ports[0]
    start = time.monotonic()
    process = subprocess.Popen(["./doit", "boot", f"zone={ZONE}"], cwd=PROJECT, stdout=subprocess.DEVNULL)
    while not answers(port.host_address, port.host_port):
        if time.monotonic() - start > DEADLINE_S or process.poll() not in (None, 0):
            process.kill()
            raise SystemExit(f"bench: ./doit boot zone={ZONE} did not come to an HTTP 200")
    elapsed = time.monotonic() - start
    if process.wait(DEADLINE_S):
        raise SystemExit(f"bench: ./doit boot zone={ZONE} failed")
    boot = json.loads((PROJECT / "build" / "boot" / f"{ZONE}.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    note = f"first HTTP 200 after {elapsed:.2f} s, counted from the command; steps are counted from inside it"
    (out / f"boot-{name}.svg").write_text(draw(f"./doit boot zone={ZONE} ({name})", lanes(boot), note=note))
    return elapsed


def lanes(boot: dict[str, object]) -> list[tuple[str, list[tuple[str, float, float]]]]:
    """The lanes of the picture from what a boot wrote down: host steps, zoned's phases, the zone's own."""
    steps: list[list[object]] = boot["steps"]  # type: ignore[assignment]
    host = [(str(name), float(start), float(end)) for name, start, end in steps]  # type: ignore[arg-type]
    begun = next(start for name, start, _ in host if name == "build domain")
    details: dict[str, dict[str, list[float]]] = boot["zone"]  # type: ignore[assignment]
    phases = sorted(details["timings"].items(), key=lambda item: item[1])
    zoned = [(f"zoned: {name}", begun + start, begun + end) for name, (start, end) in phases]
    runs = begun + details["timings"]["unpause"][1]
    reached = sorted(boot["zone"]["zone_timings"].items(), key=lambda item: item[1])  # type: ignore[index]
    inside, before = [], 0.0
    for name, seconds in reached:
        inside.append((f"zone: to {name}", runs + before, runs + seconds))
        before = seconds
    return [("host", host), ("zoned", zoned), ("zone", inside)]


def answers(address: str, port: int) -> bool:
    """Does the page come back with 200 now?"""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        time.sleep(0.02)
        return False
    finally:
        connection.close()
