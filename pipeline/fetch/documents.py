"""An image's documents without its layers: the index where there is one, the manifest, the config."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.env import Env
from pipeline.errors import StoreDamaged
from pipeline.fetch.follow import any_manifest
from pipeline.fetch.manifest import MANIFEST_MAX_BYTES, Manifest, Platform, parse_document
from pipeline.fetch.model import FetchParams
from pipeline.fetch.reference import parse
from pipeline.fetch.source import Source, resolve
from pipeline.oci import Descriptor, parse_json

if TYPE_CHECKING:
    from pipeline.fetch.http import Patience

CONFIG_MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Documents:
    """What an image, or any other artifact, says about itself.

    index:    the index the reference names; None where it names the manifest.
    offered:  the platforms of the index, each with its manifest.
    config:   the config's document; {} where it is none.
    """

    reference: str
    descriptor: Descriptor
    manifest: Manifest
    config: dict[str, Any] = field(default_factory=dict)
    index: Descriptor | None = None
    offered: tuple[tuple[str, Descriptor], ...] = ()


def documents(params: FetchParams, env: Env, *, patience: Patience | None = None) -> Documents:
    """Read what a reference names; documents the store has are not asked for again.

    Effects: manifests and config are kept in the store, verified.
    Raises:  BadReference, NoSuchImage, BadImage, BadDocument, RegistryError, DigestMismatch.
    """
    reference = parse(params.reference)
    subject = str(reference)
    with contextlib.ExitStack() as stack:
        source, found, data = resolve(reference, env, patience, stack)
        manifest, descriptor = any_manifest(subject, source, found, data, Platform.parse(params.platform), env.store)
        config = _config(subject, source, manifest.config, env)
    if descriptor.digest == found.digest:
        return Documents(subject, descriptor, manifest, config)
    content = env.store.read(found.digest, limit_bytes=MANIFEST_MAX_BYTES)
    entries = parse_document(content, media_type=found.media_type, subject=f"index of {subject}")
    offered = tuple(offer for entry in entries if (offer := _offer(entry))) if isinstance(entries, list) else ()
    return Documents(subject, descriptor, manifest, config, found, offered)


def _offer(entry: dict[str, Any]) -> tuple[str, Descriptor] | None:
    """An index entry's platform and manifest; None for attestations and what has no platform."""
    found = entry.get("platform")
    names = [found.get(key) for key in ("os", "architecture", "variant")] if isinstance(found, dict) else ["unknown"]
    if names[0] == "unknown":
        return None
    return "/".join(name for name in names if isinstance(name, str) and name), Descriptor.from_json(entry)


def _config(subject: str, source: Source, blob: Descriptor, env: Env) -> dict[str, Any]:
    if not blob.media_type.endswith("json") or blob.size_bytes > CONFIG_MAX_BYTES:
        return {}
    where = f"config of {subject}"
    try:
        content = env.store.read(blob.digest, limit_bytes=CONFIG_MAX_BYTES)
    except StoreDamaged:
        with env.store.writer(blob.digest.algorithm) as writer:
            source.copy(blob, writer, lambda _: None, where)
            writer.commit(expected=blob, subject=where)
        content = env.store.read(blob.digest, limit_bytes=CONFIG_MAX_BYTES)
    document = parse_json(content, subject=where)
    return document if isinstance(document, dict) else {}
