"""`zone store fsck`: finds every damage, names exactly what is damaged, and what it removes comes back the same."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from support.stores import DAMAGES, built, damage, image, key_of, tree

from pipeline.durable import write_atomic
from pipeline.errors import StoreDamaged
from pipeline.store import Store
from pipeline.store import fsck as fsck_module
from pipeline.store.form import StoreUnfit, format_document
from pipeline.store.fsck import fsck


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with something of every kind."""
    store = Store(tmp_path / "store")
    layer = built(store, "layer")
    image(store, "zones/web", [layer, built(store, "other")])
    image(store, "zones/db", [layer])
    store.register(tmp_path)
    return store


def names(store: Store) -> list[str]:
    return [item.name for item in fsck(store.root)]


def kinds(store: Store) -> dict[str, Path]:
    """One file of each kind a store has."""
    layer = built(store, "layer")
    (checkout,) = store.checkouts.iterdir()
    return {
        "blob": store.path(layer.digest),
        "manifest": store.path(store.tags()["zones/web"].digest),
        "result": store.results / f"{key_of(store, layer)}.json",
        "index.json": store.root / "index.json",
        "oci-layout": store.root / "oci-layout",
        "format": store.root / "format",
        "used": store.used / key_of(store, layer),
        "clock": store.used / "clock",
        "checkout": checkout,
    }


KINDS = ("blob", "manifest", "result", "index.json", "oci-layout", "format", "used", "clock", "checkout")


def test_sound_store_is_in_order_whoever_uses_it_meanwhile(store: Store) -> None:
    assert names(store) == []
    with store.lock("held"), store.scratch() as scratch, store.writer() as writer:
        (scratch / "file").write_bytes(b"x")
        writer.write(b"half")
        assert names(store) == []
    Store(store.root).put(b"more")
    assert names(store) == []


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_named_exactly_and_set_right(store: Store, tmp_path: Path, kind: str, how: str) -> None:
    path = kinds(store)[kind]
    digests = {name: item.digest for name, item in store.tags().items()}
    damage(path, how, tmp_path / "elsewhere")
    if how == "deleted" and kind in ("result", "used", "clock", "checkout"):
        expected: list[list[str]] = [[]]  # nothing says that there was one
    elif kind in ("used", "clock", "checkout") and how in ("chmodded", "flipped", "emptied"):
        expected = [[], [str(path.relative_to(store.root))]]  # a mode is nothing to them, another day may be one
    else:
        expected = [[str(path.relative_to(store.root))]]
    assert names(store) in expected
    fsck(store.root, repair=True)
    assert names(store) == []
    again = Store(store.root)
    layer = built(again, "layer")
    image(again, "zones/web", [layer, built(again, "other")])
    image(again, "zones/db", [layer])
    assert {name: item.digest for name, item in again.tags().items()} == digests
    assert names(again) == []
    assert again.read(layer.digest) == b"layer" * 100


@pytest.mark.parametrize("how", DAMAGES)
def test_no_reader_gets_damaged_bytes_and_the_next_build_heals_them(store: Store, tmp_path: Path, how: str) -> None:
    layer = built(store, "layer")
    damage(store.path(layer.digest), how, tmp_path / "elsewhere")
    reader = Store(store.root)
    try:
        assert reader.read(layer.digest) == b"layer" * 100  # a wrong mode changes no byte
        assert how == "chmodded"
    except StoreDamaged as error:
        assert str(layer.digest) in str(error)
    assert built(Store(store.root), "layer") == layer
    assert Store(store.root).read(layer.digest) == b"layer" * 100


def test_thousand_random_flips_are_all_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    chance = random.Random(20250101)
    blobs = [store.put(chance.randbytes(chance.randrange(1, 3000))) for _ in range(100)]
    missed = 0
    for _ in range(10):  # a flip in each of the hundred blobs, ten times
        originals = {}
        for blob in blobs:
            path = store.path(blob.digest)
            originals[path] = data = path.read_bytes()
            at = chance.randrange(len(data))
            path.chmod(0o644)
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
            path.chmod(0o444)
        found = set(names(store))
        missed += sum(str(path.relative_to(store.root)) not in found for path in originals)
        assert len(found) == len(blobs)
        for path, data in originals.items():
            path.chmod(0o644)
            path.write_bytes(data)
            path.chmod(0o444)
    assert missed == 0
    assert names(store) == []


def test_every_single_flipped_byte_of_result_and_index_is_found(store: Store) -> None:
    for path in (kinds(store)["result"], kinds(store)["index.json"], kinds(store)["format"]):
        data = path.read_bytes()
        for at in range(len(data)):
            write_atomic(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert names(store) == [str(path.relative_to(store.root))], at
        write_atomic(path, data)
    assert names(store) == []


def test_damage_to_several_things_is_listed_by_each(store: Store) -> None:
    some = kinds(store)
    for kind in ("blob", "result", "oci-layout"):
        damage(some[kind], "flipped")
    (store.blobs / "stranger").write_bytes(b"x")
    (store.root / "blobs" / "md5").mkdir()
    (store.locks / "lock").write_bytes(b"x")
    (store.tmp / "link").symlink_to("/nowhere")
    (store.root / "notes.txt").write_bytes(b"x")
    (store.results / "notes.txt").write_bytes(b"x")
    expected = [some["blob"], some["result"], some["oci-layout"], store.blobs / "stranger", store.root / "blobs/md5"]
    expected += [store.locks / "lock", store.tmp / "link", store.root / "notes.txt", store.results / "notes.txt"]
    assert names(store) == sorted(str(path.relative_to(store.root)) for path in expected)
    fsck(store.root, repair=True)
    assert names(store) == ["notes.txt"]  # what was never the store's own is left alone


def test_missing_blob_is_named_with_what_names_it(store: Store) -> None:
    layer = built(store, "layer")
    store.path(layer.digest).unlink()
    (item,) = fsck(store.root, repair=True)
    assert item.name == f"blobs/sha256/{layer.digest.hex}"
    assert item.problem.startswith("is missing; results/") and "and 2 more names it" in item.problem
    assert names(store) == [] and Store(store.root).tags() == {}


def test_index_that_is_no_index_stops_what_needs_names_with_the_remedy(store: Store) -> None:
    (store.root / "index.json").write_bytes(b"{")
    with pytest.raises(StoreDamaged, match="zone store fsck --repair"):
        Store(store.root).tags()
    fsck(store.root, repair=True)
    assert Store(store.root).tags() == {}


def test_name_that_a_build_gives_while_objects_are_hashed_outlives_the_repair(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.root / "index.json"
    write_atomic(path, path.read_bytes() + b"\n")
    look = fsck_module._Check._blobs

    def beside_a_build(check: fsck_module._Check) -> object:
        image(Store(store.root), "zones/new", [])
        write_atomic(path, path.read_bytes() + b"\n")
        return look(check)

    with monkeypatch.context() as patched:
        patched.setattr(fsck_module._Check, "_blobs", beside_a_build)
        fsck(store.root, repair=True)
    assert sorted(Store(store.root).tags()) == ["zones/db", "zones/new", "zones/web"]
    assert names(store) == []


def test_names_that_another_program_gave_are_kept(store: Store) -> None:
    manifest = store.tags()["zones/web"]
    document = (store.root / "index.json").read_bytes().replace(b"zones/db", b"zones/xx")
    write_atomic(store.root / "index.json", document)
    assert names(store) == ["index.json"]
    fsck(store.root, repair=True)
    assert sorted(Store(store.root).tags()) == ["zones/web", "zones/xx"]
    assert manifest.digest == Store(store.root).tags()["zones/web"].digest


def test_store_of_a_newer_or_older_form_is_refused_and_left_as_it_is(store: Store) -> None:
    for number, word in ((2, "newer version"), (0, "no longer reads")):
        write_atomic(store.root / "format", format_document(number))
        before = tree(store.root)
        for use in (Store, fsck, lambda root: fsck(root, repair=True)):
            with pytest.raises(StoreUnfit, match=word):
                use(store.root)
        assert tree(store.root) == before


def test_what_is_no_store_is_refused_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    with pytest.raises(StoreUnfit, match="expected a store"):
        fsck(tmp_path, repair=True)
    assert sorted(os.listdir(tmp_path)) == ["letters"]


def test_store_moved_elsewhere_is_in_order(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "elsewhere", symlinks=True)
    assert names(Store(tmp_path / "elsewhere")) == []
