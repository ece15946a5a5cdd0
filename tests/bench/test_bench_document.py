"""The report of the benchmarks: what was measured again is written anew, all else stays."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bench_init
import bench_zone
import pytest
import report
import run

ROW = {"name": "zone_ps", "value": 12.5, "unit": "ms", "goal": "<= 250", "ok": True}
MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 4, "kernel": "6", "python": "3", "load_1min": 0.1}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "bench.md"
    copy.write_text(report.REPORT.read_text())
    monkeypatch.setattr(report, "REPORT", copy)
    monkeypatch.setattr(report, "OUT", tmp_path)
    return copy


def test_nothing_measured_changes_nothing(copy: Path) -> None:
    report.main()
    assert copy.read_text() == (report.PROJECT / "docs" / "bench.md").read_text()


def test_bench_measured_again_has_a_new_section_in_its_place(copy: Path) -> None:
    before = report.sections(copy.read_text())
    (copy.parent / "command.json").write_text(json.dumps({"date": "today", "machine": MACHINE, "rows": [ROW]}))
    report.main()
    after = report.sections(copy.read_text())
    assert list(after) == [bench for bench in report.BENCHES if bench in before or bench == "command"]
    assert "| 12.5 ms | <= 250 | ok |" in after["command"]
    assert {bench: text for bench, text in after.items() if bench != "command"} == {
        bench: text for bench, text in before.items() if bench != "command"
    }


def test_measure_of_a_part_has_a_name_and_a_goal_of_its_own() -> None:
    (both,) = set(run.goals()["zone"]) & set(run.goals()["init"])
    goals = run.goals_of("zone")
    assert goals[both] == run.goals()["zone"][both]
    assert goals[run.name_of_part("zone", both)] == run.goals()["init"][both]
    assert run.name_of_part("zone", "first_line") == "first_line"
    for bench, text in report.sections(report.REPORT.read_text()).items():
        names = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
        assert len(names) == len(set(names)), f"two measures of {bench} have one name"


def test_slowest_of_a_hundred_is_of_a_hundred() -> None:
    told = {name.removesuffix("_p99") for name, text in report.WHAT.items() if "of a hundred" in text}
    assert told == {"exec_command", "exec", "channel", "channel_ping"}
    assert min(bench_zone.COMMANDS, bench_zone.EXECS, bench_zone.PINGS, bench_init.PINGS) >= 100


def test_measure_that_was_taken_is_kept_if_a_later_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(out: Path) -> Iterator[run.Measure]:
        yield run.Measure("zone_ps", 12.5, "ms")
        raise SystemExit("interrupted")

    monkeypatch.setattr(run, "OUT", tmp_path / "made")
    monkeypatch.setitem(sys.modules, "bench_command", SimpleNamespace(measure=measure))
    with pytest.raises(SystemExit, match="interrupted"):
        run.run("command")
    assert json.loads((tmp_path / "made" / "command.json").read_text())["rows"] == [ROW]
    assert capsys.readouterr().out.split() == ["command.zone_ps", "12.5", "ms", "<=", "250", "ok"]
