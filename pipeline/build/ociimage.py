"""Layers and settings become an OCI image: config, manifest, a name in the store's index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.build.layer import Layer
from pipeline.build.model import ImageResult
from pipeline.oci import CONFIG, canonical_json
from pipeline.store import Store


def image_config(
    layers: Sequence[Layer], *, architecture: str, epoch: int, settings: Mapping[str, Any], history: Sequence[str]
) -> dict[str, Any]:
    """The config document. Source: OCI image specification, config.md."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [{"created": created, "created_by": line} for line in history],
    }


def store_image(
    store: Store, tag: str, layers: Sequence[Layer], config: Mapping[str, Any], annotations: Mapping[str, str]
) -> ImageResult:
    """Put config and manifest into the store and give the manifest its name."""
    config_blob = store.put(canonical_json(config), CONFIG)
    blobs = tuple(layer.descriptor for layer in layers)
    manifest = store.put_manifest(blobs, config=config_blob, annotations=annotations)
    store.tag(tag, manifest)
    return ImageResult(
        tag=tag,
        manifest=manifest,
        config=config_blob,
        layers=blobs,
        diff_ids=tuple(layer.diff_id for layer in layers),
    )
