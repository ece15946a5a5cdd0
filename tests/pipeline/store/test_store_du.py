"""`zone store du`: every byte is counted once by kind, and by name it shows what would go with that name alone."""

from __future__ import annotations

from pathlib import Path

from support.stores import built, image

from pipeline.bundle.model import ROOTFS_SQUASHFS
from pipeline.oci import LAYER_GZIP, Descriptor
from pipeline.store import Store
from pipeline.store.diskusage import by_kind, by_name


def filled(root: Path) -> tuple[Store, Descriptor, Descriptor, Descriptor]:
    store = Store(root)
    shared, own, alone = store.put(b"s" * 9000, LAYER_GZIP), store.put(b"o" * 20000, ROOTFS_SQUASHFS), built(store, "a")
    image(store, "recipe/one", [shared, own])
    image(store, "recipe/two", [shared])
    image(store, "os/debian12", [store.put(b"d" * 5000)])
    store.put(b"!<arch>\ndebian-binary")
    return store, shared, own, alone


def on_disk(store: Store, *blobs: Descriptor) -> int:
    return sum(store.path(blob.digest).stat().st_blocks * 512 for blob in blobs)


def test_kinds_add_up_to_the_whole_store(tmp_path: Path) -> None:
    store, shared, own, _ = filled(tmp_path / "store")
    kinds = {usage.name: usage for usage in by_kind(store)}
    assert kinds["image layers"].size_bytes == on_disk(store, shared)
    assert kinds["squashfs"].size_bytes == on_disk(store, own)
    assert kinds["dom0 of the lab"].objects == 2
    assert kinds["Debian packages"].objects == 1 and kinds["results"].objects == 1
    files = [path for part in ("blobs/sha256", "results", "tmp") for path in (store.root / part).iterdir()]
    assert sum(usage.size_bytes for usage in kinds.values()) == sum(path.stat().st_blocks * 512 for path in files)


def test_own_bytes_of_a_name_are_those_no_other_name_leads_to(tmp_path: Path) -> None:
    store, shared, own, alone = filled(tmp_path / "store")
    names = {usage.name: usage for usage in by_name(store)}
    one, two, tags = names["recipe/one"], names["recipe/two"], store.tags()
    assert one.own_bytes == on_disk(store, own, tags["recipe/one"])
    assert two.own_bytes == on_disk(store, tags["recipe/two"])
    assert one.size_bytes - one.own_bytes == two.size_bytes - two.own_bytes > on_disk(store, shared)
    assert names[""].objects == 2 and names[""].size_bytes > on_disk(store, alone)


def test_empty_store_is_shown_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert by_kind(store) == [] and [usage.objects for usage in by_name(store)] == [0]
