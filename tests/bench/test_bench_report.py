"""What the benchmarks make of their figures."""

from __future__ import annotations

import asyncio
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import channel
import pictures
from bench_pipeline import measure
from place import Place
from run import Measure, NotMeasured, goals, row
from scaling import growth
from traced_pack import Trace


@pytest.mark.parametrize(("value", "ok"), [(0.24, True), (0.25, True), (0.26, False), (None, False)])
def test_what_was_not_measured_has_not_reached_its_goal(value: float | None, ok: bool) -> None:
    assert row(Measure("wall_ratio", value), goals()["pipeline"]["wall_ratio"])["ok"] is ok


def test_a_measure_that_cannot_be_taken_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(at: Place) -> list[Measure]:
        raise NotMeasured("no such program")

    def works(at: Place) -> list[Measure]:
        return [Measure("hit_pull", 80.0, "ms")]

    fails.__name__, works.__name__ = "memory", "hits"
    monkeypatch.setattr("bench_pipeline.memory", fails)
    monkeypatch.setattr("bench_pipeline.hits", works)
    monkeypatch.setenv("BENCH_ONLY", "memory,hits")
    taken = {one.name: one for one in measure(tmp_path)}
    assert taken["peak_memory"].value is None and taken["peak_memory"].why == "no such program"
    assert taken["hit_pull"].value == 80.0


@pytest.mark.parametrize(("seconds", "exponent"), [((0.3, 0.5, 2.3), 1.0), ((0.3, 0.5, 20.3), 2.0)])
def test_growth_is_an_exponent_without_the_start(
    seconds: tuple[float, float, float], exponent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from process import Spent

    costs = dict(zip(("grown-1-1", "little", "much"), seconds, strict=True))
    monkeypatch.setattr(Place, "reference", lambda self, name: name)
    monkeypatch.setattr("scaling.pack", lambda at, reference: Spent(1.0, costs[reference], 1.0))
    rows = growth(Place(Path(), "", Path()), "entries", "little", "much")
    assert rows[0].value == exponent


def test_pictures_are_xml_whatever_the_names_are() -> None:
    stacks = {"wall & CPU": {"<ours>": [("a&b", 1.0), ("c", 2.0)]}}
    trace = Trace(1.0, [("<layer>", 0.1, 0.9)], {"a&b": [(0.5, 1.0), (1.0, 2.0)]})
    for picture in (pictures.stacked("<t>", "&", stacks), pictures.timeline("<t>", "&", trace)):
        assert ElementTree.fromstring(picture).tag.endswith("svg")


def test_the_channels_bench_measures_without_a_zone() -> None:
    found = asyncio.run(channel.without_a_zone(trips=3, size=100_096))
    assert sorted(found) == ["echo_mb_s", "from_zone_mb_s", "ping_median_s", "ping_slowest_of_100_s", "to_zone_mb_s"]
    assert all(value > 0 for value in found.values())
