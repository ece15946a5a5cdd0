"""Where a store may be: an empty directory, a store, an image layout; nobody's files are taken for its leftovers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.stores import tree
from support.tars import image_of, tar_of, write_layout

from pipeline.durable import write_atomic
from pipeline.store import Store
from pipeline.store import store as store_module
from pipeline.store.collect import collect
from pipeline.store.form import StoreUnfit
from pipeline.store.fsck import fsck


@pytest.mark.parametrize(
    "names",
    [
        (".bashrc",),
        ("notes.txt", "results/mine"),
        ("tmp/thesis/chapter",),
        ("tmp/.hidden",),
        ("results/experiment.json",),
        ("locks/door",),
        ("used/up",),
        ("blobs/sha256/picture",),
        ("lab/journal",),
        ("tmp",),
    ],
    ids=" ".join,
)
def test_directory_with_other_things_is_refused_and_left_as_it_is(tmp_path: Path, names: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"mine")
    before = tree(home)
    with pytest.raises(StoreUnfit, match=r"expected a store, or an empty directory, got one with \S+ in it"):
        Store(home)
    with pytest.raises(StoreUnfit):
        fsck(home, repair=True)
    assert tree(home) == before


def test_empty_file_system_is_a_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert Store(tmp_path).put(b"x").size_bytes == 1
    assert Store(tmp_path).tags() == {}


def test_image_layout_of_others_is_a_place_for_a_store(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"1": image_of(tar_of({"a": b"1"}))})
    assert Store(layout).tags().keys() == {"1"}


@pytest.mark.parametrize("after", range(3))
def test_store_whose_maker_was_killed_is_made_whole_by_the_next(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [after]

    def killed(path: Path, data: bytes, *, staging: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            (staging / f".{path.name}.partial").write_bytes(data[:3])  # what the real one leaves then
            raise KeyboardInterrupt
        write_atomic(path, data, staging=staging)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store_module, "write_atomic", killed)
        Store(tmp_path)
    store = Store(tmp_path)
    assert (tmp_path / "format").exists() and store.tags() == {} and os.listdir(store.tmp) == []


def test_store_of_which_only_the_first_directories_were_made_is_made_whole(tmp_path: Path) -> None:
    for name in ("blobs/sha256", "results", "locks"):
        (tmp_path / name).mkdir(parents=True)
    assert Store(tmp_path).put(b"x").size_bytes == 1


def test_store_that_lost_its_format_opens_beside_somebodys_notes(tmp_path: Path) -> None:
    kept = Store(tmp_path).put(b"x")
    (tmp_path / "format").unlink()
    (tmp_path / "notes.txt").write_bytes(b"mine")
    assert Store(tmp_path).read(kept.digest) == b"x"
    assert (tmp_path / "format").exists()


def test_what_others_put_into_a_store_no_sweep_and_no_gc_takes_away(tmp_path: Path) -> None:
    """A store made by a version that took any directory may lie in somebody's home."""
    store = Store(tmp_path)
    for name in (".ssh/id", ".bashrc", "notes.txt", "tmp/thesis/chapter", "tmp/.vimrc", "tmp/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    for name in (".index.json.partial", "tmp/.format.partial", "tmp/blob.x", "tmp/scratch.x", "tmp/spool.x"):
        (tmp_path / name).write_bytes(b"left")
    done = collect(Store(tmp_path), keep_days=0, keep_bytes=0)
    assert done.freed["leftovers"].objects == 1  # the others went when the store was opened
    assert {path for path, data in tree(tmp_path).items() if data == b"left"} == set()
    assert sum(path.read_bytes() == b"mine" for path in tmp_path.rglob("*") if path.is_file()) == 6
    assert sorted(os.listdir(store.tmp)) == [".vimrc", "a.txt", "thesis"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EINTR])
def test_directory_that_cannot_be_listed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(path: object) -> list[str]:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(StoreUnfit, match=f"expected a store to read, got {os.strerror(code)} "):
        Store(tmp_path / "store")
    assert not (tmp_path / "store").exists()
