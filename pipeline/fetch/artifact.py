"""Any artifact, whatever it is made of: its manifest and every blob it names, verified, in the store."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pipeline.env import Env
from pipeline.fetch.errors import BadImage
from pipeline.fetch.follow import any_manifest
from pipeline.fetch.manifest import Platform
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.fetch.reference import parse
from pipeline.fetch.source import Source, resolve
from pipeline.oci import Descriptor

if TYPE_CHECKING:
    from pipeline.fetch.http import Patience

WORKERS = 4


def fetch_artifact(
    reference: str, env: Env, *, platform: str = DEFAULT_PLATFORM, patience: Patience | None = None
) -> Descriptor:
    """Bring an artifact into the store and return its manifest, whose bytes are as its maker wrote them.

    platform: chooses where the reference names an index.
    Raises:   BadReference, NoSuchImage, BadImage, BadDocument, RegistryError, DigestMismatch.
    """
    from concurrent.futures import ThreadPoolExecutor

    parsed = parse(reference)
    subject = str(parsed)
    with contextlib.ExitStack() as stack:
        source, found, data = resolve(parsed, env, patience, stack)
        manifest, descriptor = any_manifest(subject, source, found, data, Platform.parse(platform), env.store)
        blobs = list(dict.fromkeys((manifest.config, *manifest.layers)))
        pool = ThreadPoolExecutor(max_workers=WORKERS)
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting = [
            pool.submit(_bring, source, blob, env, f"blob {number}/{len(blobs)} of {subject}")
            for number, blob in enumerate(blobs, 1)
        ]
        for one in waiting:
            one.result()
    return descriptor


def _bring(source: Source, blob: Descriptor, env: Env, subject: str) -> None:
    env.config.limits.check_blob(subject, blob.size_bytes, BadImage)
    with env.store.lock(f"blob-{blob.digest.hex}"):
        if env.store.has(blob) and env.store.verify(blob.digest):
            return
        with (
            env.store.writer(blob.digest.algorithm) as writer,
            env.progress.bar(subject, total=blob.size_bytes) as bar,
        ):
            source.copy(blob, writer, bar.advance, subject)
            writer.commit(expected=blob, subject=subject)
