"""What changed between two merged images, by path: type, mode, owner, size, content, target, device, xattrs.

Both trees come in one order, so they are compared as they are read. Contents are hashed only where the sizes are equal
and the bytes are not the very same ones of one layer; layers without such a file are not even inflated.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline import unpack
from pipeline.env import Env
from pipeline.fetch.model import FetchResult
from pipeline.layers import Layer, Spools
from pipeline.rootfs import Rootfs
from pipeline.tree import Entry, Kind

RUN_KEYS = ("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "ExposedPorts", "Volumes", "Labels", "StopSignal")


@dataclass(frozen=True)
class Change:
    """One path that is not the same in both. how: added, removed or changed.

    differs: of a changed path, what was and what is; None where one side has none.
    entry:   of an added or removed one, what it is.
    """

    path: bytes
    how: str
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    entry: Entry | None = None


@dataclass
class Difference:
    """What `changes` have been given out so far, counted. mtime_only: paths left out, as nothing but mtime differs."""

    config: dict[str, tuple[Any, Any]]
    changes: Iterator[Change]
    counts: Counter[str] = field(default_factory=Counter)
    mtime_only: int = 0

    @property
    def equal(self) -> bool:
        """Once every change was given out: is there none?"""
        return not self.config and not self.counts


Hasher = Callable[[Entry], str]


def diff_images(left: FetchResult, right: FetchResult, env: Env, spools: Spools, *, mtime: bool = False) -> Difference:
    """Compare two images of the store; `changes` is to be used while `spools` is open.

    mtime:   compare times of modification too.
    Raises:  what unpacking raises, here and while `changes` is read.
    """
    trees = [unpack.run(unpack.UnpackParams(image), env, spools) for image in (left, right)]
    roots = [unpack.open_rootfs(env.store, tree, spools) for tree in trees]
    result = Difference(_config(left, right, env), iter(()))
    result.changes = _counted(result, _changes(roots, [tree.layers for tree in trees]), mtime)
    return result


def _config(left: FetchResult, right: FetchResult, env: Env) -> dict[str, tuple[Any, Any]]:
    """How to run it: the keys that differ."""
    found = []
    for image in (left, right):
        document = env.store.read_json(image.config.digest)
        run = document.get("config") if isinstance(document, dict) else None
        found.append(run if isinstance(run, dict) else {})
    pairs = ((key, found[0].get(key) or None, found[1].get(key) or None) for key in RUN_KEYS)
    return {key: (was, now) for key, was, now in pairs if was != now}


def _counted(result: Difference, changes: Iterable[Change], mtime: bool) -> Iterator[Change]:
    for change in changes:
        if not mtime and "mtime" in change.differs:
            change.differs.pop("mtime")
            if not change.differs:
                result.mtime_only += 1
                continue
        result.counts[change.how] += 1
        yield change


def _changes(roots: list[Rootfs], layers: list[tuple[Layer, ...]]) -> Iterator[Change]:
    hashers = [_hasher(root) for root in roots]
    places = [_place_of(own) for own in layers]
    for left, right in paired(*(_resolved(root) for root in roots)):
        if left is None or right is None:
            name, one = left or right or (b"", None)
            yield Change(name, "removed" if right is None else "added", entry=one)
            continue
        same_bytes = places[0](left[1]) == places[1](right[1])
        differs = _differs(left, right, None if same_bytes else hashers)
        if differs:
            yield Change(left[0], "changed", differs)


Named = tuple[bytes, Entry]


def _resolved(root: Rootfs) -> Iterator[Named]:
    """Every path with the entry that has its node: a hardlink's is that of the first name."""
    targets = {entry.target for entry in root.entries() if entry.kind is Kind.HARDLINK}
    firsts: dict[bytes, Entry] = {}
    for entry in root.entries():
        if entry.path in targets:
            firsts[entry.path] = entry
        yield entry.path, firsts[entry.target] if entry.kind is Kind.HARDLINK else entry


def paired(left: Iterable[Named], right: Iterable[Named]) -> Iterator[tuple[Named | None, Named | None]]:
    """Two sequences in tree order side by side: (a, b) where both have the path, else (a, None) or (None, b)."""
    lefts, rights = iter(left), iter(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None or other is not None:
        if other is None or (one is not None and _order(one) < _order(other)):
            yield one, None
            one = next(lefts, None)
        elif one is None or _order(other) < _order(one):
            yield None, other
            other = next(rights, None)
        else:
            yield one, other
            one, other = next(lefts, None), next(rights, None)


def _order(named: Named) -> list[bytes]:
    return named[0].split(b"/") if named[0] else []


def _differs(left: Named, right: Named, hashers: list[Hasher] | None) -> dict[str, tuple[Any, Any]]:
    was, now = left[1], right[1]
    differs: dict[str, tuple[Any, Any]] = {}

    def note(what: str, one: Any, other: Any) -> None:
        if one != other:
            differs[what] = (one, other)

    note("type", was.kind.name.lower(), now.kind.name.lower())
    if was.kind is now.kind:
        if was.kind is Kind.SYMLINK:
            note("target", was.target, now.target)
        if was.kind in (Kind.CHAR, Kind.BLOCK):
            note("device", f"{was.major}:{was.minor}", f"{now.major}:{now.minor}")
        if was.kind is Kind.FILE:
            note("size", was.size_bytes, now.size_bytes)
            if not differs and hashers is not None and was.size_bytes:
                note("content", hashers[0](was), hashers[1](now))
    if Kind.SYMLINK not in (was.kind, now.kind):  # a symlink's mode means nothing
        note("mode", f"{was.mode:04o}", f"{now.mode:04o}")
    note("owner", f"{was.uid}:{was.gid}", f"{now.uid}:{now.gid}")
    note("xattrs", was.xattrs, now.xattrs)
    links = [entry.path if entry.path != path else None for path, entry in (left, right)]
    note("hardlink", links[0], links[1])
    note("mtime", was.mtime_ns, now.mtime_ns)
    return differs


def _place_of(layers: tuple[Layer, ...]) -> Callable[[Entry], Any]:
    """Where an entry's bytes lie, said so that it is the same in every image that has the layer."""

    def place(entry: Entry) -> Any:
        if entry.kind is not Kind.FILE or not entry.size_bytes:
            return None
        return layers[entry.layer].diff_id, entry.offset, entry.size_bytes, entry.extents

    return place


def _hasher(root: Rootfs) -> Hasher:
    def digest(entry: Entry) -> str:
        seen = hashlib.sha256()
        root.copy(entry, seen.update)
        return f"sha256:{seen.hexdigest()}"

    return digest


# -- as JSON -----------------------------------------------------------------------------------------------------------


def change_json(change: Change) -> dict[str, Any]:
    """A change as JSON. Bytes that are no UTF-8 text are {"base64": …}, values of xattrs always are base64."""
    document: dict[str, Any] = {"path": text_json(change.path), "change": change.how}
    if change.entry is not None:
        document |= entry_json(change.entry)
    if change.differs:
        document["differs"] = {
            what: {"from": _value(what, was), "to": _value(what, now)} for what, (was, now) in change.differs.items()
        }
    return document


def entry_json(entry: Entry) -> dict[str, Any]:
    """What an entry is, without its path."""
    document: dict[str, Any] = {
        "type": entry.kind.name.lower(),
        "mode": f"{entry.mode:04o}",
        "owner": f"{entry.uid}:{entry.gid}",
        "mtime": entry.mtime_ns,
    }
    if entry.kind is Kind.FILE:
        document["size"] = entry.size_bytes
    if entry.target:
        document["target"] = text_json(entry.target)
    if entry.kind in (Kind.CHAR, Kind.BLOCK):
        document["device"] = f"{entry.major}:{entry.minor}"
    if entry.xattrs:
        document["xattrs"] = _value("xattrs", entry.xattrs)
    return document


def text_json(name: bytes) -> Any:
    """A name as JSON text, or {"base64": …} where it is no UTF-8."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(name).decode()}


def _value(what: str, value: Any) -> Any:
    if what == "xattrs":
        return {key.decode("utf-8", "backslashreplace"): base64.b64encode(data).decode() for key, data in value.items()}
    return text_json(value) if isinstance(value, bytes) else value
