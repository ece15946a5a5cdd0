"""What packing refuses before it does any work, and names of the store as what is packed."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.env import Env
from pipeline.fetch.manifest import Platform
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.images.names import find, last_pulled
from pipeline.oci import Digest
from pipeline.pack import CannotWrite, pack_image
from pipeline.squash.formats import form_of


def pack(text: str, env: Env, *, out: Path, format: str, compression: str, platform: str = "") -> Digest:
    """Write the image a user's words mean to a file; returns the file's digest.

    Effects: `out` appears complete or not at all.
    Raises:  UnknownFormat, BadCompressionName, BadImage for a platform, CannotWrite; what pack_image raises.
    """
    form_of(format, compression)
    if platform:
        Platform.parse(platform)
    check_output(out)
    stored = find(text, env.store, platform)
    if stored is None and env.offline:
        stored = last_pulled(text, env.store, platform)
    asked = platform or (stored.platform if stored else "") or DEFAULT_PLATFORM
    reference = text if stored is None else f"oci:{env.store.root}@{stored.manifest.digest}"
    return pack_image(reference, out, env=env, compression=compression, format=format, platform=asked)


def check_output(out: Path) -> None:
    """Can a file be put there? Only another file is ever replaced: no device, and no directory. Raises CannotWrite."""
    if str(out) == "-":
        hint = "stdout is for the digest; ./- is a file of that name"
        raise CannotWrite("-", expected="the name of a file", got="a dash", hint=hint)
    parent = out.absolute().parent
    if not parent.is_dir():
        raise CannotWrite(str(out), expected="a directory to write it in", got=f"no directory {parent}")
    if out.exists() and not out.is_file():
        got = "a directory" if out.is_dir() else "a device, a pipe or a socket"
        raise CannotWrite(str(out), expected="the name of a file", got=got)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise CannotWrite(str(out), expected="a directory to write it in", got=f"{parent}, where you may not write")
