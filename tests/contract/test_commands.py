"""What a person types: exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=PROJECT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line a failed command said."""
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_misspelt_variable_is_refused_with_what_was_meant():
    assert "did you mean zone=?" in sentence(run("./doit", "boot", "zon=nginx"))


def test_unknown_zone_names_near_ones():
    assert "no such zone (did you mean nginx?)" in sentence(run("./doit", "boot", "zone=ngimx"))


def test_boot_without_a_zone_says_how():
    done = run("./doit", "boot", ZONE_HOST="xen")
    assert done.returncode != 0
    assert "expected zone=NAME, one of: nginx" in done.stderr


def test_option_after_test_or_bench_is_theirs_and_not_doits():
    assert "bench '--nosuch': no such bench" in run("./doit", "bench", "--nosuch").stderr


def test_second_run_does_nothing_and_says_so():
    run("./doit", "bundle", "zone=nginx")
    done = run("./doit", "bundle", "zone=nginx")
    assert done.returncode == 0
    assert "results are up to date" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("zone",), ("zone", "boot"), ("zone", "host"), ("zone", "image", "pack")],
    ids=lambda words: " ".join(words),
)
def test_help_of_every_command_exits_0(words):
    done = run(f".venv/bin/{words[0]}", *words[1:], "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: zone")


def test_help_shows_examples():
    assert "zone boot nginx" in run(".venv/bin/zone", "--help").stdout


def test_boot_of_a_zone_nobody_built_is_one_sentence(tmp_path):
    done = run(".venv/bin/zone", "boot", "nginx", ZONEWRIGHT_STORE=str(tmp_path))
    assert "built zone 'nginx': no such built zone" in sentence(done)


def test_unknown_host_is_one_sentence():
    assert "expected xen, lab[:NAME], unix:PATH" in sentence(run(".venv/bin/zone", "--host", "moon", "ps"))


def test_pack_of_what_is_not_there_leaves_no_file(tmp_path):
    out = tmp_path / "out.squashfs"
    done = run(
        ".venv/bin/zone", "image", "pack", f"oci:{tmp_path}/nowhere:x", "-o", str(out), ZONEWRIGHT_STORE=str(tmp_path)
    )
    assert str(tmp_path) in sentence(done)
    assert done.returncode == 1
    assert not out.exists()


def test_wrapper_says_nothing_when_nothing_is_missing():
    done = run("./doit", "list")
    assert done.returncode == 0 and done.stderr == ""
    assert "boot" in done.stdout
