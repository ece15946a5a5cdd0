"""Where the files of an extension image end up, by its kind and phase; what does not belong there is refused.

| kind     | in the image                 | in the initrd        | on the addons disk                      |
| init     | anything, /init at least     | the same place       | -                                       |
| utils    | initrd: anything; else usr, opt | the same place    | overlays/workload/, laid over the root  |
| modules  | (usr/)lib/modules/RELEASE/   | modules/NAME.ko      | modules/, shown as /lib/modules/RELEASE |
| firmware | (usr/)lib/firmware/          | lib/firmware/        | firmware/                               |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from pipeline import kmodule
from pipeline.extension.errors import BadExtension
from pipeline.extension.model import ExtensionKind, Facts, Phase
from pipeline.tree import Entry, Kind, printable
from pipeline.zonebase import DIRECTORIES, OVERLAY, RESERVED

_BASE = frozenset(name.encode() for name in DIRECTORIES)
_KINDS = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK)
_FIRMWARE = re.compile(rb"(?:usr/)?lib/firmware(?:/(.+))?", re.S)
_MODULES = re.compile(rb"(?:usr/)?lib/modules(?:/([^/]+)(?:/(.+))?)?", re.S)
_PARENT = re.compile(rb"(?:usr|usr/lib|lib)")
# What modules_install and depmod leave beside modules; the host works out the order of loading itself.
_INDEX = re.compile(rb"(?:modules\.[^/]+|build|source)")


def place(facts: Facts, entries: Iterable[Entry], *, subject: str) -> list[Entry]:
    """The entries at their new paths, mtime 0, in the order they came; modules keep their suffix.

    Raises:  BadExtension naming the path.
    """
    rule = _RULES[facts.kind]
    placed = []
    for entry in entries:
        if not entry.path:
            continue
        _check(entry, subject)
        path = rule(facts, entry, subject)
        if path is None:
            continue
        target = entry.target
        if entry.kind is Kind.HARDLINK:
            found = rule(facts, replace(entry, path=target, kind=Kind.FILE), subject)
            if found is None:
                raise _refused(entry, "a hardlink to a file that is placed too", printable(target), subject)
            target = found
        placed.append(replace(entry, path=path, target=target, mtime_ns=0))
    if not any(entry.kind is not Kind.DIRECTORY for entry in placed):
        raise BadExtension(subject, expected=f"{facts.kind.value} in the image", got="no file")
    return _each_once(placed, subject)


def _each_once(placed: list[Entry], subject: str) -> list[Entry]:
    """Two places of the image may become one: /lib/firmware and /usr/lib/firmware."""
    found: dict[bytes, Entry] = {}
    for entry in placed:
        other = found.setdefault(entry.path, entry)
        if other is not entry and not other.kind is entry.kind is Kind.DIRECTORY:
            raise BadExtension(f"{subject}: {printable(entry.path)}", expected="one file for it", got="two")
    return list(found.values())


def _check(entry: Entry, subject: str) -> None:
    """An extension is laid over other things by name: nothing in it may hide or open anything."""
    if entry.kind not in _KINDS:
        raise _refused(entry, "files, directories and symlinks only", f"a {entry.kind.name.lower()} node", subject)
    overlay = [key for key in entry.xattrs if key.startswith((b"trusted.overlay.", b"user.overlay."))]
    if overlay:
        raise _refused(entry, "no attributes of overlay file systems", printable(overlay[0]), subject)


def _refused(entry: Entry, expected: str, got: str, subject: str) -> BadExtension:
    return BadExtension(f"{subject}: /{printable(entry.path)}", expected=expected, got=got)


def _utils(facts: Facts, entry: Entry, subject: str) -> bytes | None:
    if facts.phase is Phase.INITRD:
        return _in_initrd(facts, entry, subject)
    top = entry.path.split(b"/", 1)[0]
    if top not in (b"usr", b"opt") or (entry.path == top and entry.kind is not Kind.DIRECTORY):
        expected = "only what lies below /usr and /opt in utils of the phase addons"
        raise _refused(entry, expected, f"a {entry.kind.name.lower()}", subject)
    return OVERLAY + entry.path


def _in_initrd(facts: Facts, entry: Entry, subject: str) -> bytes | None:
    """Only the base says what /init is and whether /bin and /lib are directories."""
    path = entry.path
    if path in _BASE:
        if entry.kind is not Kind.DIRECTORY:
            raise _refused(entry, "a directory, as the base of every zone has it", "something else", subject)
        return None
    init = facts.kind is ExtensionKind.INIT and path == b"init"
    if not init and (path in RESERVED or path.split(b"/", 1)[0] in RESERVED):
        raise _refused(entry, "nothing where the zone's own init has its files", "it", subject)
    return path


def _modules(facts: Facts, entry: Entry, subject: str) -> bytes | None:
    match = _MODULES.fullmatch(entry.path)
    if match is None or match[2] is None:
        outside = entry.kind is not Kind.DIRECTORY or (match is None and not _PARENT.fullmatch(entry.path))
        if outside:
            expected = f"only what lies below /lib/modules/{facts.kernel_release} in an image of modules"
            raise _refused(entry, expected, f"a {entry.kind.name.lower()}", subject)
        _check_release(facts, entry, match[1] if match else None, subject)
        return None
    _check_release(facts, entry, match[1], subject)
    rest: bytes = match[2]
    if _INDEX.fullmatch(rest):
        return None
    name = rest.rpartition(b"/")[2].decode("utf-8", "replace")
    if entry.kind is Kind.DIRECTORY:
        return None if facts.phase is Phase.INITRD else b"modules/" + rest
    if not kmodule.SUFFIX.search(name) or entry.kind is Kind.SYMLINK:
        raise _refused(entry, "files NAME.ko, also .xz, .gz or .zst", f"a {entry.kind.name.lower()}", subject)
    return b"modules/" + (name.encode() if facts.phase is Phase.INITRD else rest)


def _check_release(facts: Facts, entry: Entry, release: bytes | None, subject: str) -> None:
    if release is not None and release != facts.kernel_release.encode():
        raise _refused(entry, f"modules of the release {facts.kernel_release}", printable(release), subject)


def _firmware(facts: Facts, entry: Entry, subject: str) -> bytes | None:
    match = _FIRMWARE.fullmatch(entry.path)
    if match is None or match[1] is None:
        if entry.kind is not Kind.DIRECTORY or (match is None and not _PARENT.fullmatch(entry.path)):
            expected = "only what lies below /lib/firmware in an image of firmware"
            raise _refused(entry, expected, f"a {entry.kind.name.lower()}", subject)
        return b"lib/firmware" if match and facts.phase is Phase.INITRD else None
    return (b"lib/firmware/" if facts.phase is Phase.INITRD else b"firmware/") + bytes(match[1])


_RULES = {
    ExtensionKind.INIT: _in_initrd,
    ExtensionKind.UTILS: _utils,
    ExtensionKind.MODULES: _modules,
    ExtensionKind.FIRMWARE: _firmware,
}
