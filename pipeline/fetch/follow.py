"""From what a reference names to one manifest: indexes followed by platform, every document verified and stored."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from pipeline.errors import PipelineError
from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.fetch.manifest import MANIFEST_MAX_BYTES, Manifest, Platform, candidates, check_image, parse_document
from pipeline.fetch.source import Source
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store, check_digest

NESTING_MAX = 4  # index in index
DOCUMENTS_MAX = 16  # in all


def image_manifest(
    subject: str, source: Source, found: Descriptor, data: bytes | None, platform: Platform, store: Store
) -> tuple[Manifest, Descriptor]:
    """The manifest of the image for a platform, in the store. Raises BadImage, NoSuchImage, DigestMismatch."""
    manifest, descriptor = any_manifest(subject, source, found, data, platform, store)
    check_image(manifest, subject=subject)
    return manifest, descriptor


def any_manifest(
    subject: str, source: Source, found: Descriptor, data: bytes | None, platform: Platform, store: Store
) -> tuple[Manifest, Descriptor]:
    """The same, whatever kind of artifact it is of.

    data: the bytes of what was found, where they came with it.
    """
    waiting = [(found, data, 1)]
    refused: NoSuchImage | None = None
    for _ in range(DOCUMENTS_MAX):
        if not waiting:
            assert refused is not None
            raise refused
        found, data, depth = waiting.pop(0)
        if depth > NESTING_MAX:
            raise BadImage(subject, expected=f"at most {NESTING_MAX} indexes inside each other", got="more")
        content, media_type = (data, found.media_type) if data is not None else _ask(source, found, store)
        check_bytes(f"manifest of {subject}", found, content)
        document = parse_document(content, media_type=found.media_type or media_type, subject=f"manifest of {subject}")
        stored = store.put(content)
        if isinstance(document, Manifest):
            return document, replace(stored, media_type=document.media_type)
        try:
            waiting = [(entry, None, depth + 1) for entry in candidates(document, platform, subject=subject)] + waiting
        except NoSuchImage as error:
            refused = refused or error
    raise BadImage(subject, expected=f"at most {DOCUMENTS_MAX} manifests to look at", got="more")


def _ask(source: Source, found: Descriptor, store: Store) -> tuple[bytes, str]:
    """A document from the store, where it is there, else from the source."""
    try:
        return store.read(found.digest, limit_bytes=MANIFEST_MAX_BYTES), found.media_type
    except PipelineError:
        return source.manifest(found)


def check_bytes(subject: str, expected: Descriptor, data: bytes) -> None:
    """Raise DigestMismatch unless bytes are those a descriptor names; a negative size is one nobody knows."""
    digest = Digest(expected.digest.algorithm, hashlib.new(expected.digest.algorithm, data).hexdigest())
    size = len(data) if expected.size_bytes < 0 else expected.size_bytes
    check_digest(subject, Descriptor(expected.media_type, expected.digest, size), digest, len(data))
