"""One squashfs for a zone's second disk: the kernel's addons and the trees of extensions, merged on their metadata."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.addons import Addons
from pipeline.bundle.model import ADDONS_SQUASHFS
from pipeline.errors import StoreDamaged
from pipeline.extension.model import ExtensionResult
from pipeline.kmodule import SUFFIX
from pipeline.layers import Spools
from pipeline.oci import Descriptor
from pipeline.rootfs import Rootfs
from pipeline.squashfs import squash_entries
from pipeline.store import Store
from pipeline.tree import Entry, Kind, read_tree

COMPRESSION = "zstd-15"  # packed once, read in every zone
Content = Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Item:
    """A name and, for a file, where its bytes come from."""

    entry: Entry
    content: Content


def intact_path(store: Store, blob: Descriptor, *, subject: str) -> Path:
    """The file of a blob that is read in place, hashed first. Raises StoreDamaged."""
    if not store.verify(blob.digest):
        raise StoreDamaged(f"{subject} {blob.digest}", expected="intact", got="missing or altered", hint="run again")
    return store.path(blob.digest)


def write_addons(
    store: Store, kernel: Addons | None, plain: Sequence[str], extensions: Sequence[ExtensionResult]
) -> Descriptor:
    """Merge and store. What comes later replaces what was there: clashes have been refused before.

    plain:   names of kernel modules to lie beside their compressed form, for an init without a decompressor.
    Effects: one blob. Nothing is unpacked to disk, apart from the inflated layers that `Spools` holds.
    """
    with contextlib.ExitStack() as stack:
        spools = stack.enter_context(Spools(store))
        merged: dict[bytes, Item] = {}
        for items in (
            _of_kernel(kernel, plain) if kernel else (),
            *(_of_extension(store, extension, spools) for extension in extensions),
        ):
            merged.update((item.entry.path, item) for item in items)
        return squash_entries(store, _in_order(merged), compression=COMPRESSION, media_type=ADDONS_SQUASHFS)


def plain_path(path: str) -> str:
    """Where the plain form of a compressed module lies."""
    return SUFFIX.sub(".ko", path)


def _of_kernel(addons: Addons, plain: Sequence[str]) -> Iterator[Item]:
    for entry in addons.entries():
        path = entry.path.decode("utf-8", "surrogateescape")
        yield Item(entry, lambda path=path: addons.content(path))  # type: ignore[misc]
    for name in plain:
        entry = Entry(plain_path(addons.modules[name]).encode(), Kind.FILE, size_bytes=len(addons.read(name)))
        yield Item(entry, lambda name=name: (addons.read(name),))  # type: ignore[misc]


def _of_extension(store: Store, extension: ExtensionResult, spools: Spools) -> Iterator[Item]:
    assert extension.tree is not None
    rootfs = Rootfs(store, extension.tree, extension.layers, spools)
    for entry in read_tree(store, extension.tree):
        yield Item(entry, lambda entry=entry: rootfs.chunks(entry))  # type: ignore[misc]
    for module in extension.modules:
        if (blob := module.plain) is not None:
            entry = Entry(module.path.encode(), Kind.FILE, size_bytes=blob.size_bytes)
            yield Item(entry, lambda blob=blob: (store.read(blob.digest),))  # type: ignore[misc]


def _in_order(merged: dict[bytes, Item]) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """Parents before what is in them, siblings by name; parents nobody brings are root's."""
    for path in list(merged):
        parts = path.split(b"/")
        for depth in range(len(parts)):
            parent = b"/".join(parts[:depth])
            merged.setdefault(parent, Item(Entry(parent, Kind.DIRECTORY, 0o755), tuple))
    for path in sorted(merged, key=lambda path: path.split(b"/") if path else []):
        item = merged[path]
        content = item.content() if item.entry.kind is Kind.FILE else ()
        yield replace(item.entry, mtime_ns=0), content
