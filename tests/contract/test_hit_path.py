"""What a cache hit must not pay for: `zone image pull` of a pinned digest that is there imports no heavy module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tars import image_of, tar_of, write_layout

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = {
    # libraries
    *("rich", "urllib3", "requests", "jsonschema", "oras", "zstandard", "isal", "cryptography", "cffi", "libarchive"),
    *("PySquashfsImage", "elftools", "doit"),
    # parts of the standard library that cost as much as the rest of a hit
    *("urllib.request", "http.client", "ssl", "email", "concurrent.futures", "multiprocessing", "asyncio"),
    *("subprocess", "logging", "tomllib", "difflib", "tarfile", "ctypes"),
    # parts of ours that a hit has no use for
    *("pipeline.fetch.http", "pipeline.unpack.tar", "pipeline.squashfs", "runtime.host.hosts", "runtime.host.lab"),
}
TELL = """
import json, sys
from runtime.host.cli import main
code = main(sys.argv[1:])
sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)) + "\\n")
sys.exit(code)
"""


def run(store: Path, *words: str) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", TELL, *words],
        cwd=PROJECT,
        env=os.environ | {"ZONEWRIGHT_STORE": str(store), "XDG_CONFIG_HOME": str(store)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("transport", ["docker", "oci"])
def test_hit_imports_no_heavy_module(tmp_path: Path, transport: str) -> None:
    image = image_of(tar_of({"a": b"1"}))
    layout = write_layout(tmp_path / "layout", {"t": image})
    store = tmp_path / "store"
    run(store, "image", "pull", f"oci:{layout}@{image.digest}")
    reference = f"docker://127.0.0.1:1/app@{image.digest}" if transport == "docker" else f"oci:{layout}@{image.digest}"
    for _ in range(2):  # nothing answers at that address: a hit asks nobody
        printed, modules = run(store, "image", "pull", reference)
        assert printed.strip() == image.digest
    assert sorted(HEAVY & set(modules)) == []
