"""Programs of a newer Debian than this machine's, unpacked from verified packages beside it and never installed."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.env import Env
from pipeline.fetch import debian
from pipeline.fetch.apt import MirrorUnreachable
from pipeline.fetch.aptsources import NoMirror
from pipeline.fetch.debdownload import DownloadFailed
from pipeline.recipe import PROJECT
from pipeline.store import Store
from pipeline.tool import ToolMissing

LOCKS = PROJECT / "build" / "lock"


@functools.cache
def _keep() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="zonewright-debs-")  # gone with this process


@functools.cache
def unpacked(name: str, *packages: str, suite: str = "trixie") -> Path:
    """A directory with these packages and what they depend on; skips the test where the mirror cannot be asked."""
    root = Path(_keep().name) / name
    env = Env(Store())
    LOCKS.mkdir(parents=True, exist_ok=True)

    def work(lock: debian.PackageLock) -> None:
        for deb in debian.download(env, lock).values():
            subprocess.run(["dpkg-deb", "--extract", env.store.path(deb.digest), root], check=True)

    request = {"include": packages, "essential": False, "name": name, "path": LOCKS / f"tests-{name}.json"}
    try:
        debian.with_packages(env, work, suite=suite, **request)  # type: ignore[arg-type]
    except (MirrorUnreachable, NoMirror, DownloadFailed, ToolMissing) as error:
        pytest.skip(f"{' '.join(packages)} of Debian {suite}: {error}")
    return root


def command(root: Path, program: str) -> list[str]:
    """How a program of an unpacked tree is started: by its own loader, with its own libraries."""
    (loader,) = root.glob("usr/lib*/ld-linux-*.so.2")
    libraries = ":".join(str(path) for path in sorted(root.glob("usr/lib/*-linux-gnu")))
    return [str(loader), "--library-path", libraries, str(root / program)]


def shim(directory: Path, name: str, argv: Sequence[str]) -> Path:
    """A program called `name` in a directory, for a PATH, that runs `argv`."""
    directory.mkdir(parents=True, exist_ok=True)
    words = " ".join(f"'{word}'" for word in argv)
    (directory / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    os.chmod(directory / name, 0o755)
    return directory
