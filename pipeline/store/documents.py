"""The store's own documents: result files, index.json, and the two things to say about an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import StoreDamaged
from pipeline.oci import INDEX, BadDocument, Descriptor, Digest, canonical_json, parse_json

# A result's statement of itself: a flipped byte in it must not name another blob, or another number.
RESULT, RESULT_DIGEST = "result", "sha256"
INDEX_SEAL = "zonewright.manifests"  # an annotation of index.json


def result_document(result: Any) -> bytes:
    """The bytes of a result file."""
    return canonical_json({RESULT: result, RESULT_DIGEST: Digest.of(canonical_json(result)).hex})


def checked_result(document: Any) -> Any | None:
    """The result in a result file's document, or None where the document was altered."""
    if not isinstance(document, dict) or set(document) != {RESULT, RESULT_DIGEST}:
        return None
    intact = Digest.of(canonical_json(document[RESULT])).hex == document[RESULT_DIGEST]
    return document[RESULT] if intact else None


def read_index(data: bytes, *, subject: str) -> list[Descriptor]:
    """The entries of an index.json. Raises BadDocument, BadDigest."""
    document = parse_json(data, subject=subject)
    if not isinstance(document, dict) or not isinstance(document.get("manifests", []), list):
        raise BadDocument(subject, expected="an image index", got="something else")
    return [Descriptor.from_json(entry, subject=subject) for entry in document.get("manifests", [])]


def index_document(entries: Sequence[Descriptor]) -> bytes:
    """The bytes of an index.json; the annotation is for fsck: others may change the file by the layout's rules."""
    manifests = [entry.to_json() for entry in entries]
    seal = {INDEX_SEAL: str(Digest.of(canonical_json(manifests)))}
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": seal})


def altered(digest: Digest) -> StoreDamaged:
    """What a reader says of an object with other bytes than it should have."""
    return StoreDamaged(
        f"store object {digest}", expected="bytes of that digest", got="others", hint="build again to heal it"
    )


def missing(digest: Digest) -> StoreDamaged:
    """What a reader says of an object that is not there."""
    return StoreDamaged(f"store object {digest}", got="no such object", hint="build again to make it")
