"""`zone run` and `./doit bundle` make the same bundle of the same spec: one pipeline, whoever drives it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline import task
from pipeline.bundle.model import BundleResult
from pipeline.bundle.spec import load_spec
from pipeline.compose import compose
from pipeline.env import Env

PROJECT = Path(__file__).resolve().parents[2]


def test_composed_bundle_is_the_graphs() -> None:
    subprocess.run(["./doit", "bundle", "zone=nginx"], cwd=PROJECT, check=True, capture_output=True, timeout=600)
    assert compose(load_spec("nginx"), Env(task.env().store)) == task.read_result(BundleResult, "bundle", "nginx")
