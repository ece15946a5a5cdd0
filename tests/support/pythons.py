"""Other Pythons than the one that runs, with the libraries a pack needs; nothing is installed.

An interpreter is this machine's, or one of pyenv's, else Debian 13's from its packages (support/debtree.py). The
libraries are the wheels requirements.lock names, checked against its hashes.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.recipe import PROJECT
from support import debtree

IN_DEBIAN = {"3.13": ("trixie", "python3.13-minimal", "libpython3.13-stdlib")}
LIBRARIES = ("isal", "zstandard", "cffi", "pycparser")


def command(version: str) -> list[str]:
    """How a Python of that version is started; skips the test where there is none to be had."""
    if found := _found(version):
        return [found]
    if version not in IN_DEBIAN:
        pytest.skip(f"no python{version} on this machine, in pyenv, or in a Debian release")
    suite, *packages = IN_DEBIAN[version]
    return debtree.command(debtree.unpacked(f"python{version}", *packages, suite=suite), f"usr/bin/python{version}")


def installed(version: str) -> str:
    """A Python of that version that is on this machine; skips the test where there is none."""
    found = _found(version)
    if found is None:
        pytest.skip(f"no python{version} on this machine or in pyenv")
    return found


def _found(version: str) -> str | None:
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    places = [
        shutil.which(f"python{version}") or "",
        *glob.glob(f"{Path.home()}/.pyenv/versions/{version}.*/bin/python"),
    ]
    for path in filter(None, places):
        said = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True)
        if said.stdout.strip() == version.encode():
            return path
    return None


@functools.cache
def _keep() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="zonewright-wheels-")  # gone with this process


@functools.cache
def libraries(version: str) -> Path:
    """A directory of these libraries for that version; skips the test where the index cannot be asked."""
    target = Path(_keep().name) / version
    target.mkdir()
    locked = (PROJECT / "requirements.lock").read_text()
    wanted = re.findall(rf"^(?:{'|'.join(LIBRARIES)})==(?:.*\\\n)+.*\n", locked, re.M)
    assert len(wanted) == len(LIBRARIES)
    (target / "wanted.txt").write_text("".join(wanted))
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={version}"]
    argv += ["--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64", "--platform=manylinux_2_17_x86_64"]
    done = subprocess.run(
        [*argv, f"--target={target}", "--requirement", target / "wanted.txt"],
        capture_output=True,
        text=True,
        env=os.environ | {"PIP_RETRIES": "1"},
    )
    if done.returncode:
        pytest.skip(f"no wheels for Python {version}: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return target
