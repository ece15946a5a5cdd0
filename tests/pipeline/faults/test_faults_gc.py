"""`zone store gc` killed at each of its system calls: what has a name is whole, and the next gc ends the work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.stores import built, image, tree

from pipeline.store import Store
from pipeline.store.collect import collect
from pipeline.store.fsck import fsck


def fill(root: Path) -> None:
    """A store with what stays and what goes."""
    store = Store(root)
    image(store, "zones/web", [built(store, "kept")])
    for name in ("a", "b", "c"):
        built(store, name)
    store.put(b"orphan")
    (root / "lab" / "snapshots" / "old").mkdir(parents=True)
    (root / "lab" / "snapshots" / "old" / "memory").write_bytes(b"x")
    store.days.note("snapshot-old")
    (store.used / "snapshot-old").write_text("0\n")


def visible(root: Path) -> dict[str, Any]:
    return {name: data for name, data in tree(root).items() if name.startswith(("blobs", "results", "index", "lab"))}


def gc(root: Path) -> None:
    collect(Store(root), keep_days=0, keep_bytes=0)


def test_gc_killed_at_any_call_leaves_a_sound_store(tmp_path: Path) -> None:
    faults.require_strace()
    model, root = tmp_path / "model", tmp_path / "store"
    faults.run(lambda: fill(model), tmp_path, traced=False)
    shutil.copytree(model, root)
    points = faults.run(lambda: gc(root), tmp_path).points()
    wanted = visible(root)
    assert len(wanted) < len(visible(model))
    chosen = faults.spread(points, 60)
    killed = 0
    for point in chosen:
        shutil.rmtree(root)
        shutil.copytree(model, root)
        outcome = faults.run(lambda: gc(root), tmp_path, inject=point.inject("signal=KILL"))
        killed += outcome.killed
        assert fsck(root) == [], point
        assert Store(root).tags().keys() == {"zones/web"}
        gc(root)
        found = {
            name: data for name, data in tree(root).items() if name.startswith(("blobs", "results", "index", "lab"))
        }
        assert found == wanted, point
        assert list((root / "tmp").iterdir()) == [], point
    faults.say(f"gc: {killed} of {len(points)} points killed")
    assert killed > len(chosen) / 2


@pytest.mark.parametrize("error", ("EIO", "EACCES"))
def test_gc_that_cannot_remove_something_stops_with_a_sound_store(tmp_path: Path, error: str) -> None:
    faults.require_strace()
    root = tmp_path / "store"
    faults.run(lambda: fill(root), tmp_path, traced=False)
    outcome = faults.run(lambda: gc(root), tmp_path, inject=f"inject=unlink:error={error}:when=2")
    assert outcome.code in (faults.DONE, faults.OS_ERROR), outcome.text
    assert fsck(root) == []
    gc(root)
    assert len(list((root / "blobs" / "sha256").iterdir())) == 3
