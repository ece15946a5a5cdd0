"""Is this directory a store of ours, of a form this version understands, and whose is it?"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.oci import canonical_json
from pipeline.store.lease import GC, SWEEP
from pipeline.store.workshop import is_ours

# The form of everything but the image layout, which has its own version. It rises when an older program would damage,
# or misread, what a newer one keeps.
FORMAT = 1


def format_document(number: int) -> bytes:
    """The bytes of the file `format`: a flipped bit in it must not look like another version's store."""
    return f"{number} {hashlib.sha256(str(number).encode()).hexdigest()[:16]}\n".encode()


FORMS = {
    "oci-layout": canonical_json({"imageLayoutVersion": "1.0.0"}),
    "format": format_document(FORMAT),
}
# Whatever a store has in its directory.
NAMES = frozenset(
    {"apt", "blobs", "checkouts", "lab", "locks", "package-locks", "results", "tmp", "used", "index.json", *FORMS}
)
_HASH = re.compile(r"[0-9a-f]{64}").fullmatch
FIXED_LOCKS = frozenset({"tmp", "index", SWEEP, GC})


class StoreUnfit(PipelineError):
    """A store this program cannot or must not work with: of another form, or one that may not be written to."""


def check_form(root: Path, *, write: Callable[[Path, bytes], None] | None = None, damage_too: bool = True) -> None:
    """Raise StoreUnfit for a store of another form, and unless told otherwise for one whose form cannot be read.

    write:   makes the files that say the form, where they are missing.
    """
    for name, content in FORMS.items():
        data = _read(root / name, root)
        if data is None and write:
            write(root / name, content)
        elif data is not None and data != content and name == "format" and _number(data) is not None:
            raise _other_format(root, _number(data) or 0)
        elif data is not None and not _says_the_same(name, data, content) and damage_too:
            hint = "zone store fsck --repair sets it right"
            raise _unfit(root, f"its file {name} as it was made", repr(data[:60]), hint)


def check_place(root: Path) -> None:
    """Raise StoreUnfit for a directory that has other things in it: a store removes what it takes for its leftovers.

    Good are a store, also one that lost its `format` or was killed while it was made, an image layout that others
    made, and an empty directory.
    """
    try:
        if not _is_store(root) and (other := _stranger(root)) and not _is_store(root):  # made by another just now
            raise _unfit(
                root, "a store, or an empty directory", f"one with {other} in it", "ZONEWRIGHT_STORE names another"
            )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # who makes the store says it
    except OSError as error:
        raise _unreadable(root, error) from error


def _is_store(root: Path) -> bool:
    made = ("blobs/sha256", "results", "locks", "tmp")
    return (root / "format").exists() or all((root / name).is_dir() for name in made)


def _stranger(root: Path) -> str:
    """What is in this directory that the making of a store does not leave there, or ""."""
    names = set(os.listdir(root)) - {"lost+found"}  # a file system made for the store has that
    is_layout = not names.isdisjoint({"index.json", "oci-layout"})
    for name in sorted(names):
        is_file = name == "index.json" or name in FORMS
        if name not in NAMES or name in ("apt", "lab", "package-locks") or (root / name).is_dir() is is_file:
            return name
        for path in sorted((root / name).iterdir()) if not is_file else ():
            made = (
                (name == "tmp" and is_ours(path.name))
                or (name == "locks" and path.name in FIXED_LOCKS)
                or (name == "blobs" and (is_layout or (path.name == "sha256" and all(map(_HASH, os.listdir(path))))))
            )
            if not made:
                return f"{name}/{path.name}"
    return ""


def _says_the_same(name: str, data: bytes, content: bytes) -> bool:
    """Others may write oci-layout too, with blanks."""
    try:
        return data == content or (name == "oci-layout" and bool(json.loads(data) == json.loads(content)))
    except ValueError:
        return False


def _number(data: bytes) -> int | None:
    """The version an unharmed `format` file gives."""
    word = data.split(b" ")[0]
    return int(word) if word.isdigit() and format_document(int(word)) == data else None


def _other_format(root: Path, number: int) -> StoreUnfit:
    if number > FORMAT:
        hint = "update this program, or name another store with ZONEWRIGHT_STORE"
        return _unfit(root, f"format {FORMAT}", f"{number}, which a newer version of this program made", hint)
    hint = "name another store with ZONEWRIGHT_STORE, or remove this one: all in it can be made again"
    return _unfit(root, f"format {FORMAT}", f"{number}, which this version no longer reads", hint)


def who_owns(path: Path) -> str:
    """` (it belongs to user alice)` where that is somebody else, for errors."""
    import pwd

    for place in (path, *path.parents):
        try:
            uid = place.stat().st_uid
        except OSError:
            continue
        if uid == os.geteuid():
            return ""
        try:
            return f" (it belongs to user {pwd.getpwuid(uid).pw_name})"
        except KeyError:
            return f" (it belongs to uid {uid})"
    return ""


def _read(path: Path, root: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(root, error) from error


def _unreadable(root: Path, error: OSError) -> StoreUnfit:
    return _unfit(root, "a store to read", f"{error.strerror}{who_owns(root)}", "ZONEWRIGHT_STORE names another")


def _unfit(root: Path, expected: str, got: str, hint: str) -> StoreUnfit:
    return StoreUnfit(f"store {root}", expected=expected, got=got, hint=hint)
