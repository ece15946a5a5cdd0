"""A manifest of the store and everything it names, to a registry: blobs, then manifests inside, then the tag.

Until the tag is there nothing names what was sent, so that a push that breaks has published nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config import Config
from pipeline.errors import StoreDamaged
from pipeline.fetch.errors import BadImage, BadReference
from pipeline.fetch.http import Patience
from pipeline.fetch.reference import RegistryReference
from pipeline.oci import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor, parse_json
from pipeline.progress import Progress
from pipeline.remote.upload import Uploads
from pipeline.store import Store

WORKERS = 3
NESTING_MAX = 4  # index in index
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (INDEX, DOCKER_LIST)


@dataclass(frozen=True)
class Plan:
    """What a push sends. documents: bytes of each manifest and index, those that others name first, the named last."""

    documents: tuple[tuple[Descriptor, bytes], ...]
    blobs: tuple[Descriptor, ...]


def plan(store: Store, manifest: Descriptor, *, subject: str) -> Plan:
    """Everything a manifest or index names, each once.

    Raises:  StoreDamaged where a part of it is not in the store, BadImage, BadDocument.
    """
    documents: dict[Descriptor, bytes] = {}
    blobs: dict[Descriptor, None] = {}
    _collect(store, manifest, documents, blobs, subject, NESTING_MAX)
    for blob in blobs:
        if not store.has(blob):
            raise StoreDamaged(subject, expected=f"{blob.digest} in the store", got="no such object of that size")
    return Plan(tuple(documents.items()), tuple(blobs))


def _collect(
    store: Store,
    found: Descriptor,
    documents: dict[Descriptor, bytes],
    blobs: dict[Descriptor, None],
    subject: str,
    depth: int,
) -> None:
    data = store.read(found.digest)
    document = parse_json(data, subject=f"manifest {found.digest.short} of {subject}")
    inside = document.get("manifests") if isinstance(document, dict) else None
    named = inside if isinstance(inside, list) else _parts(document, found, subject)
    for entry in named:
        part = _plain(Descriptor.from_json(entry, subject=f"manifest {found.digest.short} of {subject}"))
        if inside is None:
            blobs.setdefault(part)
        elif depth == 1:
            raise BadImage(subject, expected=f"at most {NESTING_MAX} indexes inside each other", got="more")
        elif part.media_type not in (*MANIFEST_TYPES, *INDEX_TYPES):
            blobs.setdefault(part)
        elif not store.has(part):
            raise StoreDamaged(
                subject,
                expected="every image of the index in the store",
                got=f"no {part.digest.short}",
                hint="push the manifest of one platform",
            )
        else:
            _collect(store, part, documents, blobs, subject, depth - 1)
    media_type = document.get("mediaType") or found.media_type or (MANIFEST if inside is None else INDEX)
    documents.setdefault(Descriptor(media_type, found.digest, len(data)), data)


def _parts(document: Any, found: Descriptor, subject: str) -> list[Any]:
    layers = document.get("layers") if isinstance(document, dict) else None
    if not isinstance(layers, list) or "config" not in document:
        raise BadImage(subject, expected="a manifest or an index", got=f"another document at {found.digest.short}")
    return [document["config"], *layers]


def _plain(descriptor: Descriptor) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size_bytes)


def push(
    store: Store,
    manifest: Descriptor,
    to: RegistryReference,
    *,
    progress: Progress,
    config: Config | None = None,
    patience: Patience | None = None,
) -> RegistryReference:
    """Push a manifest, or an index with everything below it; returns the reference with its digest.

    Raises:  StoreDamaged, BadImage, BadDocument, BadReference, RegistryError; the tag is untouched then.
    """
    if to.digest not in (None, manifest.digest):
        raise BadReference(str(to), expected=f"no digest, or that of what is pushed, {manifest.digest}", got="another")
    subject = str(replace(to, digest=None))
    what = plan(store, manifest, subject=subject)
    with contextlib.closing(Uploads(to, config=config, patience=patience)) as uploads:
        send_blobs(uploads, store, what.blobs, progress, subject=subject)
        *inner, (top, data) = what.documents
        for document, content in inner:
            uploads.manifest(str(document.digest), content, document.media_type, subject)
        uploads.manifest(to.tag or str(top.digest), data, top.media_type, subject)
    return replace(to, digest=manifest.digest)


def send_blobs(uploads: Uploads, store: Store, blobs: Iterable[Descriptor], progress: Progress, *, subject: str) -> int:
    """Send what the repository has not, several at once; returns how many were sent. Raises as `Uploads.blob`."""
    wanted = list(blobs)
    stop = threading.Event()

    def send(number: int, blob: Descriptor) -> bool:
        title = f"blob {number}/{len(wanted)} to {subject}"
        if stop.is_set() or uploads.has(blob, title):
            return False
        with progress.bar(title, total=blob.size_bytes) as bar:

            def advance(amount: int) -> None:
                if stop.is_set():
                    raise _Stopped
                bar.advance(amount)

            uploads.blob(store, blob, title, advance)
        return True

    pool = ThreadPoolExecutor(WORKERS, "push")
    try:
        waiting = [pool.submit(send, number, blob) for number, blob in enumerate(wanted, 1)]
        return sum(done.result() for done in as_completed(waiting))  # the first failure, whichever blob it is of
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """Another blob has failed; this one is no longer wanted."""
