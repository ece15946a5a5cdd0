"""What fetching takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.oci import Descriptor, Digest

DEFAULT_PLATFORM = "linux/amd64"


@dataclass(frozen=True)
class FetchParams:
    """reference: as the user wrote it (see reference.py); platform: os/architecture[/variant]."""

    reference: str
    platform: str = DEFAULT_PLATFORM


@dataclass(frozen=True)
class FetchResult:
    """An image whose blobs are all in the store, verified. layers[i] inflates to diff_ids[i].

    annotations, artifact_type: the manifest's own.
    """

    reference: str
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
