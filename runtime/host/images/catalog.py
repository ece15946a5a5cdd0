"""The images that are packed: each an artifact in the store, named `packed/FORMAT/DIGEST` by the image's manifest.

The artifact holds the file system, and the image's manifest, config and account files; its names are those under
which the image was pulled (pipeline/images/names.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.fetch.errors import NoSuchImage
from pipeline.images.names import PREFIX, REFERENCE, SCHEME, shown_name
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store
from runtime.host.images.model import Format, Packed

ARTIFACT_TYPE = "application/vnd.zonewright.packed.v1"
TAG_PREFIX = "packed/"
ROLE = "dev.zonewright.packed.role"


@dataclass(frozen=True)
class Entry:
    """A packed image and the names it was pulled by."""

    packed: Packed
    names: tuple[str, ...]


def add(store: Store, packed: Packed) -> None:
    """Name a packed image; all of its blobs are in the store."""
    roles = {"rootfs": packed.rootfs, "manifest": packed.manifest, "passwd": packed.passwd, "group": packed.group}
    parts = [
        Descriptor(blob.media_type, blob.digest, blob.size_bytes, {ROLE: role}) for role, blob in roles.items() if blob
    ]
    artifact = store.put_manifest(parts, config=packed.config, artifact_type=ARTIFACT_TYPE)
    store.tag(_tag(packed.digest, packed.format), artifact)


def find(store: Store, digest: str, format: Format) -> Packed:
    """The image of that digest in that format. Raises NoSuchImage, BadDigest."""
    parsed = Digest.parse(digest)
    tags = store.tags()
    if (tag := tags.get(_tag(parsed, format))) is None:
        there = [other.value for other in Format if _tag(parsed, other) in tags]
        raise _missing(parsed, format, f"it as {' and '.join(there)}" if there else "none")
    try:
        return _read(store, tag, parsed, format)
    except (KeyError, TypeError):
        raise _missing(parsed, format, "one that another zonewright packed in a way of its own") from None


def _missing(digest: Digest, format: Format, got: str) -> NoSuchImage:
    hint = "PullImage or ImportImage brings it"
    return NoSuchImage(f"image {digest.short}", expected=f"it as {format.value}", got=got, hint=hint)


def entries(store: Store) -> list[Entry]:
    """Every packed image; one whose documents are damaged is left out, and is made again by the next pull.

    Left out too is what another version packed in a way of its own.
    """
    tags = store.tags()
    found = []
    for tag, artifact in sorted(tags.items()):
        if not tag.startswith(TAG_PREFIX):
            continue
        format, _, rest = tag.removeprefix(TAG_PREFIX).partition("/")
        try:
            digest = Digest.parse(rest.replace("-", ":"))
            packed = _read(store, artifact, digest, Format(format))
        except (PipelineError, KeyError, TypeError, ValueError):
            continue
        found.append(Entry(packed, _names(tags, digest)))
    return found


def remove(store: Store, digest: str, format: Format | None) -> bool:
    """Take an image in a format away, or, for None, in all formats and with its names. Was there any?

    The blobs go with the next gc of the store.
    """
    parsed = Digest.parse(digest)
    tags = store.tags()
    gone = [tag for other in Format if format in (None, other) and (tag := _tag(parsed, other)) in tags]
    others = any(_tag(parsed, other) in tags for other in Format if _tag(parsed, other) not in gone)
    if not others:
        gone += [tag for tag, entry in tags.items() if tag.startswith(PREFIX) and entry.digest == parsed]
    for tag in gone:
        store.untag(tag)
    return bool(gone)


def _tag(digest: Digest, format: Format) -> str:
    return f"{TAG_PREFIX}{format.value}/{digest.algorithm}-{digest.hex}"


def _names(tags: dict[str, Descriptor], digest: Digest) -> tuple[str, ...]:
    named = [(tag, entry) for tag, entry in tags.items() if tag.startswith(PREFIX) and entry.digest == digest]
    names = (entry.annotations.get(REFERENCE, shown_name(tag)) for tag, entry in named)
    return tuple(sorted(name.removeprefix(SCHEME) for name in names))


def _read(store: Store, artifact: Descriptor, digest: Digest, format: Format) -> Packed:
    document = store.read_json(artifact.digest)
    parts: dict[str, Descriptor] = {}
    for item in document["layers"]:
        blob = Descriptor.from_json(item)
        parts[blob.annotations.get(ROLE, "")] = Descriptor(blob.media_type, blob.digest, blob.size_bytes)
    return Packed(
        digest,
        format,
        rootfs=parts["rootfs"],
        manifest=parts["manifest"],
        config=Descriptor.from_json(document["config"]),
        passwd=parts.get("passwd"),
        group=parts.get("group"),
    )
