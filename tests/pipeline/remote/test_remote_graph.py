"""The whole graph of a zone on a second host: another checkout, an empty store, and the first host's results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.shims import Shims

from pipeline import task
from pipeline.recipe import PROJECT
from pipeline.remote import keys
from pipeline.store import Store

pytestmark = [pytest.mark.network, pytest.mark.slow]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")


def left_out(directory: str, names: list[str]) -> set[str]:
    """What is no source; build/ at the top only, as pipeline/build is code."""
    return set(LEFT_OUT(directory, names)) | ({"build"} if Path(directory) == PROJECT else set())


def run(checkout: Path, *argv: object, **environment: object) -> str:
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=checkout,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fresh_build(checkout: Path) -> None:
    """Only the locks, which both hosts have."""
    shutil.rmtree(checkout / "build", ignore_errors=True)
    shutil.copytree(task.BUILD / "lock", checkout / "build" / "lock")


def test_second_host_builds_nothing_of_a_zone_and_has_the_same_bundle(upstream: str, tmp_path: Path) -> None:
    if not task.result_path("bundle", "nginx").exists():
        pytest.skip("needs ./doit bundle zone=nginx")
    cache = f"docker://{upstream}/graph"
    public = keys.generate(tmp_path / "key.pem")
    common = f'[cache]\nremote = "{cache}"\nkeys = ["{public}"]\ntimeout_s = 300\n'
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(f'{common}signing_key = "{tmp_path}/key.pem"\n')
    second.write_text(common)
    checkout = tmp_path / "checkout"
    shutil.copytree(PROJECT, checkout, ignore=left_out)
    (checkout / ".venv").symlink_to((PROJECT / ".venv").resolve())
    # The first host: this one's store, and nothing that says that any stage has run.
    fresh_build(checkout)
    run(checkout, checkout / "doit", "bundle", "zone=nginx")
    said = run(checkout, sys.executable, "-m", "runtime.host.cli", "cache", "push", ZONEWRIGHT_CONFIG=first)
    assert "published" in said and "stays here" not in said, said
    digest = task.env().store.tags()["zones/nginx"].digest

    fresh_build(checkout)
    shims = Shims(tmp_path / "shims", "mmdebstrap", "apt-get")
    store = tmp_path / "store"
    said = run(
        checkout,
        checkout / "doit",
        "bundle",
        "zone=nginx",
        PATH=shims.path,
        ZONEWRIGHT_STORE=store,
        ZONEWRIGHT_CONFIG=second,
    )
    assert shims.runs() == []
    assert "building here" not in said and "  squash" not in said and "  unpack" not in said, said
    assert Store(store).tags()["zones/nginx"].digest == digest
