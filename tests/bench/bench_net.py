"""Network benchmarks: a zone's network beside the kernel's NAT, pasta and slirp4netns, in namespaces, without Xen.

Ratios are medians of pairs taken in turn: $BENCH_ROUNDS says how many (9), $BENCH_SECONDS how long each load runs (2).
$BENCH_ONLY, names of GROUPS with commas, takes some of them alone.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import netfaults
import pictures
from netothers import pasta, slirp4netns
from netplace import IPERF_PORT, PATIENCE_S, NetPlace, Way, end, net_place
from run import Measure, NotMeasured

from runtime.errors import RuntimeFault

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
STREAMS = ("--parallel", "8")
UDP = ("--udp", "--length", "1400", "--bandwidth", "400M")
_SETTLING_S = 0.3  # until the windows are open; not counted
_ATTEMPTS = 3

# What is taken of a way, by name: a rate, or microseconds.
Load = Callable[[NetPlace, Way], float]
Take = Callable[[NetPlace], list[Measure]]


def iperf(*words: str) -> Load:
    """Gbit/s of iperf3 with these words, as received."""

    def load(place: NetPlace, way: Way) -> float:
        # A server for each: one that still has a client of before takes no other.
        server = place.serve(way.served, "listening", "iperf3", "--server", "--port", str(IPERF_PORT), "--forceflush")
        try:
            common = ("--client", way.server, "--port", str(IPERF_PORT), "--json")
            timing = ("--omit", str(_SETTLING_S), "--time", str(SECONDS))
            end_of_run = place.ask(way, "iperf3", *common, *timing, *words, timeout_s=SECONDS + PATIENCE_S)["end"]
            return float(end_of_run["sum_received"]["bits_per_second"]) / 1e9
        finally:
            end(server)

    return load


def trip(place: NetPlace, way: Way) -> float:
    """Microseconds of a one-byte question and answer, median."""
    return float(place.peer(way, "trips", 1_000_000, SECONDS / 2)["p50_us"])


def opens(number: int) -> Load:
    """Connections per second, so many at a time: opened, asked, answered, closed."""

    def load(place: NetPlace, way: Way) -> float:
        found = place.peer(way, "opens", number, SECONDS)
        if found["failed"]:
            raise NotMeasured(f"{way.name}: {found['failed']} connections failed")
        return float(found["per_s"])

    return load


LOADS: dict[str, tuple[Load, str]] = {
    "tcp_up": (iperf(), "Gbit/s"),
    "tcp_down": (iperf("--reverse"), "Gbit/s"),
    "streams8_up": (iperf(*STREAMS), "Gbit/s"),
    "streams8_down": (iperf(*STREAMS, "--reverse"), "Gbit/s"),
    "opens32": (opens(32), "/s"),
    "opens1": (opens(1), "/s"),
    "trip": (trip, "µs"),
}
OTHERS = {"pasta": pasta, "slirp4netns": slirp4netns}
BESIDE = ("tcp_up", "tcp_down", "opens32", "trip")  # what the others are asked for


def patiently(load: Load, place: NetPlace, way: Way) -> float:
    """A load, and again where it failed: on a busy machine programs miss their time, and iperf3 3.12 at times waits
    for good at the end of many streams, over the kernel's NAT as well.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return load(place, way)
        except NotMeasured as error:
            _say(f"once more: {error}")
    return load(place, way)


def compared(place: NetPlace, name: str, load: Load, unit: str, ours: Way, theirs: Way) -> list[Measure]:
    """A load on two ways in turn: the median ratio, and the medians."""
    pairs: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        _say(f"{name}, round {number + 1} of {ROUNDS}")
        if number % 2:
            their = patiently(load, place, theirs)
            pairs.append((patiently(load, place, ours), their))
        else:
            pairs.append((patiently(load, place, ours), patiently(load, place, theirs)))
    return [
        Measure(f"{name}_ratio", _middle([our / their for our, their in pairs]), "ratio"),
        Measure(f"{name}_ours", _middle([our for our, _ in pairs]), unit),
        Measure(f"{name}_kernel", _middle([their for _, their in pairs]), unit),
    ]


def udp(place: NetPlace) -> list[Measure]:
    """Datagrams of 1,400 bytes, 400 Mbit/s of them offered: what comes, against the kernel's NAT."""
    if not place.peer(place.ours, "knock", 3, 0.5)["answered"]:
        raise NotMeasured("the network passes no UDP to the outside")
    return compared(place, "udp", iperf(*UDP), "Gbit/s", place.ours, place.kernel)


def neighbours(place: NetPlace) -> list[Measure]:
    """Two vifs on a network's bridge, against a plain bridge."""
    ours, plain = place.neighbours()
    return compared(place, "zone_to_zone", iperf(), "Gbit/s", ours, plain)


def others(place: NetPlace) -> list[Measure]:
    """pasta and slirp4netns, three times each; who is not there, or does not stand a load, has no row for it."""
    taken: list[Measure] = []
    for name, start in OTHERS.items():
        try:
            way = start(place)
        except NotMeasured as error:
            _say(f"{name} is left out: {error}")
            continue
        for load_name in BESIDE:
            load, unit = LOADS[load_name]
            _say(f"{name}: {load_name}")
            try:
                taken.append(
                    Measure(f"{load_name}_{name}", _middle([patiently(load, place, way) for _ in range(3)]), unit)
                )
            except NotMeasured as error:
                _say(str(error))
    return taken


def _outward(name: str) -> Take:
    load, unit = LOADS[name]
    return lambda place: compared(place, name, load, unit, place.ours, place.kernel)


# By name: the rows that there are in any case, and how they are taken.
GROUPS: dict[str, tuple[tuple[str, ...], Take]] = {name: ((f"{name}_ratio",), _outward(name)) for name in LOADS} | {
    "udp": (("udp_ratio",), udp),
    "neighbours": (("zone_to_zone_ratio",), neighbours),
    "others": ((), others),
    "flooded": (("flood_p99_ratio",), netfaults.flooded),
    "idle": (("idle_memory",), netfaults.idle_memory),
    "killed": (("killed_served_again", "killed_pings_lost"), netfaults.killed),
}


def measure(out: Path) -> list[Measure]:
    """All network measures; what one of them lacks does not keep the others."""
    out.mkdir(parents=True, exist_ok=True)
    only = os.environ.get("BENCH_ONLY", ",".join(GROUPS)).split(",")
    chosen = [group for name, group in GROUPS.items() if name in only]
    try:
        with net_place() as place:
            taken = [one for names, take in chosen for one in _take(place, names, take)]
    except (NotMeasured, RuntimeFault) as error:
        return [Measure(name, None, why=str(error)) for names, _ in chosen for name in names]
    _draw(out, taken)
    return taken


def _take(place: NetPlace, names: Sequence[str], take: Take) -> list[Measure]:
    try:
        return take(place)
    except (NotMeasured, RuntimeFault, OSError, subprocess.SubprocessError) as error:
        return [Measure(name, None, why=str(error)) for name in names]


def _draw(out: Path, taken: Sequence[Measure]) -> None:
    """Streams of one connection, ours beside the others."""
    values = {one.name: one.value for one in taken if one.value}
    groups: dict[str, dict[str, pictures.Stack]] = {}
    for load, heading in (("tcp_up", "upload"), ("tcp_down", "download")):
        found = ((who, values.get(f"{load}_{who}")) for who in ("kernel", "ours", "pasta", "slirp4netns"))
        bars = {LABELS[who]: [(LABELS[who], value)] for who, value in found if value}
        if bars:
            groups[heading] = bars
    if groups:
        note = f"one TCP connection at MTU 1500 in namespaces of one machine; medians, rounds: {ROUNDS}"
        text = pictures.stacked("From a zone to the outside: longer is better", note, groups, unit="Gbit/s")
        (out / "net-bars.svg").write_text(text)


LABELS = {"kernel": "kernel NAT", "ours": "zone's network", "pasta": "pasta", "slirp4netns": "slirp4netns"}


def _middle(values: Sequence[float]) -> float:
    value = statistics.median(values)
    return round(value, 3 if value < 100 else 0)


def _say(what: str) -> None:
    print(f"bench: net: {what}", file=sys.stderr, flush=True)
