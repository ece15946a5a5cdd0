"""A process that publishes is killed, or fails, at each system call: nothing half or dangling is ever visible."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.stores import tree

from pipeline.oci import MANIFEST, Descriptor
from pipeline.store import Store
from pipeline.store.fsck import fsck

FAILING = {
    "ENOSPC": ("openat", "write", "fsync", "rename", "mkdir", "ftruncate"),
    "EDQUOT": ("openat", "write", "rename", "mkdir"),
    "EIO": ("openat", "read", "write", "fsync", "rename", "unlink", "fchmod", "close"),
    "EMFILE": ("openat",),
    "EINTR": ("read", "write", "flock", "fsync"),  # a local openat is never interrupted
}
KEY = "ab" * 32
LEFT_AT_MOST = 3  # temporary files of one killed process: one that is written, its lock's, a lease


def publish(root: Path) -> None:
    """A blob, a result that names it, a manifest, its name: everything a stage does to a store."""
    store = Store(root)
    blob = store.put(b"bytes" * 1000)
    store.put_result(KEY, {"blob": blob.to_json()})
    manifest = store.put_manifest([blob], artifact_type="test")
    store.tag("zones/web", Descriptor(MANIFEST, manifest.digest, manifest.size_bytes))


def visible(root: Path) -> dict[str, Any]:
    """What readers of a store go by."""
    return {name: data for name, data in tree(root).items() if name.split("/")[0] in ("blobs", "results", "index.json")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    faults.require_strace()
    place = tmp_path_factory.mktemp("faults")
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def unharmed(place: Path) -> dict[str, Any]:
    publish(place / "unharmed")
    return visible(place / "unharmed")


def check_after(root: Path, unharmed: dict[str, Any], at: str) -> None:
    """The invariants: sound at once; few leftovers; the same again gives the bytes as if nothing had happened."""
    if (root / "blobs").is_dir() and (root / "index.json").exists():
        damaged = [item.name for item in fsck(root)]
        assert damaged in ([], ["format"], ["oci-layout"], ["format", "oci-layout"]), (at, damaged)
    for name, data in visible(root).items() if root.exists() else ():
        assert name == "index.json" or unharmed.get(name) == data or name.startswith("results/."), (at, name)
    left = [path for path in root.rglob("*") if path.parent.name == "tmp" or path.name.endswith(".partial")]
    assert len(left) <= LEFT_AT_MOST, (at, left)
    publish(root)
    assert visible(root) == unharmed, at
    assert list((root / "tmp").iterdir()) == [], at
    assert fsck(root) == [], at


@pytest.mark.parametrize("first", (True, False), ids=("new store", "store in use"))
def test_killed_at_every_call_of_a_publish(place: Path, unharmed: dict[str, Any], first: bool) -> None:
    root = place / "store"

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        if not first:
            Store(root).put(b"before")

    fresh()
    seen = {} if first else visible(root)
    points = faults.run(lambda: publish(root), place).points()
    assert len(points) > 200
    killed = 0
    chosen = points if first else faults.spread(points, 45)
    for point in chosen:
        fresh()
        outcome = faults.run(lambda: publish(root), place, inject=point.inject("signal=KILL"))
        killed += outcome.killed
        assert outcome.killed or outcome.code == faults.DONE, (point, outcome)
        check_after(root, {**unharmed, **{name: seen[name] for name in seen if name != "index.json"}}, str(point))
    faults.say(f"publish: {killed} of {len(points)} points killed")
    assert killed > 0.9 * len(chosen)


@pytest.mark.parametrize("error", FAILING)
def test_error_at_every_call_of_a_publish_is_an_error_or_no_matter(
    place: Path, unharmed: dict[str, Any], error: str
) -> None:
    root = place / "store"
    shutil.rmtree(root, ignore_errors=True)
    points = faults.run(lambda: publish(root), place).points(FAILING[error])
    failed = 0
    for point in points:
        shutil.rmtree(root, ignore_errors=True)
        outcome = faults.run(lambda: publish(root), place, inject=point.inject(f"error={error}"))
        assert outcome.code in (faults.DONE, faults.SAID, faults.OS_ERROR), (point, outcome.text)
        if outcome.code == faults.DONE:
            assert visible(root) == unharmed, point
        else:
            failed += 1
            assert error != "EINTR", (point, outcome.text)
        check_after(root, unharmed, f"{error} at {point}")
    faults.say(f"publish: {failed} of {len(points)} points failed with {error}")
    assert error == "EINTR" or failed > len(points) / 2


def test_disk_that_stays_full_from_any_write_on_leaves_nothing_half(place: Path, unharmed: dict[str, Any]) -> None:
    root = place / "store"
    shutil.rmtree(root, ignore_errors=True)
    points = faults.run(lambda: publish(root), place).points(("write",))
    for point in points:
        shutil.rmtree(root, ignore_errors=True)
        outcome = faults.run(lambda: publish(root), place, inject=f"{point.inject('error=ENOSPC')}+")
        assert outcome.code in (faults.DONE, faults.SAID, faults.OS_ERROR), (point, outcome.text)
        check_after(root, unharmed, f"ENOSPC from {point} on")


def test_failed_fsync_is_never_taken_for_a_success(place: Path, unharmed: dict[str, Any]) -> None:
    root = place / "store"
    shutil.rmtree(root, ignore_errors=True)
    Store(root).days.today()
    points = faults.run(lambda: publish(root), place).points(("fsync",))
    assert len(points) >= 8  # file and directory of two blobs, a result, a manifest, the index
    for point in points:
        shutil.rmtree(root, ignore_errors=True)
        Store(root).days.today()
        outcome = faults.run(lambda: publish(root), place, inject=point.inject("error=EIO"))
        assert outcome.code == faults.OS_ERROR, point
        missing = unharmed.keys() - visible(root).keys()
        named = missing or visible(root)["index.json"] != unharmed["index.json"] or point == points[-1]
        assert named, f"all of it is there after {point} failed"
