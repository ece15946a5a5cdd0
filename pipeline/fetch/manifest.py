"""Manifests, indexes and configs: told apart, checked, and one platform chosen. Pure functions on bytes.

Source:  OCI image specification, manifest.md, image-index.md, config.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
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
CONFIG_MAX_BYTES = 4 << 20
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
ALIASES = {"x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""), "armhf": ("arm", "v7")}
UNSAID = {("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")}


@dataclass(frozen=True)
class Platform:
    """os/architecture[/variant], in the words of the Go tools: amd64, not x86_64; arm64 has the variant v8 unsaid."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Raises BadImage unless there are two or three parts."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise BadImage(f"platform {text!r}", expected="os/architecture[/variant], such as linux/amd64", got="other")
        return cls.of(*parts)

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """The platform of these names, whichever way they are written."""
        architecture, variant = ALIASES.get(architecture.lower(), (architecture.lower(), variant.lower()))
        return cls(os.lower(), architecture, "" if (architecture, variant) in UNSAID else variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class Manifest:
    """One image's config and layers, or those of any other artifact."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""


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
    config = descriptor(document.get("config"), f"config of {subject}")
    found = document.get("layers")
    if not isinstance(found, list):
        raise BadImage(subject, expected="a list of layers", got=type(found).__name__)
    if len(found) > LAYERS_MAX:
        raise BadImage(subject, expected=f"at most {LAYERS_MAX} layers", got=str(len(found)))
    layers = [descriptor(entry, f"layer {number}/{len(found)} of {subject}") for number, entry in enumerate(found, 1)]
    annotations, artifact_type = document.get("annotations") or {}, document.get("artifactType") or ""
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise BadImage(subject, expected="annotations from string to string", got=repr(annotations)[:80])
    if not isinstance(artifact_type, str):
        raise BadImage(subject, expected="an artifactType that is a string", got=repr(artifact_type)[:80])
    return Manifest(media_type, config, tuple(layers), annotations, artifact_type)


def descriptor(entry: object, subject: str) -> Descriptor:
    """A descriptor; what it embeds as `data` has to be what it names. Raises BadImage, BadDocument, BadDigest."""
    found = Descriptor.from_json(entry, subject=subject)
    embedded = entry.get("data") if isinstance(entry, dict) else None
    if embedded is not None:
        try:
            data = base64.b64decode(embedded if isinstance(embedded, str) else b"", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        name = hashlib.new(found.digest.algorithm, data).hexdigest()
        if not isinstance(embedded, str) or (name, len(data)) != (found.digest.hex, found.size_bytes):
            raise BadImage(subject, expected=f"data that is {found.digest.short}", got="other data")
    return found


def check_image(manifest: Manifest, *, subject: str) -> None:
    """Raise BadImage unless a manifest's config and layers are those of a container image."""
    if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
        hint = f"it is an artifact of type {manifest.artifact_type}"[:120] if manifest.artifact_type else ""
        raise BadImage(f"config of {subject}", expected="an image config", got=manifest.config.media_type, hint=hint)
    if manifest.config.size_bytes > CONFIG_MAX_BYTES:
        got = f"{manifest.config.size_bytes}"
        raise BadImage(f"config of {subject}", expected=f"at most {CONFIG_MAX_BYTES} bytes", got=got)
    for number, layer in enumerate(manifest.layers, 1):
        if layer.media_type not in LAYER_TYPES:
            where = f"layer {number}/{len(manifest.layers)} of {subject}"
            raise BadImage(where, expected="a tar layer, plain or with gzip or zstd", got=layer.media_type)


def choose(entries: list[dict[str, Any]], platform: Platform, *, subject: str) -> Descriptor:
    """The best of `candidates`."""
    return candidates(entries, platform, subject=subject)[0]


def candidates(entries: list[dict[str, Any]], platform: Platform, *, subject: str) -> list[Descriptor]:
    """What an index has for a platform, best first; indexes in it that say no platform come last.

    Of the entries for the platform the first whose variant is the one asked for; if none was asked for and none is
    without, the first of any. A manifest without a platform counts where it is the only entry.
    Raises:  NoSuchImage, listing what there is.
    """
    offered: list[tuple[Platform, Descriptor]] = []
    bare: list[Descriptor] = []
    for number, entry in enumerate(entries, 1):
        found = descriptor(entry, f"manifest {number} of {subject}")
        if found.media_type not in (*MANIFEST_TYPES, *INDEX_TYPES):
            continue
        names = entry.get("platform")
        if not isinstance(names, dict):
            bare.append(found)
            continue
        given = [str(names.get(key) or "") for key in ("os", "architecture", "variant")]
        if given[0] != "unknown":  # build attestations
            offered.append((Platform.of(*given), found))
    nested = [found for found in bare if found.media_type in INDEX_TYPES]
    fitting = [
        (offer.variant != platform.variant, found)
        for offer, found in offered
        if (offer.os, offer.architecture) == (platform.os, platform.architecture)
        and platform.variant in ("", offer.variant)
    ]
    if fitting:
        return [min(fitting, key=lambda item: item[0])[1], *nested]
    if nested or (len(bare) == 1 and not offered):
        return nested or bare
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
    own = Platform.of(*(str(document.get(key) or "") for key in ("os", "architecture")))
    for key, has, wanted in (
        ("os", own.os, platform.os),
        ("architecture", own.architecture, platform.architecture),
    ):
        if has and has != wanted:
            raise NoSuchImage(subject, expected=f"an image for {platform}", got=f"one whose {key} is {has!r}"[:80])
    if not _fits(document.get("history"), len(found)):
        import logging  # not for a cache hit

        logging.getLogger(__name__).warning("%s: its history does not fit its %d layers; ignored", where, len(found))
    return tuple(Digest.parse(item) for item in found)


def _fits(history: object, layers: int) -> bool:
    """Has a config no history, or one with an entry for each layer? Nothing here depends on it."""
    if history is None:
        return True
    if not isinstance(history, list) or not all(isinstance(step, dict) for step in history):
        return False
    return sum(1 for step in history if not step.get("empty_layer")) == layers
