"""The network's benchmark: its small loads, what it makes of figures, and that it says what it could not measure."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))

import bench_net
from netplace import PEER, NetPlace, Way, net_place
from run import Measure, NotMeasured, goals
from support.networld import make_world
from support.ports import free_port
from support.tools import require

OURS, KERNEL = Way("ours", "zone", "192.0.2.1", "out"), Way("kernel NAT", "natted", "192.0.2.2", "out")


@pytest.fixture
def echo_port() -> Iterator[int]:
    port = free_port()
    server = subprocess.Popen([*PEER, "serve", "127.0.0.1", str(port)], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield port
        server.kill()


def client(role: str, port: int, number: int, seconds: float) -> dict[str, Any]:
    words = [*PEER, role, "127.0.0.1", str(port), str(number), str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return found


def test_small_loads_say_what_they_took(echo_port: int) -> None:
    took = client("trips", echo_port, 100, 5)
    assert 0 < took["p50_us"] <= took["p99_us"]
    opened = client("opens", echo_port, 4, 0.3)
    assert opened["per_s"] > 10 and opened["failed"] == 0
    assert client("hold", echo_port, 30, 0) == {"answered": 30}
    assert client("knock", echo_port, 2, 60) == {"answered": 2}


def test_knocking_where_nobody_is_goes_unanswered() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert client("knock", silent.getsockname()[1], 2, 0.1) == {"answered": 0}


def test_ratio_is_the_median_of_pairs_not_the_ratio_of_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_net, "ROUNDS", 3)
    figures = {"ours": [1.0, 8.0, 9.0], "kernel NAT": [2.0, 2.0, 10.0]}
    asked: list[str] = []

    def load(place: NetPlace, way: Way) -> float:
        asked.append(way.name)
        return figures[way.name].pop(0)

    rows = bench_net.compared(None, "tcp_up", load, "Gbit/s", OURS, KERNEL)  # type: ignore[arg-type]
    assert rows == [
        Measure("tcp_up_ratio", 0.9, "ratio"),
        Measure("tcp_up_ours", 8.0, "Gbit/s"),
        Measure("tcp_up_kernel", 2.0, "Gbit/s"),
    ]
    assert asked == ["ours", "kernel NAT", "kernel NAT", "ours", "ours", "kernel NAT"]


def test_load_that_fails_is_taken_again_but_not_for_ever() -> None:
    failures = [NotMeasured("busy"), NotMeasured("busy")]

    def load(place: NetPlace, way: Way) -> float:
        if failures:
            raise failures.pop()
        return 4.0

    assert bench_net.patiently(load, None, OURS) == 4.0  # type: ignore[arg-type]
    failures += [NotMeasured(f"busy {number}") for number in range(5)]
    with pytest.raises(NotMeasured):
        bench_net.patiently(load, None, OURS)  # type: ignore[arg-type]


def test_every_goal_has_a_row_even_where_nothing_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Any:
        raise NotMeasured("network namespaces need root")

    monkeypatch.setattr(bench_net, "net_place", nowhere)
    monkeypatch.delenv("BENCH_ONLY", raising=False)
    taken = {one.name: one for one in bench_net.measure(tmp_path)}
    assert set(goals()["net"]) <= set(taken)
    assert {one.why for one in taken.values()} == {"network namespaces need root"}


@pytest.mark.root
def test_both_ways_lead_outside_and_the_engines_death_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    require("iperf3")
    for name in ("_PATIENCE_S", "_PING_TIMEOUT_S"):  # a busy machine takes its time, and loses nothing
        monkeypatch.setattr(bench_net.netfaults, name, 120.0)
    with make_world():  # skips itself where there can be none
        pass
    with net_place() as place:
        for way in (place.ours, place.kernel):
            assert place.peer(way, "opens", 2, 0.2)["per_s"] > 0
        rows = {one.name: one.value for one in bench_net.netfaults.killed(place)}
        assert rows["killed_pings_lost"] == 0
        assert (rows["killed_served_again"] or 0) > 0
