"""Manifests, indexes and configs: told apart, checked, and one platform chosen. Pure functions on bytes.

Source:  OCI image specification, manifest.md, image-index.md, config.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.oci import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
    Digest,
    parse_json,
)

MANIFEST_MAX_BYTES = 4 << 20
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (INDEX, DOCKER_LIST)
ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
LAYER_TYPES = (
    LAYER_TAR,
    LAYER_GZIP,
    LAYER_ZSTD,
    DOCKER_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
LAYERS_MAX = 512


@dataclass(frozen=True)
class Platform:
    """os/architecture[/variant]."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Raises BadImage unless there are two or three parts."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise BadImage(f"platform {text!r}", expected="os/architecture[/variant], such as linux/amd64", got="other")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class Manifest:
    """One image's config and layers."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def parse_document(data: bytes, *, media_type: str, subject: str) -> Manifest | list[dict[str, Any]]:
    """A manifest, or the entries of an index.

    media_type: what the sender called it; the document's own mediaType outranks it, a contradiction is refused.
    Raises:     BadImage, BadDocument.
    """
    document = parse_json(data, subject=subject, limit_bytes=MANIFEST_MAX_BYTES)
    if not isinstance(document, dict):
        raise BadImage(subject, expected="a manifest object", got=type(document).__name__)
    sent, own = media_type.partition(";")[0].strip(), document.get("mediaType", "")
    if str(own or sent).startswith(SCHEMA1) or document.get("schemaVersion") == 1:
        raise BadImage(
            subject, expected="an OCI or Docker v2 manifest", got="Docker schema 1", hint="push the image again"
        )
    if document.get("schemaVersion") != 2:
        raise BadImage(subject, expected="schemaVersion 2", got=repr(document.get("schemaVersion"))[:40])
    known = (*MANIFEST_TYPES, *INDEX_TYPES)
    if own and sent in known and own != sent:
        raise BadImage(subject, expected=f"mediaType {sent}, as it was sent", got=repr(own)[:80])
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index == is_manifest:
        raise BadImage(subject, expected="either manifests or config and layers", got="both" if is_index else "neither")
    kind = own or (sent if sent in known else (INDEX if is_index else MANIFEST))
    if kind not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
        raise BadImage(
            subject, expected=f"a mediaType that fits {'an index' if is_index else 'a manifest'}", got=repr(kind)
        )
    if is_index:
        entries = document["manifests"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadImage(subject, expected="a list of manifests", got="something else")
        return entries
    return _manifest(document, kind, subject)


def _manifest(document: dict[str, Any], media_type: str, subject: str) -> Manifest:
    config = Descriptor.from_json(document.get("config"), subject=f"{subject}: config")
    found = document.get("layers")
    if not isinstance(found, list):
        raise BadImage(subject, expected="a list of layers", got=type(found).__name__)
    if len(found) > LAYERS_MAX:
        raise BadImage(subject, expected=f"at most {LAYERS_MAX} layers", got=str(len(found)))
    layers = []
    for number, entry in enumerate(found, 1):
        where = f"layer {number}/{len(found)} of {subject}"
        layer = Descriptor.from_json(entry, subject=where)
        if layer.media_type not in LAYER_TYPES:
            raise BadImage(where, expected="a tar layer, plain or with gzip or zstd", got=layer.media_type)
        layers.append(layer)
    if config.media_type not in (CONFIG, DOCKER_CONFIG):
        raise BadImage(f"config of {subject}", expected="an image config", got=config.media_type)
    return Manifest(media_type, config, tuple(layers))


def choose(entries: list[dict[str, Any]], platform: Platform, *, subject: str) -> Descriptor:
    """The first entry of an index for the platform.

    Without a variant asked for, an entry without one is preferred, then the first of any variant.
    Raises:  NoSuchImage, listing what there is.
    """
    offered: list[tuple[Platform, Descriptor]] = []
    bare: list[Descriptor] = []
    for number, entry in enumerate(entries, 1):
        descriptor = Descriptor.from_json(entry, subject=f"manifest {number} of {subject}")
        if descriptor.media_type not in (*MANIFEST_TYPES, *INDEX_TYPES):
            continue
        found = entry.get("platform")
        if not isinstance(found, dict):
            bare.append(descriptor)
            continue
        names = [str(found.get(key) or "") for key in ("os", "architecture", "variant")]
        if names[0] != "unknown":  # build attestations
            offered.append((Platform(*names), descriptor))
    fitting = [
        (offer.variant, descriptor)
        for offer, descriptor in offered
        if (offer.os, offer.architecture) == (platform.os, platform.architecture)
        and platform.variant in ("", offer.variant)
    ]
    for variant, descriptor in fitting:
        if variant == platform.variant:
            return descriptor
    if fitting:
        return fitting[0][1]
    if len(bare) == 1 and not offered:
        return bare[0]
    there = ", ".join(dict.fromkeys(str(offer) for offer, _ in offered)) or "none with a platform"
    raise NoSuchImage(subject, expected=f"an image for {platform}", got=f"only {there}"[:300])


def diff_ids(config: bytes, manifest: Manifest, platform: Platform, *, subject: str) -> tuple[Digest, ...]:
    """The digests of the inflated layers, from a config that fits the manifest. Raises BadImage, BadDocument."""
    where = f"config of {subject}"
    document = parse_json(config, subject=where)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers" or not isinstance(found, list):
        raise BadImage(where, expected="rootfs of type layers with diff_ids", got="none")
    if len(found) != len(manifest.layers):
        raise BadImage(where, expected=f"{len(manifest.layers)} diff_ids, one per layer", got=str(len(found)))
    for key, wanted in (("os", platform.os), ("architecture", platform.architecture)):
        if document.get(key) and document[key] != wanted:
            raise NoSuchImage(
                subject, expected=f"an image for {platform}", got=f"one whose {key} is {document[key]!r}"[:80]
            )
    return tuple(Digest.parse(item) for item in found)
