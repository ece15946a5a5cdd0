"""A root file system as entries: read from mmdebstrap's tar, cleaned of what belongs to the building host, compared.

Only tars this project has just had made are read here, so Python's tarfile will do; images of others go through the
strict reader of pipeline.unpack.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

WHITEOUT = ".wh."

# What a build leaves behind that says something about its host or its moment, or that no container brings itself.
# Source: mmdebstrap(1), SOURCE_DATE_EPOCH (resolv.conf, hostname); OCI runtime specification, "Default Devices".
LEFTOVERS = (
    "/dev/*",
    "/proc/*",
    "/sys/*",
    "/run/*",
    "/tmp/*",
    "/etc/.pwd.lock",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/0000*",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/etc/*-",
    "/var/cache/apt/*",
    "/var/cache/debconf/*-old",
    "/var/cache/ldconfig/*",
    "/var/lib/apt/lists/*",
    "/var/lib/dpkg/*-old",
    "/var/lib/dpkg/lock*",
    "/var/lib/dpkg/triggers/Lock",
    "/var/lib/systemd/*",
    "/var/log/*.log",
    "/var/log/apt/*",
)


@dataclass(frozen=True)
class Entry:
    """One name of a root, with where its bytes are.

    path:   without a leading slash. group: all names of a hardlinked file, sorted; the first one carries the bytes.
    digest: sha256 of a regular file's bytes. offset: where they begin in `tar`; content: or the bytes themselves.
    """

    path: str
    kind: bytes  # a tar typeflag
    mode: int
    mtime: int
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    digest: str = ""
    linkname: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    group: tuple[str, ...] = ()
    tar: Path | None = field(default=None, compare=False)
    offset: int = field(default=0, compare=False)
    content: bytes = field(default=b"", compare=False)

    @property
    def is_dir(self) -> bool:
        return self.kind == tarfile.DIRTYPE


Root = dict[str, Entry]


def file(path: str, content: bytes, mtime: int, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    """A regular file with its bytes; root's unless said otherwise."""
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    return Entry(path, tarfile.REGTYPE, mode, mtime, uid, gid, size_bytes=size, digest=digest, content=content)


def symlink(path: str, target: str, mtime: int) -> Entry:
    """A symbolic link of root's."""
    return Entry(path, tarfile.SYMTYPE, 0o777, mtime, linkname=target)


def directory(path: str, mtime: int, *, mode: int = 0o755) -> Entry:
    """A directory of root's."""
    return Entry(path, tarfile.DIRTYPE, mode, mtime)


def add(root: Root, entries: Iterable[Entry]) -> None:
    """Put entries in place of what has their names; parents that are missing become plain directories."""
    for entry in entries:
        parts = entry.path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in root:
                root[parent] = directory(parent, entry.mtime)
        root[entry.path] = entry


def in_order(root: Root) -> list[Entry]:
    """The entries of a root as archives hold them."""
    return [root[path] for path in sorted(root, key=order)]


def order(path: str) -> list[bytes]:
    """Sort key: parents before children, siblings by the bytes of their names."""
    return os.fsencode(path).split(b"/")


def excluded(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches `/path` where a pattern matches it or one of its parents; `*` matches slashes, too, as in dpkg."""
    alternatives = "|".join(fnmatch.translate(pattern).removesuffix(r"\Z") for pattern in patterns)
    return re.compile(rf"(?:{alternatives})(?:/.*)?\Z" if alternatives else r"(?!)", re.DOTALL)


def read_root(path: Path, *, exclude: Sequence[str] = ()) -> Root:
    """The entries of a tar that mmdebstrap made, without leftovers and what `exclude` matches.

    Effects: hashes every file; keeps offsets into `path`, which must stay until the layers are written.
    """
    dropped = excluded([*LEFTOVERS, *exclude])
    root: Root = {}
    links: dict[str, str] = {}
    with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as archive, open(path, "rb") as data:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            if name in ("", ".") or dropped.match("/" + name):
                continue
            if member.islnk():
                links[name] = member.linkname.removeprefix("./").lstrip("/")
                continue
            root[name] = _entry(name, member, path, data.fileno())
    return _with_hardlinks(root, links)


def _entry(name: str, member: tarfile.TarInfo, tar: Path, fd: int) -> Entry:
    prefix = "SCHILY.xattr."
    xattrs = {
        key.removeprefix(prefix): os.fsencode(value)
        for key, value in member.pax_headers.items()
        if key.startswith(prefix)
    }
    regular = member.isreg()
    return Entry(
        path=name,
        kind=tarfile.REGTYPE if regular else member.type,
        mode=stat.S_IMODE(member.mode),
        mtime=int(member.mtime),
        uid=member.uid,
        gid=member.gid,
        size_bytes=member.size if regular else 0,
        digest=_hash(fd, member.offset_data, member.size) if regular else "",
        linkname=member.linkname if member.issym() else "",
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        xattrs=tuple(sorted(xattrs.items())),
        tar=tar,
        offset=member.offset_data,
    )


def _hash(fd: int, offset: int, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        chunk = os.pread(fd, min(size, 1 << 20), offset)
        digest.update(chunk)
        offset, size = offset + len(chunk), size - len(chunk)
    return digest.hexdigest()


def _with_hardlinks(root: Root, links: Mapping[str, str]) -> Root:
    """Give all names of one file the same metadata, and let the name that sorts first carry it.

    A link whose first name was excluded has no bytes of its own left: the pattern hid both.
    """
    groups: dict[str, list[str]] = {}
    for name, target in links.items():
        if target in root:
            groups.setdefault(target, [target]).append(name)
    for target, group in groups.items():
        names = tuple(sorted(group, key=order))
        for name in names:
            root[name] = replace(root[target], path=name, group=names)
    return root


def difference(lower: Mapping[str, Entry], upper: Mapping[str, Entry], *, epoch: int) -> list[Entry]:
    """What has to lie on `lower` to get `upper`: changed and new entries, whiteouts for what is gone; sorted.

    A name of a hardlinked file differs when any name of it does, so that no link leads out of its layer.
    Source:  OCI image specification, layer.md, "Representing Changes".
    """
    changes = [entry for path, entry in upper.items() if lower.get(path) != entry]
    for path in lower:
        parent, _, name = path.rpartition("/")
        if path not in upper and (not parent or (parent in upper and upper[parent].is_dir and parent in lower)):
            marker = f"{parent}/{WHITEOUT}{name}" if parent else f"{WHITEOUT}{name}"
            changes.append(file(marker, b"", epoch, mode=0o600))
    return sorted(changes, key=lambda entry: order(entry.path))
