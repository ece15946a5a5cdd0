"""The words of the OCI image specification: digests, descriptors, media types, canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"

SIZE_MAX_BYTES = (1 << 63) - 1  # descriptor.md: size is an int64

_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """A content digest: algorithm and lower-case hex.

    Source:  OCI image specification, descriptor.md, "Digests".
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Parse `sha256:…` or `sha512:…`; raises BadDigest on anything else, upper case included."""
        match = _DIGEST.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise BadDigest(
                f"digest {text!r}", expected="sha256:<64 hex digits> or sha512:<128 hex digits>", got="something else"
            )
        return cls(match[1] or match[3], match[2] or match[4])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of `data`."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        """`sha256:` and the first twelve digits: for people, never for look-ups."""
        return f"{self.algorithm}:{self.hex[:12]}"

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class BadDigest(PipelineError):
    """Text that is no digest."""


class BadDocument(PipelineError):
    """JSON that is not what the OCI specification says it must be."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size of a blob."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: dict[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """The descriptor as the specification writes it."""
        doc: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size_bytes}
        if self.annotations:
            doc["annotations"] = dict(sorted(self.annotations.items()))
        return doc

    @classmethod
    def from_json(cls, doc: object, *, subject: str = "descriptor") -> Descriptor:
        """Parse and check one descriptor; raises BadDocument."""
        if not isinstance(doc, dict):
            raise BadDocument(subject, expected="a descriptor object", got=type(doc).__name__)
        media_type, size = doc.get("mediaType"), doc.get("size")
        if not isinstance(media_type, str):
            raise BadDocument(subject, expected="a string mediaType", got=repr(media_type))
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= SIZE_MAX_BYTES:
            raise BadDocument(subject, expected="a size of 0 or more, below 2^63", got=repr(size)[:80])
        annotations = doc.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise BadDocument(subject, expected="annotations from string to string", got=repr(annotations)[:80])
        return cls(media_type, Digest.parse(doc.get("digest")), size, annotations)


def canonical_json(doc: Any) -> bytes:
    """JSON with sorted keys and no blanks: equal documents give equal bytes."""
    return json.dumps(doc, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def parse_json(data: bytes, *, subject: str, limit_bytes: int = 4 << 20) -> Any:
    """Parse JSON that came from outside.

    Raises:  BadDocument for oversize input, duplicate keys, NaN, too deep nesting, or text that is no JSON.
    """
    if len(data) > limit_bytes:
        raise BadDocument(subject, expected=f"at most {limit_bytes} bytes", got=f"{len(data)} bytes")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadDocument(subject, expected="JSON", got=f"{error}"[:200]) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    doc = dict(pairs)
    if len(doc) != len(pairs):
        raise ValueError("an object with a key given twice")
    return doc


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}")
