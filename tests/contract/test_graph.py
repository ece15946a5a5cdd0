"""The graph of a checkout: one zone's file is no other zone's trouble."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.recipe import PROJECT
from pipeline.store import Store

SENTENCE = "key volumes[0]: expected a source that is there, got data.d/none.squashfs: No such file or directory"


@pytest.fixture
def doit(tmp_path: Path):
    """Runs doit in a copy of this checkout, with a zone that is made of files alone, and one that lacks a file."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pipeline", "runtime", "zones", "os", "kernel"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "dodo.py", copy)
    (copy / "zones" / "good.toml").write_text('image = "recipe:zone-info"\n')
    (copy / "zones" / "lacks.toml").write_text('image = "recipe:zone-info"\nvolumes = ["data.d/none.squashfs:/data"]\n')

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "doit", *words]
        environment = os.environ | {"ZONEWRIGHT_STORE": str(tmp_path / "store")}
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)

    return run


def test_a_zone_that_names_a_file_that_is_not_there_fails_its_own_tasks_only(doit) -> None:
    listed = doit("list", "--all")
    assert listed.returncode == 0, listed.stderr
    assert {"bundle:good", "bundle:lacks", "fetch:lacks", "squash:lacks"} <= set(listed.stdout.split())
    made = doit("fetch:good")
    assert made.returncode == 0, made.stderr
    for words in (["fetch:lacks"], ["bundle", "zone=lacks"], ["boot", "zone=lacks"], ["lock"]):
        done = doit(*words)
        said = [line for line in (done.stdout + done.stderr).splitlines() if SENTENCE in line]
        assert done.returncode == 1 and len(said) == 1, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr


def test_name_that_another_checkouts_build_took_leads_to_this_ones_again(doit, tmp_path: Path) -> None:
    assert doit("recipe:zone-info").returncode == 0
    store = Store(tmp_path / "store")
    before = store.tags()["recipe/zone-info"]
    store.tag("recipe/zone-info", store.put_manifest([], config=store.put(b"{}"), artifact_type="of/another"))
    assert doit("recipe:zone-info").returncode == 0
    assert store.tags()["recipe/zone-info"].digest == before.digest
