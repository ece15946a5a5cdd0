"""All there is to know about each name of a tree, the same form for ours, for expectations, and for a mounted one."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import unpack
from pipeline.env import Env
from pipeline.layers import Spools
from pipeline.tree import Entry, Kind

DEFAULT_MODES = {"d": 0o755, "l": 0o777}
KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}


@dataclass(frozen=True)
class Fact:
    """One name. names: all of a hardlinked node, so their number is its link count; of a directory only its own."""

    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    names: tuple[bytes, ...] = ()
    sha256: str = ""
    rdev: tuple[int, int] = (0, 0)


Facts = dict[bytes, Fact]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def with_names(found: dict[bytes, tuple[Any, Fact]]) -> Facts:
    """Facts that know their link groups, from path -> (what tells nodes apart, fact)."""
    groups: dict[Any, list[bytes]] = defaultdict(list)
    for path, (node, _) in found.items():
        groups[node].append(path)
    return {path: replace(fact, names=tuple(sorted(groups[node]))) for path, (node, fact) in found.items()}


def expected(tree: Mapping[str, Any]) -> Facts:
    """What a tree in short is: see `support.unpacking.tree`. A pair ("f x", {"mode": 0o600}) says more than the short.

    Names and contents are Latin-1 text, so that any bytes can be written; the root is there unless given.
    """
    found: dict[bytes, tuple[Any, Fact]] = {}
    for path, what in {"": "d", **tree}.items():
        short, more = what if isinstance(what, tuple) else (what, {})
        kind, _, rest = short.partition(" ")
        name, value = path.encode("latin-1"), rest.encode("latin-1")
        if kind == "=":
            found[name] = (value, found[value][1])
            continue
        fact = Fact(kind, DEFAULT_MODES.get(kind, 0o644))
        if kind == "f":
            fact = replace(fact, sha256=digest(value))
        elif kind == "l":
            fact = replace(fact, target=value)
        elif kind in "cb":
            major, minor = rest.split(":")
            fact = replace(fact, rdev=(int(major), int(minor)))
        found[name] = (name, replace(fact, **more))
    return with_names(found)


def of_tree(result: unpack.UnpackResult, env: Env) -> Facts:
    """What our merged tree says."""
    found: dict[bytes, tuple[Any, Fact]] = {}
    with Spools(env.store) as spools:
        rootfs = unpack.open_rootfs(env.store, result, spools)
        for entry in rootfs.entries():
            if entry.kind is Kind.HARDLINK:
                found[entry.path] = (entry.target, found[entry.target][1])
                continue
            seen = hashlib.sha256()
            if entry.kind is Kind.FILE:
                rootfs.copy(entry, seen.update)
            found[entry.path] = (entry.path, _fact(entry, seen.hexdigest()))
    return with_names(found)


def _fact(entry: Entry, content: str) -> Fact:
    return Fact(
        entry.kind.value,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.target,
        tuple(sorted(entry.xattrs.items())),
        (),
        content if entry.kind is Kind.FILE else "",
        (entry.major, entry.minor),
    )


def of_directory(root: Path) -> Facts:
    """What lies in a directory: an extracted or mounted image. Reads owners and xattrs as they are there."""
    found: dict[bytes, tuple[Any, Fact]] = {}
    top = os.fsencode(root)
    todo = [b""]
    while todo:
        name = todo.pop()
        path = os.path.join(top, name) if name else top
        status = os.lstat(path)
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in "cb" else (0, 0)
        fact = Fact(
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            os.readlink(path) if kind == "l" else b"",
            xattrs(path),
            (),
            digest(Path(os.fsdecode(path)).read_bytes()) if kind == "f" else "",
            device,
        )
        found[name] = (name if kind == "d" else status.st_ino, fact)
        if kind == "d":
            todo += [os.path.join(name, child) if name else child for child in os.listdir(path)]
    return with_names(found)


def xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """A file's extended attributes, but for those that belong to this machine."""
    names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    kept = [name for name in names if not name.startswith((b"security.selinux", b"trusted.overlay."))]
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in kept)


def as_squashfs_holds(facts: Facts) -> Facts:
    """The same with whole seconds from 1970 to 2106."""
    return {
        path: replace(fact, mtime_ns=min(max(fact.mtime_ns // 10**9, 0), 2**32 - 1) * 10**9)
        for path, fact in facts.items()
    }
