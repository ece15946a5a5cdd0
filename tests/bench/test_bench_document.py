"""The report of the benchmarks: what was measured again is written anew, all else stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report

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
