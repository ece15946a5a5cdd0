"""`zone store du`: what of a store takes how much, by kind and by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.oci import Digest
from pipeline.store import graph as storegraph
from pipeline.store.store import Store

SNAPSHOTS, PACKAGE_LISTS = "lab/snapshots", "apt"
# Media type -> kind, by the first that is in it; what only `os/` names is of the dom0 before that.
KINDS = (
    ("image.layer", "image layers"),
    ("rootfs.diff", "image layers"),
    ("image.manifest", "image documents"),
    ("image.index", "image documents"),
    ("image.config", "image documents"),
    ("container.image", "image documents"),
    ("manifest.list", "image documents"),
    ("distribution.manifest", "image documents"),
    (".tree.", "trees of files"),
    ("code.", "lab code disks"),
    ("squashfs", "squashfs"),
    ("erofs", "erofs"),
    ("rootfs", "file systems"),
    ("initrd", "initrds"),
    ("kernel", "kernels"),
    ("bundle", "bundles"),
    ("spec", "bundles"),
    ("deb", "Debian packages"),
)
DOM0, BUNDLES, PACKAGES, OTHER = "dom0 of the lab", "bundles", "Debian packages", "other blobs"


@dataclass(frozen=True)
class Usage:
    """What something takes of the disk. own: the part that goes when only this goes."""

    name: str
    objects: int
    size_bytes: int
    own_bytes: int


def by_kind(store: Store) -> list[Usage]:
    """The whole store by kind, largest first; nothing is counted twice."""
    sizes, graph = storegraph.blobs(store), _graph(store)
    named = {name: graph.closure([descriptor.digest]) for name, descriptor in store.tags().items()}
    dom0 = _only(named, lambda name: name.startswith("os/"))
    bundles = {item.digest for name, item in store.tags().items() if name.startswith("zones/")}
    totals: dict[str, list[int]] = {}
    for digest, size in sizes.items():
        if digest in dom0 or digest in bundles:
            kind = DOM0 if digest in dom0 else BUNDLES
        elif digest in graph.media:
            kind = _kind(graph.media[digest])
        else:
            kind = PACKAGES if _is_package(store.path(digest)) else OTHER
        totals.setdefault(kind, []).append(size)
    for kind, path in (
        ("results", "results"),
        ("lab snapshots", SNAPSHOTS),
        ("package lists", PACKAGE_LISTS),
        ("temporary files", "tmp"),
    ):
        directory = store.root / path
        totals[kind] = [storegraph.disk_bytes(item) for item in directory.iterdir()] if directory.is_dir() else []
    usages = [Usage(kind, len(items), sum(items), sum(items)) for kind, items in totals.items() if items]
    return sorted(usages, key=lambda usage: (-usage.size_bytes, usage.name))


def by_name(store: Store) -> list[Usage]:
    """What each name leads to, largest first; then the blobs no name leads to, under ""."""
    sizes, graph = storegraph.blobs(store), storegraph.Graph(store)
    named = {name: graph.closure([item.digest]) & sizes.keys() for name, item in store.tags().items()}
    usages = []
    for name, digests in named.items():
        own = _only(named, lambda other, name=name: other == name)  # type: ignore[misc]
        usages.append(Usage(name, len(digests), _sum(sizes, digests), _sum(sizes, own)))
    usages.sort(key=lambda usage: (-usage.size_bytes, usage.name))
    rest = sizes.keys() - set().union(*named.values())
    return [*usages, Usage("", len(rest), _sum(sizes, rest), _sum(sizes, rest))]


def _graph(store: Store) -> storegraph.Graph:
    """With the media types by which results and names know their blobs."""
    graph = storegraph.Graph(store)
    for blobs in storegraph.results(store).values():
        graph.closure(graph.note(blobs))
    graph.closure(graph.note(store.tags().values()))
    return graph


def _only(named: dict[str, set[Digest]], mine: Callable[[str], bool]) -> set[Digest]:
    """What the names that are `mine` lead to, and no other name does."""
    inside = [digests for name, digests in named.items() if mine(name)]
    outside = [digests for name, digests in named.items() if not mine(name)]
    return set().union(*inside) - set().union(*outside)


def _kind(media_type: str) -> str:
    return next((kind for part, kind in KINDS if part in media_type), OTHER)


def _is_package(path: Path) -> bool:
    """Locks name packages by digest alone. Source: deb(5): an ar archive."""
    try:
        with open(path, "rb") as file:
            return file.read(8) == b"!<arch>\n"
    except OSError:
        return False


def _sum(sizes: dict[Digest, int], digests: set[Digest]) -> int:
    return sum(sizes[digest] for digest in digests)
