"""`zone image pack`: a reference to a file system image in a file, with no zone, recipe or root."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from pipeline import fetch, squash, unpack
from pipeline.durable import take
from pipeline.env import Env, cached, healing
from pipeline.errors import PipelineError
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.jsonmodel import to_json
from pipeline.layers import Spools
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store

VERSION = 1
COPY_BYTES = 1 << 20


class CannotWrite(PipelineError):
    """The output file cannot be written."""


def pack_image(
    reference: str,
    out: Path,
    *,
    env: Env,
    compression: str = "",
    format: str = "squashfs",
    platform: str = DEFAULT_PLATFORM,
) -> Digest:
    """Write the image a reference names to `out` and return the file's digest.

    Effects: `out` appears complete or not at all; the store keeps what was made on the way.
    Raises:  PipelineError of any stage; CannotWrite.
    """
    if not out.absolute().parent.is_dir():
        raise CannotWrite(str(out), expected="a directory to write it in", got="none")

    def pack() -> Digest:
        squashed = _squashed(reference, env, compression, format, platform)
        try:
            copy_out(env.store, squashed, out)
        except OSError as error:
            size = f"{squashed.size_bytes} bytes written"
            raise CannotWrite(str(out), expected=size, got=str(error.strerror)) from error
        return squashed.digest

    return healing(env, pack)


def _squashed(reference: str, env: Env, compression: str, format: str, platform: str) -> Descriptor:
    """The image's file system, remembered by the image's digest as well: whoever has it needs none of the layers."""
    form = squash.form_of(format, compression)
    try:
        with fetch.opened(fetch.FetchParams(reference, platform), env) as image:
            result = cached(
                env,
                squash.SquashResult,
                stage="pack",
                version=VERSION,
                params={
                    "platform": str(image.platform),
                    "form": form.params,
                    "limits": to_json(env.config.limits),
                    "stages": [fetch.VERSION, unpack.VERSION, unpack.INDEX_VERSION, squash.VERSION],
                },
                inputs={"manifest": str(image.found.digest)},
                tools=form.tools(),
                build=lambda: _build(image, env, compression, format),
            )
        return result.image
    except OSError as error:
        raise CannotWrite(f"store {env.store.root}", expected="room to work in", got=str(error.strerror)) from error


def _build(image: fetch.Opened, env: Env, compression: str, format: str) -> squash.SquashResult:
    with Spools(env.store, env.config.limits) as spools:
        fetched = fetch.bring(image, env, sink=unpack.layer_sinks(spools, env.config.limits))
        tree = unpack.run(unpack.UnpackParams(fetched), env, spools)
        return squash.run(squash.SquashParams(tree, compression, format), env, spools)


def copy_out(store: Store, blob: Descriptor, out: Path) -> None:
    """Copy a blob to a file beside its final name, check what was copied, and rename it there.

    Raises:  StoreDamaged, OSError; the file is not there then, nor what it was to replace where only its name could
             not be made durable.
    """
    out = out.absolute()
    directory = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # before the file is there
    try:
        _copy_to(store, blob, out)
        try:
            os.fsync(directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(out)
            raise
    finally:
        os.close(directory)


def _copy_to(store: Store, blob: Descriptor, out: Path) -> None:
    temporary = out.parent / f".{out.name}.partial"
    seen = hashlib.new(blob.digest.algorithm)
    with os.fdopen(take(temporary), "wb") as file:  # what a killed one left is taken over
        try:
            file.truncate()
            with store.open(blob.digest) as source:
                if store.proven(blob.digest, source.fileno()):
                    shutil.copyfileobj(source, file, COPY_BYTES)
                else:
                    while data := source.read(COPY_BYTES):
                        seen.update(data)
                        file.write(data)
                    if seen.hexdigest() != blob.digest.hex:
                        raise store.damaged(blob.digest)
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            os.fsync(file.fileno())
            os.rename(temporary, out)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
