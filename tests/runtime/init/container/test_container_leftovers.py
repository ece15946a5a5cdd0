"""What killed runs of these tests left is not in the way of later ones."""

import os
import subprocess
from pathlib import Path

import pytest
from support import cgroups, containers

pytestmark = pytest.mark.root


@pytest.fixture
def parent():
    made = Path(containers.cgroup_root(), cgroups.own("leftovers"))
    made.mkdir()
    yield made
    for directory, _, _ in os.walk(made, topdown=False):
        os.rmdir(directory)


def test_groups_of_gone_runs_without_processes_go_and_no_others(parent):
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f"test-{gone.pid}", f"zonebox-{gone.pid}-3", cgroups.own("test"), f"somebodys-{gone.pid}"):
        (parent / name / "containers" / "main").mkdir(parents=True)
    (parent / f"first-{gone.pid}").mkdir()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as alive:
        (parent / f"first-{gone.pid}" / "cgroup.procs").write_text(str(alive.pid))
        cgroups.remove_left_behind(parent)
        left = {path.name for path in parent.iterdir() if path.is_dir()}
        assert left == {cgroups.own("test"), f"somebodys-{gone.pid}", f"first-{gone.pid}"}
        alive.stdin.close()
    # Who has ended, and is waited for, may be in there a moment longer.
    assert containers.eventually(
        lambda: cgroups.remove_left_behind(parent) or not (parent / f"first-{gone.pid}").exists()
    )
