"""The launch segment is an archive the kernel and the zone's init can read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.tools import require

from pipeline.bundle.model import Launch, LaunchNetwork, Process
from pipeline.jsonmodel import from_json
from runtime.boot.launch import launch_segment

LAUNCH = Launch(
    hostname="web",
    seed="ab" * 32,
    modules=(),
    process=Process(argv=("/usr/sbin/nginx",), env=("PATH=/bin",)),
    network=LaunchNetwork("eth0", 1500, ("10.75.0.2/24",), ("10.75.0.1",), ()),
)


def test_cpio_unpacks_the_same_launch(tmp_path: Path) -> None:
    require("cpio")
    segment = launch_segment(LAUNCH)
    assert len(segment) % 4 == 0
    subprocess.run(["cpio", "-id", "--quiet"], input=segment, cwd=tmp_path, check=True)
    path = tmp_path / "zone/launch.json"
    assert from_json(Launch, json.loads(path.read_text())) == LAUNCH
    assert path.stat().st_mode & 0o777 == 0o400


def test_equal_launches_give_equal_bytes() -> None:
    assert launch_segment(LAUNCH) == launch_segment(LAUNCH)
