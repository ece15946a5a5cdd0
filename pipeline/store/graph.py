"""What names what in a store: names and results lead to blobs, and some blobs (indexes, manifests) to more of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.oci import Descriptor, Digest, parse_json
from pipeline.store.documents import checked_result
from pipeline.store.store import Store

DOCUMENT_MAX_BYTES = 4 << 20
BLOCK_BYTES = 512  # what st_blocks counts, on every file system


@dataclass
class Graph:
    """One look at a store. media: what each blob was called by those that name it."""

    store: Store
    media: dict[Digest, str] = field(default_factory=dict)
    _children: dict[Digest, frozenset[Digest]] = field(default_factory=dict)

    def closure(self, digests: Iterable[Digest], known: set[Digest] | None = None) -> set[Digest]:
        """The digests and all they lead to; what is in `known` is neither followed nor given."""
        found: set[Digest] = set()
        waiting = list(digests)
        while waiting:
            digest = waiting.pop()
            if digest not in found and (known is None or digest not in known):
                found.add(digest)
                waiting += self.children(digest)
        return found

    def children(self, digest: Digest) -> frozenset[Digest]:
        """What an index, a manifest or another document of descriptors names; nothing for any other blob."""
        if digest not in self._children:
            self._children[digest] = frozenset(self.note(descriptors_of(self._document(digest))))
        return self._children[digest]

    def note(self, descriptors: Iterable[Descriptor]) -> Iterator[Digest]:
        """Their digests; their media types are remembered."""
        for item in descriptors:
            if item.media_type:
                self.media.setdefault(item.digest, item.media_type)
            yield item.digest

    def _document(self, digest: Digest) -> Any:
        # By its bytes, not by its media type: a lease or a lock file gives digests alone.
        try:
            with open(self.store.path(digest), "rb") as file:
                if os.fstat(file.fileno()).st_size > DOCUMENT_MAX_BYTES or file.read(1) != b"{":
                    return None
                data = b"{" + file.read()
            if hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
                return None
            return parse_json(data, subject=str(digest))
        except (OSError, PipelineError):
            return None


def descriptors_of(document: Any) -> Iterator[Descriptor]:
    """Every descriptor in a JSON document, however deep: whatever has a media type, a digest and a size."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if {"mediaType", "digest", "size"} <= value.keys():
                with contextlib.suppress(PipelineError):
                    yield Descriptor.from_json(value)
            waiting += value.values()


def blobs(store: Store) -> dict[Digest, int]:
    """Every blob that is a file with a digest for a name, and how much of the disk it takes, in bytes."""
    found: dict[Digest, int] = {}
    for path in blob_paths(store):
        with contextlib.suppress(PipelineError, FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[Digest.parse(f"{path.parent.name}:{path.name}")] = status.st_blocks * BLOCK_BYTES
    return found


def blob_paths(store: Store) -> Iterator[Path]:
    """Whatever lies where blobs lie."""
    for directory in sorted((store.root / "blobs").iterdir()):
        if directory.is_dir() and not directory.is_symlink():
            yield from sorted(directory.iterdir())


def results(store: Store) -> dict[str, list[Descriptor]]:
    """Action key -> the blobs its result names; unusable files are left out."""
    found: dict[str, list[Descriptor]] = {}
    for path in store.results.glob("*.json"):
        document = read_result(path)
        if document is not None:
            found[path.stem] = list(descriptors_of(document))
    return found


def read_result(path: Path) -> Any | None:
    """The result in a file, or None where it was altered or is gone."""
    try:
        return checked_result(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None


def checkouts(store: Store) -> Iterator[Path]:
    """The checkouts that build into this store and are still there."""
    for path in store.checkouts.iterdir():
        with contextlib.suppress(OSError):
            checkout = Path(os.fsdecode(path.read_bytes().rstrip(b"\n")))
            if checkout.is_dir():
                yield checkout


def locked(checkout: Path) -> Iterator[Digest]:
    """The digests in a checkout's locks: images by their manifests, packages by their files."""
    for path in (checkout / "images.lock.json", *checkout.glob("build/lock/*.json")):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            yield from _digests_in(json.loads(path.read_bytes()))


def _digests_in(value: Any) -> Iterator[Digest]:
    """Every string of a document that is a digest; `sha256` keys hold bare hex."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _digests_in(f"sha256:{item}" if key == "sha256" and isinstance(item, str) else item)
    elif isinstance(value, list):
        for item in value:
            yield from _digests_in(item)
    elif isinstance(value, str):
        with contextlib.suppress(PipelineError):
            yield Digest.parse(value)


def built(checkout: Path) -> Iterator[Digest]:
    """The blobs that the result files of a checkout name."""
    for path in checkout.glob("build/*/*.json"):
        if path.parent.name != "lock":
            with contextlib.suppress(OSError, ValueError, RecursionError):
                yield from (item.digest for item in descriptors_of(json.loads(path.read_bytes())))


def disk_bytes(path: Path) -> int:
    """What a file, or a directory with all in it, takes of the disk."""
    total = 0
    for place in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            total += place.lstat().st_blocks * BLOCK_BYTES
    return total
