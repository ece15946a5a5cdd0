"""`zone image pack` killed, failed or interrupted anywhere: no half file, no wrong object, and the rerun's same bytes.

In CI an even sample of the points; all of them with ZONEWRIGHT_FAULTS=all (./doit faults).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.stores import tree
from support.tars import image_of, tar_of, write_layout

from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.store import Store
from pipeline.store.fsck import fsck

PROJECT = Path(__file__).resolve().parents[3]
SAMPLE = 90  # points of one sweep in CI
ERRORS = {
    "ENOSPC": ("openat", "write", "fsync", "rename", "mkdir", "ftruncate", "pwrite64", "splice"),
    "EIO": ("read", "write", "fsync", "rename", "pread64", "pwrite64"),
    "EMFILE": ("openat", "pipe2"),
    "EINTR": ("openat", "read", "write", "flock", "fsync", "wait4"),
}
LEFT_AT_MOST = 6  # temporary files of one killed pack: spools, a scratch directory and two files in it, a blob


# `zone image pack` whose writer runs a program that does not end by itself, so that it has to be ended.
HANGS = """
import sys
from pipeline import tool
from pipeline.squash import formats
from runtime.host.cli import main

pid, reference, out = sys.argv[1:]
script = f"echo $$ >{pid}.new; mv {pid}.new {pid}; trap '' TERM INT; while :; do sleep 600; done"
formats.squash_rootfs = lambda *arguments, **options: tool.run(["sh", "-c", script], timeout_s=600)
sys.exit(main(["image", "pack", reference, "-o", out]))
"""


@dataclass
class Bench:
    """A layout with one image, and what packing it gives when nothing goes wrong."""

    place: Path
    reference: str
    image: bytes
    store: dict[str, Any]

    @property
    def root(self) -> Path:
        return self.place / "store"

    @property
    def out(self) -> Path:
        return self.place / "out" / "image.squashfs"

    def pack(self) -> None:
        pack_image(self.reference, self.out, env=Env(Store(self.root)))

    def fresh(self) -> None:
        """Nothing was ever packed."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir()

    def check_after(self, at: str) -> None:
        """The invariants, at once and after the same again."""
        if (self.root / "blobs").is_dir() and (self.root / "index.json").exists():
            damaged = [item.name for item in fsck(self.root)]
            assert damaged in ([], ["format"], ["oci-layout"], ["format", "oci-layout"]), (at, damaged)
        assert not self.out.exists() or self.out.read_bytes() == self.image, at
        left = [path for path in self.root.rglob("*") if "tmp" in path.parts[-3:-1]]
        assert len(left) <= LEFT_AT_MOST, (at, left)
        self.pack()
        assert self.out.read_bytes() == self.image, at
        # A rerun may take another way (layers from the store, not from the stream) and keep more; never other bytes.
        assert all(self.store.get(name, data) == data for name, data in visible(self.root).items()), at
        assert fsck(self.root) == [], at
        assert list((self.root / "tmp").iterdir()) == [], at
        assert sorted(os.listdir(self.out.parent)) == [self.out.name], at


def visible(root: Path) -> dict[str, Any]:
    return {name: data for name, data in tree(root).items() if name.split("/")[0] in ("blobs", "results", "index.json")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("faults")
    noise = hashlib.shake_256(b"noise").digest(300_000)
    base = tar_of({"etc/": None, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "usr/big": noise, "gone": b"1"})
    layers = [tar_of({".wh.gone": b"", "etc/motd": b"hi\n", "usr/lib/more": noise[:50_000]})]
    if faults.WHOLE:
        layers += [tar_of({f"srv/{number}": b"%d" % number}) for number in range(9)]
    image = image_of(base, *layers)
    layout = write_layout(place / "layout", {"1": image})
    bench = Bench(place, f"oci:{layout}:1", b"", {})
    bench.fresh()
    bench.pack()
    bench.image, bench.store = bench.out.read_bytes(), visible(bench.root)
    yield bench
    shutil.rmtree(place)


def test_pack_killed_at_any_call(bench: Bench) -> None:
    faults.require_strace()
    bench.fresh()
    points = faults.run(bench.pack, bench.place).points()
    chosen = faults.spread(points, SAMPLE)
    killed = 0
    for point in chosen:
        bench.fresh()
        outcome = faults.run(bench.pack, bench.place, inject=point.inject("signal=KILL"))
        killed += outcome.killed
        assert outcome.killed or outcome.code in (faults.DONE, faults.SAID), (point, outcome.text)
        bench.check_after(str(point))
    faults.say(f"pack: {len(chosen)} of {len(points)} points: {killed} killed")
    assert killed > len(chosen) / 2


@pytest.mark.parametrize("error", ERRORS)
def test_error_at_any_call_of_a_pack_is_one_sentence(bench: Bench, error: str) -> None:
    faults.require_strace()
    bench.fresh()
    points = faults.run(bench.pack, bench.place).points(ERRORS[error])
    chosen = faults.spread(points, SAMPLE // 4)
    said = 0
    for point in chosen:
        bench.fresh()
        outcome = faults.run(bench.pack, bench.place, inject=point.inject(f"error={error}"))
        assert outcome.code in (faults.DONE, faults.SAID), (point, outcome.text)
        assert "\n" not in outcome.text, (point, outcome.text)
        said += outcome.code == faults.SAID
        bench.check_after(f"{error} at {point}")
    faults.say(f"pack: {error} at {len(chosen)} of {len(points)} points: {said} said so, the others did not matter")
    assert error == "EINTR" or said > 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_pack_ends_its_children_and_leaves_nothing(
    bench: Bench, tmp_path: Path, number: int, code: int
) -> None:
    bench.fresh()
    environment = os.environ | {"ZONEWRIGHT_STORE": str(bench.root), "PYTHONPATH": str(PROJECT)}
    words = [sys.executable, "-c", HANGS, tmp_path / "pid", bench.reference, bench.out]
    with subprocess.Popen(list(map(str, words)), env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + faults.DEADLINE_S
        while not (tmp_path / "pid").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        process.wait(timeout=faults.DEADLINE_S)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read().count(b"Traceback")) == (code, 0)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert os.listdir(bench.out.parent) == []
    assert os.listdir(bench.root / "tmp") == []
    bench.check_after("a signal")
