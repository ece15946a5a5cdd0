"""Memory, vCPUs, disks, adoption and the check on real Xen, with a real guest; dom0_zone.py does the work in dom0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.dom0_programs import dom0_zone

pytestmark = pytest.mark.xen


@pytest.fixture(scope="module")
def run(lab: Any, nginx: Any) -> Iterator[Any]:
    with dom0_zone(lab, nginx) as run:
        yield run


def test_machine_is_described_and_lacks_nothing(run: Any) -> None:
    lines = run("machine")
    assert lines[2]["lacks"] == []
    assert lines[1]["dom0"] == 2048, "zones under load would keep it from the CPUs"
    assert "Xen version" in lines[0]["console"]


@pytest.mark.soak
def test_memory_and_vcpus_follow_what_is_asked(run: Any) -> None:
    """Booted with the first memory only; to the maximum, below the first, and back; vCPUs up and down."""
    lines = {str(line.get("step")): line for line in run("elastic")}
    assert lines["booted"]["guest"]["total_mib"] < 160
    assert lines["416"]["xen"]["memory_now_mib"] >= 414
    assert lines["416"]["guest"]["total_mib"] > lines["booted"]["guest"]["total_mib"] + 200
    assert lines["120"]["guest"]["total_mib"] < lines["booted"]["guest"]["total_mib"]


@pytest.mark.soak
def test_zone_grows_to_several_times_its_first_memory(run: Any) -> None:
    run("greedy")


def test_disks_are_plugged_in_written_to_and_taken_out(run: Any) -> None:
    assert any("at most 16" in line.get("refused", "") for line in run("disks"))


def test_leaks_planted_in_a_real_host_are_found(run: Any) -> None:
    lines = run("leaks")
    assert len([line for line in lines if "planted" in line]) == 10


def test_guest_that_dies_in_any_phase_leaves_nothing(run: Any) -> None:
    lines = run("crashes")
    assert [line["reason"] for line in lines if "end" in line] == ["crash", "crash", "crash", "poweroff"]
    (silent,) = [line["silent"] for line in lines if "silent" in line]
    assert "expected the zone to take it, got its back end is still" in silent


@pytest.mark.soak
def test_zone_whose_builder_was_killed_is_adopted(run: Any) -> None:
    run("adopted")
