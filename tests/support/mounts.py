"""Mounts for tests that ask the kernel; they skip themselves, saying what the kernel or the user lacks."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(target: Path, kind: str, source: Path | str, options: str) -> Iterator[Path]:
    """Something mounted on `target`, which is made; unmounted afterwards."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", kind, "-o", options, source, target], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine mounts no {kind}: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)
