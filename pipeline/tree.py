"""Entries, and their document form: a layer's index, a merged image tree.

The first line is a header, every other one a JSON list of some hundred entries, each a list of its fields.
Names are bytes: they travel as UTF-8 with surrogate escapes, which gives every byte string exactly one text form and
back. Contents are not in the document; `layer`, `offset` and `size_bytes` say where they lie in the inflated layers.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.errors import PipelineError, StoreDamaged
from pipeline.oci import Descriptor
from pipeline.store import Store

MEDIA_TYPE = "application/vnd.zonewright.tree.v2+jsonl"
HEADER = {"format": "zonewright-tree", "version": 2}
ENTRIES_PER_LINE = 256


class Kind(StrEnum):
    """What a name stands for. A HARDLINK's target is the path that carries the node, without a leading slash."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    CHAR = "c"
    BLOCK = "b"
    FIFO = "p"


@dataclass(slots=True)
class Entry:
    """One name of a layer or of a merged tree; the root's path is empty.

    extents: for a sparse file, (offset, length) of its pieces in the file; their bytes follow one another at `offset`.
    offset:  of the data in the inflated layer number `layer`.
    Units:   bytes; mtime in nanoseconds of the epoch.
    """

    path: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    major: int = 0
    minor: int = 0
    layer: int = 0
    offset: int = 0
    size_bytes: int = 0
    extents: tuple[tuple[int, int], ...] | None = None


_KINDS = {kind.value: kind for kind in Kind}


class BadTree(PipelineError):
    """A tree document this version cannot read."""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def printable(path: bytes) -> str:
    """A path for an error or a log: control and undecodable bytes escaped."""
    return path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")[:300]


def _fields(entry: Entry) -> list[Any]:
    fields: list[Any] = [
        _text(entry.path),
        entry.kind.value,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        _text(entry.target),
        entry.layer,
        entry.offset,
        entry.size_bytes,
    ]
    if entry.xattrs or entry.extents is not None or entry.major or entry.minor:
        xattrs = {_text(key): base64.b64encode(value).decode() for key, value in sorted(entry.xattrs.items())}
        fields += [xattrs, entry.extents, entry.major, entry.minor]
    return fields


def _entry(fields: list[Any]) -> Entry:
    path, kind, mode, uid, gid, mtime_ns, target, layer, offset, size_bytes, *more = fields
    entry = Entry(_bytes(path), _KINDS[kind], mode, uid, gid, mtime_ns, _bytes(target))
    entry.layer, entry.offset, entry.size_bytes = layer, offset, size_bytes
    if more:
        xattrs, extents, entry.major, entry.minor = more
        entry.xattrs = {_bytes(key): base64.b64decode(value) for key, value in xattrs.items()}
        entry.extents = None if extents is None else tuple((start, length) for start, length in extents)
    return entry


def write_tree(store: Store, entries: Iterable[Entry]) -> Descriptor:
    """Store entries as a document. Effects: one new blob."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    with store.writer() as writer:
        writer.write(json.dumps(HEADER, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        fields = map(_fields, entries)
        while line := list(itertools.islice(fields, ENTRIES_PER_LINE)):
            writer.write(encode(line).encode() + b"\n")
        return writer.commit(media_type=MEDIA_TYPE)


def read_tree(store: Store, descriptor: Descriptor) -> Iterator[Entry]:
    """The entries of a document, verified before the first is given.

    Raises:  StoreDamaged, BadTree.
    """
    if not store.verify(descriptor.digest):
        raise StoreDamaged(f"tree {descriptor.digest}", expected="intact", got="missing or altered", hint="run again")
    with open(store.path(descriptor.digest), "rb") as lines:
        if json.loads(next(lines, b"null")) != HEADER:
            raise BadTree(f"tree {descriptor.digest}", expected=f"the header {HEADER}", got="another")
        for line in lines:
            yield from map(_entry, json.loads(line))
