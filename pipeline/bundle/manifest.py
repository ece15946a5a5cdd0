"""The bundle's form as an OCI artifact: its model is the config, its parts are the layers."""

from __future__ import annotations

from pipeline.bundle.model import (
    ADDONS_SQUASHFS,
    ARTIFACT_TYPE,
    INITRD_SEGMENT,
    KERNEL_ELF,
    ROOTFS_SQUASHFS,
    SPEC,
    VOLUME_SQUASHFS,
    Bundle,
)
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import TITLE as TITLE
from pipeline.oci import BadDocument, Descriptor, canonical_json
from pipeline.recipe import unknown
from pipeline.store import Store

TAG_PREFIX = "zones/"
ORIGIN = "dev.zonewright.origin"  # on the name of a bundle that was not built here: where it came from


def parts(bundle: Bundle) -> list[Descriptor]:
    """The blobs a boot reads, each once, with the media type of its role and a title for people."""
    roles = [(KERNEL_ELF, "kernel.elf", bundle.kernel), (ROOTFS_SQUASHFS, "rootfs.squashfs", bundle.rootfs)]
    roles += [(INITRD_SEGMENT, f"initrd.{index}.cpio", part) for index, part in enumerate(bundle.initrd)]
    if bundle.addons is not None:
        roles.append((ADDONS_SQUASHFS, "addons.squashfs", bundle.addons))
    volumes = {volume.blob.digest: volume.blob for volume in bundle.volumes if volume.blob is not None}
    roles += [(VOLUME_SQUASHFS, f"volume.{index}.squashfs", blob) for index, blob in enumerate(volumes.values())]
    return [Descriptor(media, part.digest, part.size_bytes, {TITLE: title}) for media, title, part in roles]


def put(store: Store, bundle: Bundle) -> Descriptor:
    """Store config and manifest of a bundle, without a name; the parts must be in the store already."""
    config = store.put(canonical_json(to_json(bundle)), SPEC)
    return store.put_manifest(parts(bundle), config=config, artifact_type=ARTIFACT_TYPE)


def write(store: Store, bundle: Bundle) -> Descriptor:
    """Store a bundle, as `put`, and give it its name."""
    manifest = put(store, bundle)
    store.tag(TAG_PREFIX + bundle.name, manifest)
    return manifest


def read(store: Store, manifest: Descriptor) -> Bundle:
    """The bundle of a manifest in the store.

    Raises:  BadDocument when the manifest is no bundle, StoreDamaged when a document is missing or altered.
    """
    document = store.read_json(manifest.digest)
    if document.get("artifactType") != ARTIFACT_TYPE:
        raise BadDocument(
            f"manifest {manifest.digest.short}",
            expected=f"artifactType {ARTIFACT_TYPE}",
            got=str(document.get("artifactType")),
        )
    config = Descriptor.from_json(document.get("config"), subject=f"config of {manifest.digest.short}")
    return from_json(Bundle, store.read_json(config.digest), subject=f"bundle {manifest.digest.short}")


def layers(store: Store, manifest: Descriptor) -> list[Descriptor]:
    """What the artifact carries. Raises BadDocument, StoreDamaged."""
    document = store.read_json(manifest.digest)
    return [Descriptor.from_json(item, subject=f"layer of {manifest.digest.short}") for item in document["layers"]]


def find(store: Store, name: str) -> tuple[Descriptor, Bundle]:
    """The bundle a zone's name stands for in this store; raises UnknownName."""
    tags = store.tags()
    if (manifest := tags.get(TAG_PREFIX + name)) is None:
        known = [tag.removeprefix(TAG_PREFIX) for tag in tags if tag.startswith(TAG_PREFIX)]
        raise unknown("built zone", name, known)
    return manifest, read(store, manifest)
