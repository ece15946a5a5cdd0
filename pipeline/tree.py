"""One line per entry: the document form of a layer's index and of a merged image tree.

A line is a JSON list, the first line a header. Names are bytes: they travel as UTF-8 with surrogate escapes, which
gives every byte string exactly one text form and back. Contents are not in the document; `layer`, `offset` and
`size_bytes` say where they lie in the inflated layers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.errors import PipelineError, StoreDamaged
from pipeline.oci import Descriptor
from pipeline.store import Store

MEDIA_TYPE = "application/vnd.zonewright.tree.v1+jsonl"
HEADER = {"format": "zonewright-tree", "version": 1}


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


class BadTree(PipelineError):
    """A tree document this version cannot read."""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def printable(path: bytes) -> str:
    """A path for an error or a log: control and undecodable bytes escaped."""
    return path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")[:300]


def to_line(entry: Entry) -> bytes:
    """One line of the document."""
    xattrs = {_text(key): base64.b64encode(value).decode() for key, value in sorted(entry.xattrs.items())}
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
    if xattrs or entry.extents is not None or entry.major or entry.minor:
        fields += [xattrs, entry.extents, entry.major, entry.minor]
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> Entry:
    """The entry of one line."""
    fields = json.loads(line)
    path, kind, mode, uid, gid, mtime_ns, target, layer, offset, size_bytes = fields[:10]
    entry = Entry(_bytes(path), Kind(kind), mode, uid, gid, mtime_ns, _bytes(target))
    entry.layer, entry.offset, entry.size_bytes = layer, offset, size_bytes
    if len(fields) > 10:
        xattrs, extents, entry.major, entry.minor = fields[10:14]
        entry.xattrs = {_bytes(key): base64.b64decode(value) for key, value in xattrs.items()}
        entry.extents = None if extents is None else tuple((start, length) for start, length in extents)
    return entry


def write_tree(store: Store, entries: Iterable[Entry]) -> Descriptor:
    """Store entries as a document. Effects: one new blob."""
    with store.writer() as writer:
        writer.write(json.dumps(HEADER, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        for entry in entries:
            writer.write(to_line(entry))
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
        yield from map(from_line, lines)
