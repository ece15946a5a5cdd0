"""`zone image pack`: a reference to a file system image in a file, with no zone, recipe or root."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from pipeline import fetch, squash, unpack
from pipeline.env import Env
from pipeline.errors import PipelineError, StoreDamaged
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.layers import Spools
from pipeline.oci import Descriptor, Digest
from pipeline.squashfs import DEFAULT_COMPRESSION
from pipeline.store import Store, fsync_dir

COPY_BYTES = 1 << 20


class CannotWrite(PipelineError):
    """The output file cannot be written."""


def pack_image(
    reference: str,
    out: Path,
    *,
    env: Env,
    compression: str = DEFAULT_COMPRESSION,
    format: str = "squashfs",
    platform: str = DEFAULT_PLATFORM,
) -> Digest:
    """Write the image a reference names to `out` and return the file's digest.

    Effects: `out` appears complete or not at all; the store keeps what was made on the way.
    Raises:  PipelineError of any stage; CannotWrite.
    """
    if not out.absolute().parent.is_dir():
        raise CannotWrite(str(out), expected="a directory to write it in", got="none")
    try:
        fetched = fetch.run(fetch.FetchParams(reference, platform), env)
        with Spools(env.store, env.config.limits) as spools:
            tree = unpack.run(unpack.UnpackParams(fetched), env, spools)
            result = squash.run(squash.SquashParams(tree, compression, format), env, spools)
    except OSError as error:
        raise CannotWrite(f"store {env.store.root}", expected="room to work in", got=str(error.strerror)) from error
    try:
        copy_out(env.store, result.image, out)
    except OSError as error:
        size = f"{result.image.size_bytes} bytes written"
        raise CannotWrite(str(out), expected=size, got=str(error.strerror)) from error
    return result.image.digest


def copy_out(store: Store, blob: Descriptor, out: Path) -> None:
    """Copy a blob to a file beside its final name, check what was copied, and rename it there.

    Raises:  StoreDamaged, OSError.
    """
    out = out.absolute()
    fd, temporary = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        seen = hashlib.new(blob.digest.algorithm)
        with os.fdopen(fd, "wb") as file, open(store.path(blob.digest), "rb") as source:
            while data := source.read(COPY_BYTES):
                seen.update(data)
                file.write(data)
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            os.fsync(file.fileno())
        if seen.hexdigest() != blob.digest.hex:
            raise StoreDamaged(f"store object {blob.digest}", got="altered while it was copied", hint="run again")
        os.rename(temporary, out)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_dir(out.parent)
