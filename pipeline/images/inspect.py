"""What an image says about itself, as one model; and the facts of a squashfs file."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch.documents import Documents, documents
from pipeline.fetch.model import DEFAULT_PLATFORM, FetchParams
from pipeline.images.names import find, last_pulled
from pipeline.oci import TITLE, Digest

SQUASHFS_MAGIC = b"hsqs"


class BadSquashfs(PipelineError):
    """A file that begins like a squashfs image and is none."""


@dataclass(frozen=True)
class LayerFacts:
    """One layer of a manifest, or one file of an artifact. diff_id, created_by: "" where nothing says so."""

    digest: Digest
    media_type: str
    size_bytes: int
    diff_id: str = ""
    title: str = ""
    created_by: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlatformFacts:
    """One platform of an index."""

    platform: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True)
class ImageFacts:
    """An image's documents, brought together. size_bytes: of manifest, config and layers as they are stored.

    config: how to run it, in the words of the OCI image configuration (Entrypoint, Cmd, Env, …).
    """

    reference: str
    digest: Digest
    media_type: str
    artifact_type: str
    platform: str
    created: str
    size_bytes: int
    config_digest: Digest
    config_media_type: str
    annotations: dict[str, str]
    config: dict[str, Any]
    layers: tuple[LayerFacts, ...]
    index: Digest | None = None
    platforms: tuple[PlatformFacts, ...] = ()


@dataclass(frozen=True)
class SquashfsFacts:
    """The superblock of a squashfs file, and the digest of its bytes: what `pack` printed."""

    file: str
    digest: Digest
    size_bytes: int
    compression: str
    block_bytes: int
    inodes: int
    fragments: int
    ids: int
    made: str
    xattrs: bool


def inspect_image(text: str, env: Env, *, platform: str = "") -> ImageFacts:
    """The documents of what a user's words name; no layer is read.

    Raises:  what finding it and reading documents raise.
    """
    return facts_of(documents_of(text, env, platform=platform))


def documents_of(text: str, env: Env, *, platform: str = "") -> Documents:
    """The documents of a name, a digest or a reference; offline, a tag means what it did when it was last pulled."""
    stored = find(text, env.store, platform)
    if stored is None and env.offline:
        stored = last_pulled(text, env.store, platform)
    if stored is None:
        return documents(FetchParams(text, platform or DEFAULT_PLATFORM), env)
    asked = platform or stored.platform or DEFAULT_PLATFORM
    found = documents(FetchParams(f"oci:{env.store.root}@{stored.manifest.digest}", asked), env)
    return replace(found, reference=stored.subject)


def facts_of(found: Documents) -> ImageFacts:
    """Bring an image's documents together; what is of another type than it should be counts as not said."""
    manifest, config = found.manifest, found.config
    rootfs = config.get("rootfs")
    diff_ids = _texts(rootfs.get("diff_ids")) if isinstance(rootfs, dict) else []
    steps = _created_by(config.get("history"))
    if len(diff_ids) != len(manifest.layers):
        diff_ids = []
    if len(steps) != len(manifest.layers):
        steps = []
    layers = tuple(
        LayerFacts(
            layer.digest,
            layer.media_type,
            layer.size_bytes,
            diff_ids[number] if diff_ids else "",
            layer.annotations.get(TITLE, ""),
            steps[number] if steps else "",
            layer.annotations,
        )
        for number, layer in enumerate(manifest.layers)
    )
    names = [_text(config.get(key)) for key in ("os", "architecture", "variant")]
    run = config.get("config")
    return ImageFacts(
        reference=found.reference,
        digest=found.descriptor.digest,
        media_type=manifest.media_type,
        artifact_type=manifest.artifact_type,
        platform="/".join(name for name in names if name) if all(names[:2]) else "",
        created=_text(config.get("created")),
        size_bytes=sum(item.size_bytes for item in (found.descriptor, manifest.config, *manifest.layers)),
        config_digest=manifest.config.digest,
        config_media_type=manifest.config.media_type,
        annotations=manifest.annotations,
        config=run if isinstance(run, dict) else {},
        layers=layers,
        index=found.index.digest if found.index else None,
        platforms=tuple(PlatformFacts(name, to.digest, to.size_bytes) for name, to in found.offered),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in value] if isinstance(value, list) else []


def _created_by(history: Any) -> list[str]:
    """Of each step that made a layer, what it was."""
    steps = [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    return [_text(step.get("created_by")) for step in steps if step.get("empty_layer") is not True]


def is_squashfs(path: Path) -> bool:
    """Is there a file that begins as squashfs does?"""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == SQUASHFS_MAGIC
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def check_no_file(text: str) -> None:
    """Refuse the path of a file of another kind, which as a reference would only be nonsense. Raises BadSquashfs."""
    if text.startswith(("/", "./", "../")):
        got = "a file of another kind" if Path(text).exists() else "no such file"
        hint = "oci-archive:FILE and docker-archive:FILE are archives of images, oci:DIR is a layout"
        raise BadSquashfs(text, expected="a squashfs file", got=got, hint=hint)


def inspect_squashfs(path: Path) -> SquashfsFacts:
    """What a squashfs file says about itself. Raises BadSquashfs."""
    from PySquashfsImage.structure import Superblock

    names = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
    with open(path, "rb") as file:
        try:
            block = Superblock.from_fd(file)
        except (ValueError, struct.error, OSError) as error:
            raise BadSquashfs(str(path), expected="a squashfs superblock", got=str(error)) from error
        size = file.seek(0, 2)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if (block.s_major, block.s_minor) != (4, 0) or block.bytes_used > size:
        got = f"version {block.s_major}.{block.s_minor}, {block.bytes_used} bytes in a file of {size}"
        raise BadSquashfs(str(path), expected="squashfs 4.0, whole", got=got)
    return SquashfsFacts(
        file=str(path),
        digest=Digest("sha256", digest),
        size_bytes=size,
        compression=names.get(block.compression, f"number {block.compression}"),
        block_bytes=block.block_size,
        inodes=block.inodes,
        fragments=block.fragments,
        ids=block.no_ids,
        made=_utc(block.mkfs_time),
        xattrs=block.xattr_id_table_start != 0xFFFF_FFFF_FFFF_FFFF,
    )


def _utc(seconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
