"""The zone's init and kernel as the graph builds them, for tests that run them without Xen."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.build import init, kernel
from pipeline.build.model import InitParams, InitResult, KernelParams, KernelResult
from pipeline.env import Env
from pipeline.fetch.apt import MirrorUnreachable
from pipeline.recipe import PROJECT
from pipeline.store import Store
from pipeline.tool import ToolMissing
from support.tools import require

LOCKS = PROJECT / "build" / "lock"


@functools.cache
def env() -> Env:
    """The user's own store: what `./doit` has built is not built again."""
    return Env(Store())


@functools.cache
def zone_init() -> InitResult:
    """The static program; skips where it is not built and cannot be."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    try:
        return init.run(InitParams("init", init.load(), str(LOCKS / "os-init.json")), env())
    except (MirrorUnreachable, ToolMissing) as error:
        pytest.skip(f"os/init is not built: {error}")


@functools.cache
def zone_kernel(name: str = "debian-cloud") -> KernelResult:
    """The kernel image; skips where it is not built and cannot be."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    try:
        params = KernelParams(name, kernel.load(name), str(LOCKS / f"{name}.json"))
        return kernel.run(params, env())
    except (MirrorUnreachable, ToolMissing) as error:
        pytest.skip(f"kernel/{name} is not built: {error}")


def small_root(directory: Path, programs: Sequence[str]) -> Path:
    """A root directory with some of this machine's programs and the libraries they are linked with."""
    for name in ("bin", "etc", "tmp", "lib64"):
        (directory / name).mkdir(parents=True)
    for program in programs:
        path = shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin")
        assert path, program
        shutil.copy(path, directory / "bin" / program)
        listed = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        for word in listed.split():
            if word.startswith("/"):
                target = directory / word.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(word, target)
    return directory


def squashfs(directory: Path, out: Path) -> Path:
    """Pack a directory."""
    require("mksquashfs")
    subprocess.run(
        ["mksquashfs", directory, out, "-noappend", "-quiet", "-comp", "zstd"], check=True, capture_output=True
    )
    return out


def launch_json(**keys: object) -> bytes:
    """/zone/launch.json with what every test needs."""
    document: dict[str, object] = {
        "hostname": "box",
        "seed": "ab" * 32,
        "modules": [],
        "extra": {"device_timeout_s": 5},
    }
    return json.dumps(document | keys, separators=(",", ":")).encode()
