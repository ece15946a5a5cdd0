"""Who says that an action has this result: a statement, its signature, and the manifest that carries both.

Blobs prove themselves by their digests. What needs a signature is that they are the result of this action key; the key
stands inside the signed text, so that a true statement about another action is worth nothing under this one's tag.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.oci import EMPTY, MANIFEST, BadDigest, BadDocument, Descriptor, canonical_json, parse_json
from pipeline.remote import keys
from pipeline.store import Store

ARTIFACT_TYPE = "application/vnd.zonewright.result.v1"
STATEMENT = "dev.zonewright.statement"
SIGNATURE = "dev.zonewright.signature"
# What is signed begins with what it is, so that no signature made for another purpose fits.
DOMAIN = b"zonewright result statement 1\n"
# Of a blob in the manifest; its true type is in the statement. Registries look inside what calls itself a manifest.
BLOB_TYPE = "application/octet-stream"
STATEMENT_MAX_BYTES = 1 << 20
OUTPUTS_MAX = 1024


class BadStatement(PipelineError):
    """An entry of the cache that is not to be believed."""


@dataclass(frozen=True)
class Statement:
    """The action of this key has this result, whose blobs, and what those that are manifests name, are the outputs."""

    key: str
    result: Any
    outputs: tuple[Descriptor, ...]

    def message(self) -> bytes:
        """Canonical JSON."""
        outputs = [output.to_json() for output in self.outputs]
        return canonical_json({"key": self.key, "result": self.result, "outputs": outputs})


def tag_of(key: str) -> str:
    """The tag an action's result has in the repository."""
    return f"k-{key}"


def write(statement: Statement, private: Any, empty: Descriptor) -> bytes:
    """The manifest of a statement, signed. empty: the blob `{}`, which is the config of every artifact like this."""
    message = statement.message()
    if len(message) > STATEMENT_MAX_BYTES:
        raise BadStatement(
            f"result {statement.key[:12]}", expected=f"at most {STATEMENT_MAX_BYTES} bytes", got=f"{len(message)}"
        )
    blobs = [Descriptor(BLOB_TYPE, output.digest, output.size_bytes) for output in statement.outputs]
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": Descriptor(EMPTY, empty.digest, empty.size_bytes).to_json(),
            "layers": [blob.to_json() for blob in dict.fromkeys(blobs)],
            "annotations": {
                STATEMENT: message.decode(),
                SIGNATURE: keys.PREFIX + base64.b64encode(private.sign(DOMAIN + message)).decode(),
            },
        }
    )


def read(manifest: bytes, key: str, pinned: Sequence[bytes]) -> Statement:
    """The statement of a manifest, believed: signed by a pinned key, and about this action.

    Raises:  BadStatement, which names no more of the manifest than what kind of lie it is.
    """
    subject = f"result {key[:12]}"
    try:
        document = parse_json(manifest, subject=subject)
        annotations = document.get("annotations") if isinstance(document, dict) else None
        annotations = annotations if isinstance(annotations, dict) else {}
        message, signature = _signed(annotations, subject)
        if not any(keys.verifies(public, signature, DOMAIN + message) for public in pinned):
            raise BadStatement(subject, expected="a statement signed by a key of [cache] keys", got="another")
        statement = parse_json(message, subject=subject, limit_bytes=STATEMENT_MAX_BYTES)
        if not isinstance(statement, dict) or statement.get("key") != key:
            raise BadStatement(subject, expected="a statement about this action", got="one about another")
        outputs = statement.get("outputs")
        if not isinstance(outputs, list) or len(outputs) > OUTPUTS_MAX or "result" not in statement:
            raise BadStatement(subject, expected=f"a result and at most {OUTPUTS_MAX} outputs", got="neither")
        believed = Statement(key, statement["result"], tuple(Descriptor.from_json(item) for item in outputs))
        known = {output.digest for output in believed.outputs}
        if any(found.digest not in known for found in descriptors(believed.result)):
            raise BadStatement(subject, expected="every blob of the result among the outputs", got="another")
    except (BadDocument, BadDigest) as error:
        raise BadStatement(subject, expected="a statement and its signature", got="something else") from error
    return believed


def _signed(annotations: dict[str, Any], subject: str) -> tuple[bytes, bytes]:
    message, signature = annotations.get(STATEMENT), annotations.get(SIGNATURE)
    if not isinstance(message, str) or not isinstance(signature, str):
        raise BadStatement(subject, expected="a statement and its signature", got="neither")
    try:
        return message.encode(), base64.b64decode(signature.removeprefix(keys.PREFIX), validate=True)
    except ValueError:  # also what encodings and base64 raise
        raise BadStatement(subject, expected="a signature in base64", got="something else") from None


def descriptors(document: Any) -> Iterator[Descriptor]:
    """Every descriptor in the JSON form of a result. Raises BadDocument, BadDigest."""
    if isinstance(document, dict):
        if {"mediaType", "digest", "size"} <= document.keys():
            yield Descriptor.from_json(document)
        else:
            for item in document.values():
                yield from descriptors(item)
    elif isinstance(document, list):
        for item in document:
            yield from descriptors(item)


def closure(store: Store, found: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """These blobs and, of those that are manifests, the config and layers: a store that takes them can push the image.

    Raises:  StoreDamaged, BadDocument.
    """
    outputs: dict[str, Descriptor] = {}
    for blob in found:
        outputs.setdefault(str(blob.digest), Descriptor(blob.media_type, blob.digest, blob.size_bytes))
        if blob.media_type == MANIFEST:
            document = store.read_json(blob.digest)
            for item in (document.get("config"), *document.get("layers", ())):
                part = Descriptor.from_json(item)
                outputs.setdefault(str(part.digest), Descriptor(part.media_type, part.digest, part.size_bytes))
    return tuple(outputs.values())


def differs(one: Statement, other: Statement) -> bool:
    """Do two statements about an action name other blobs? What else a result says (a reference) may differ."""
    return {output.digest for output in one.outputs} != {output.digest for output in other.outputs}


def difference(there: Statement, here: Statement) -> str:
    """Two statements' differing outputs in a few words."""
    theirs, ours = ({output.digest for output in side.outputs} for side in (there, here))
    only_there = ", ".join(sorted(digest.short for digest in theirs - ours)[:2]) or "none"
    only_here = ", ".join(sorted(digest.short for digest in ours - theirs)[:2]) or "none"
    return f"{only_there} there, {only_here} here; the stage is not reproducible, or its VERSION was not raised"
