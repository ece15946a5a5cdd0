"""Every name of the store, with what its manifest and config say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.errors import PipelineError
from pipeline.images.names import BUILT, PREFIX, PULLED, REFERENCE, shown_name
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store


@dataclass(frozen=True)
class Listed:
    """One name. size_bytes: of manifest, config and layers as they are stored; created: what the config says.

    kind:    image, recipe, kernel, os or zone.
    damaged: why nothing more is known, or "".
    """

    name: str
    kind: str
    digest: Digest
    reference: str = ""
    platform: str = ""
    layers: int = 0
    size_bytes: int = 0
    created: str = ""
    pulled: str = ""
    damaged: str = ""


def listing(store: Store) -> list[Listed]:
    """Every name, sorted; one whose manifest or config is damaged is listed as that. Layers are not read."""
    return [_listed(tag, entry, store) for tag, entry in sorted(store.tags().items())]


def _listed(tag: str, entry: Descriptor, store: Store) -> Listed:
    kind = "zone" if tag.startswith("zones/") else next((x[:-1] for x in BUILT if tag.startswith(x)), "")
    kind = kind or ("image" if tag.startswith(PREFIX) else "other")
    named = Listed(
        shown_name(tag),
        kind,
        entry.digest,
        reference=entry.annotations.get(REFERENCE, ""),
        pulled=entry.annotations.get(PULLED, ""),
    )
    try:
        manifest = store.read_json(entry.digest)
        config_blob = Descriptor.from_json(manifest["config"])
        layers = [Descriptor.from_json(layer) for layer in manifest["layers"]]
        config = store.read_json(config_blob.digest) if config_blob.size_bytes > 2 else {}
    except PipelineError as error:
        return replace(named, damaged=str(error))
    except (KeyError, TypeError):
        return replace(named, damaged="no manifest of an image")
    said = config if isinstance(config, dict) else {}
    os, architecture, variant, created = (
        value if isinstance(value := said.get(key), str) else "" for key in ("os", "architecture", "variant", "created")
    )
    return replace(
        named,
        platform="/".join(part for part in (os, architecture, variant) if part) if os and architecture else "",
        layers=len(layers),
        size_bytes=entry.size_bytes + config_blob.size_bytes + sum(layer.size_bytes for layer in layers),
        created=created,
    )
