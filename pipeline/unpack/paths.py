"""Names in a layer: their normal form, and which of them are whiteouts.

Source:  OCI image specification, layer.md, "Whiteouts".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from pipeline.limits import Limits, limit_hint
from pipeline.tree import printable
from pipeline.unpack.errors import BadPath, LimitExceeded

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."  # AUFS's own files (plnk, orph, aufs), left in old layers


class Mark(Enum):
    """What a name does."""

    NONE = "an entry"
    WHITEOUT = "removes a name of lower layers"
    OPAQUE = "empties a directory of lower layers"
    AUFS = "a leftover of AUFS, to be skipped"


@dataclass(slots=True)
class Place:
    """A name in normal form: directory parts, last part (none for the root), and what the name does."""

    parents: tuple[bytes, ...]
    name: bytes
    mark: Mark = Mark.NONE


def split(path: bytes, limits: Limits, warnings: Counter[str], *, subject: str, strict: bool) -> tuple[bytes, ...]:
    """The parts of a path inside the root: no empty ones, no ".", ".." resolved by name and held at the root.

    Raises:  BadPath, LimitExceeded.
    """
    if not path or b"\0" in path:
        raise BadPath(f"{subject}: entry {printable(path)!r}", expected="a name", got="none, or one with a zero byte")
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            if len(part) > limits.name_bytes:
                raise _too_long("name_bytes", subject, path, f"names of at most {limits.name_bytes} bytes", len(part))
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            if strict:
                raise BadPath(f"{subject}: {printable(path)}", expected="a path inside the image", got="one above it")
            warnings["path above the root, held at the root"] += 1
    if len(path) > limits.path_bytes:
        raise _too_long("path_bytes", subject, path, f"paths of at most {limits.path_bytes} bytes", len(path))
    if len(parts) > limits.depth:
        raise _too_long("depth", subject, path, f"paths of at most {limits.depth} parts", len(parts))
    return tuple(parts)


def _too_long(key: str, subject: str, path: bytes, expected: str, got: int) -> LimitExceeded:
    return LimitExceeded(f"{subject}: {printable(path)}", expected=expected, got=str(got), hint=limit_hint(key))


class Names:
    """Splits the names of one layer. What their directories split into is remembered: most entries share them.

    Raises:  BadPath, LimitExceeded.
    """

    def __init__(self, limits: Limits, warnings: Counter[str], *, subject: str, strict: bool) -> None:
        self._limits, self._warnings, self._subject, self._strict = limits, warnings, subject, strict
        self._directories: dict[bytes, tuple[bytes, ...]] = {}

    def split(self, path: bytes) -> tuple[bytes, ...]:
        """As the function `split`."""
        directory, _, name = path.rstrip(b"/").rpartition(b"/")
        known = self._directories.get(directory)
        plain = name not in (b"", b".", b"..") and len(name) <= self._limits.name_bytes and b"\0" not in name
        if known is not None and plain and len(path) <= self._limits.path_bytes:
            return (*known, name)
        parts = split(path, self._limits, self._warnings, subject=self._subject, strict=self._strict)
        if plain and b".." not in directory:  # each entry of a way through ".." has its warning
            self._directories[directory] = parts[:-1]
        return parts

    def place(self, path: bytes) -> Place:
        """Where an entry goes and what its name does. Raises BadPath for whiteouts of "", "." and ".."."""
        return place(self.split(path), subject=self._subject)


def place(parts: tuple[bytes, ...], *, subject: str) -> Place:
    """Where an entry goes and what its name does. Raises BadPath for whiteouts of "", "." and ".."."""
    if not parts:
        return Place((), b"")
    parents, name = parts[:-1], parts[-1]
    if name == OPAQUE:
        return Place(parents, name, Mark.OPAQUE)
    if AUFS in b"/".join(parts) and any(part.startswith(AUFS) for part in parts):
        return Place(parents, name, Mark.AUFS)
    if name.startswith(PREFIX):
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise BadPath(
                f"{subject}: {printable(b'/'.join(parts))}", expected="a whiteout of a name", got=f"one of {hidden!r}"
            )
        return Place(parents, hidden, Mark.WHITEOUT)
    return Place(parents, name)
