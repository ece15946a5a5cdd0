"""Is this directory a store of ours, of a form this version understands, and whose is it?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.oci import canonical_json

# The form of everything but the image layout, which has its own version. It rises when an older program would damage,
# or misread, what a newer one keeps.
FORMAT = 1
FORMAT_FILE, LAYOUT_FILE = "format", "oci-layout"
LAYOUT = {"imageLayoutVersion": "1.0.0"}


class StoreUnfit(PipelineError):
    """A store this program cannot or must not work with: of another form, or one that may not be written to."""


def check_form(root: Path, *, write: Callable[[Path, bytes], None] | None = None) -> None:
    """Raise StoreUnfit for a store of another form.

    write:   makes the two files that say the form, where they are missing.
    """
    layout = _read(root / LAYOUT_FILE, root)
    if layout is None:
        if write:
            write(root / LAYOUT_FILE, canonical_json(LAYOUT))
    elif (version := _layout_version(layout)) != LAYOUT["imageLayoutVersion"]:
        raise _unfit(
            root, "image layout version 1.0.0", f"{LAYOUT_FILE} with {version}", "zone store fsck looks closer"
        )
    format = _read(root / FORMAT_FILE, root)
    if format is None:
        if write:
            write(root / FORMAT_FILE, f"{FORMAT}\n".encode())
    elif not format.strip().isdigit():
        raise _unfit(root, f"format {FORMAT}", f"{FORMAT_FILE} with {format[:40]!r}", "zone store fsck looks closer")
    elif int(format) > FORMAT:
        hint = "update this program, or name another store with ZONEWRIGHT_STORE"
        raise _unfit(root, f"format {FORMAT}", f"{int(format)}, which a newer version of this program made", hint)
    elif int(format) < FORMAT:
        hint = "name another store with ZONEWRIGHT_STORE, or remove this one: all in it can be made again"
        raise _unfit(root, f"format {FORMAT}", f"{int(format)}, which this version no longer reads", hint)


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


def _layout_version(data: bytes) -> str:
    try:
        return str(json.loads(data)["imageLayoutVersion"])
    except (ValueError, LookupError, TypeError):
        return "no version in it"


def _read(path: Path, root: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unfit(
            root, "a store to read", f"{error.strerror}{who_owns(root)}", "ZONEWRIGHT_STORE names another"
        ) from error


def _unfit(root: Path, expected: str, got: str, hint: str) -> StoreUnfit:
    return StoreUnfit(f"store {root}", expected=expected, got=got, hint=hint)
