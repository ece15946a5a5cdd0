"""The power goes: what the disk holds of a store at any moment is sound, and what was published is on it.

The store lies on an ext4 of its own, in a file, that commits its journal only when asked to (commit=1000). The process
is killed at a system call, the file copied as it is: the copy is the disk after a power cut, as what only the kernel's
cache knew is not in it. The copy is mounted, which replays the journal, and looked at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.stores import tree
from support.tools import needs

from pipeline.oci import MANIFEST, Descriptor
from pipeline.store import Store
from pipeline.store.fsck import fsck

DISK_BYTES = 24 << 20
KEY = "cd" * 32
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    needs("mkfs.ext4", "mount"),
]


def publish(root: Path) -> None:
    store = Store(root)
    blob = store.put(b"bytes" * 5000)
    store.put_result(KEY, {"blob": blob.to_json()})
    manifest = store.put_manifest([blob], artifact_type="test")
    store.tag("zones/web", Descriptor(MANIFEST, manifest.digest, manifest.size_bytes))


def publish_without_fsync(root: Path) -> None:
    """What a careless program does: the proof that the instrument shows what it should."""
    (root / "new").write_bytes(b"bytes" * 5000)
    os.rename(root / "new", root / "published")


def visible(root: Path) -> dict[str, Any]:
    return {name: data for name, data in tree(root).items() if name.split("/")[0] in ("blobs", "results", "index.json")}


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an ext4, and a store on it that was opened once and synced."""
    blank = tmp_path_factory.mktemp("power") / "blank.img"
    with open(blank, "wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", blank], check=True)
    with mounted(blank) as disk:
        Store(disk / "store")
    return blank


@contextlib.contextmanager
def mounted(image: Path, options: str = "commit=1000") -> Iterator[Path]:
    place = image.with_suffix(".mnt")
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", f"loop,{options}", image, place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a file here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def after_power_cut(blank: Path, work: Any, place: Path, inject: str, options: str) -> Iterator[tuple[Path, bool]]:
    """The disk as it is when the power goes at that point of the work, and whether the work had ended by then."""
    live, cut = place / "live.img", place / "cut.img"
    for image in (live, cut):  # new files: mount(8) takes a loop device that a file still has, with what it has cached
        image.unlink(missing_ok=True)
    shutil.copyfile(blank, live)
    with mounted(live, options) as disk:
        outcome = faults.run(lambda: work(disk / "store"), place, inject=inject, traced=bool(inject))
        copy_sparse(live, cut)
    with mounted(cut, options) as disk:
        yield disk / "store", outcome.code == faults.DONE


def copy_sparse(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def test_instrument_shows_what_was_never_synced(blank: Path, tmp_path: Path) -> None:
    with after_power_cut(blank, publish_without_fsync, tmp_path, "", "commit=1000") as (root, ended):
        assert ended
        assert not (root / "published").exists() or (root / "published").read_bytes() == b""


@pytest.mark.parametrize("mode", ("ordered", "writeback"))
def test_store_after_a_power_cut_is_sound_and_has_what_was_published(blank: Path, tmp_path: Path, mode: str) -> None:
    faults.require_strace()
    options = f"commit=1000,data={mode}"
    with after_power_cut(blank, publish, tmp_path, "", options) as (root, ended):
        assert ended
        assert fsck(root) == []
        unharmed = visible(root)
        assert set(Store(root).tags()) == {"zones/web"} and Store(root).result(KEY) is not None
    with mounted(blank) as disk:
        points = faults.run(lambda: publish(disk / "other"), tmp_path).points()
    for point in faults.spread(points, 25):
        with after_power_cut(blank, publish, tmp_path, point.inject("signal=KILL"), options) as (root, _):
            assert fsck(root) == [], point
            assert all(unharmed.get(name, data) == data for name, data in visible(root).items() if name != "index.json")
            publish(root)
            assert visible(root) == unharmed, point
    faults.say(f"power cut ({mode}): {len(faults.spread(points, 25))} of {len(points)} moments")
