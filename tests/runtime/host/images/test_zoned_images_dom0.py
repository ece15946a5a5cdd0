"""What a dom0 has is enough to pull by: the code disk, Debian's zstandard, cffi and libsquashfs; no ISA-L."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.registry import FakeRegistry
from support.tars import image_of, tar_of

from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.store import Store
from runtime.host.lab.codedisk import code_files

DEBIANS = ("zstandard", "cffi", "_cffi_backend", "pycparser")  # python3-zstandard, python3-cffi and what they need


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH as dom0 has it."""
    code, debian = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("debian")
    for name, data in code_files().items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(data)
    for name in DEBIANS:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (debian / origin.name).symlink_to(origin)
    return f"{code}:{debian}"


def child(path: str, store: Path, kind: str, **work: object) -> dict[str, object]:
    request = json.dumps({"store": str(store), "kind": kind, "work": work}) + "\n"
    argv = [sys.executable, "-S", "-m", "runtime.host.images.child"]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()  # and kept open: its end would be the child's
    last = json.loads(process.stdout.read().splitlines()[-1])
    process.stdin.close()
    process.wait()
    assert "ok" in last, last
    return dict(last["ok"])


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_pull_in_dom0_gives_the_same_bytes(tmp_path: Path, path: str, compression: str) -> None:
    tree = tar_of({"etc/": None, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "a": bytes(range(256)) * 2000})
    with contextlib.closing(FakeRegistry()) as registry:
        reference = registry.add("app", "v1", image_of(tree, compression=compression))
        packed = child(path, tmp_path / "dom0", "PullWork", image=reference)
        ours = pack_image(reference, tmp_path / "out", env=Env(Store(tmp_path / "here")))
    assert packed["rootfs"]["digest"] == str(ours)  # type: ignore[index]
