"""Images in what `docker save` and `skopeo copy … docker-archive:` write: a manifest.json beside a config and layers.

Such an archive has no OCI manifest, so that one is made here, the same bytes for the same archive. Layers are plain
tars, whose digest is their diff_id; where one is compressed its digest is in its name, or its bytes are hashed.

Source:  Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from pipeline.errors import DigestMismatch
from pipeline.fetch.errors import BadImage, BadReference, NoSuchImage
from pipeline.fetch.layout import CONTAINERD_NAME, Files, LayoutSource, copy_bytes
from pipeline.fetch.manifest import LAYERS_MAX, MANIFEST_MAX_BYTES
from pipeline.fetch.reference import parse
from pipeline.oci import (
    CONFIG,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
    Digest,
    canonical_json,
    parse_json,
)
from pipeline.store import BlobWriter

_CONFIG_NAME = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_BLOB_NAME = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_MAGIC = {b"\x1f\x8b": LAYER_GZIP, b"\x28\xb5\x2f\xfd": LAYER_ZSTD}
HASH_BYTES = 1 << 20


class DockerArchiveSource:
    """Reads one image of an archive. Who asks checks what comes."""

    def __init__(self, files: Files, *, subject: str) -> None:
        self._files, self._subject = files, subject
        self._places: dict[Digest, str] = {}
        self._made = b""

    def resolve(self, name: str) -> tuple[Descriptor, bytes]:
        """The manifest made for the image of a name, or for the only one. Raises NoSuchImage, BadImage."""
        entry = self._entry(name)
        config, layers = entry.get("Config"), entry.get("Layers")
        if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(x, str) for x in layers):
            raise BadImage(f"{self._files}/manifest.json", expected="Config and Layers", got="neither")
        if len(layers) > LAYERS_MAX:
            raise BadImage(self._subject, expected=f"at most {LAYERS_MAX} layers", got=str(len(layers)))
        data = self._read(config)
        said, digest = _CONFIG_NAME.fullmatch(config), Digest.of(data)
        if said is not None and said[1] != digest.hex:
            raise DigestMismatch(f"config of {self._subject}", expected=f"digest sha256:{said[1]}", got=str(digest))
        ids = _diff_ids(data, len(layers), f"config of {self._subject}")
        self._places[digest] = config
        self._made = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(CONFIG, digest, len(data)).to_json(),
                "layers": [self._layer(*layer).to_json() for layer in zip(layers, ids, strict=True)],
            }
        )
        return Descriptor(MANIFEST, Digest.of(self._made), len(self._made)), self._made

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, str]:
        """The manifest that was made."""
        return self._made, MANIFEST

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        """Write a blob's bytes, one more than its size at most."""
        with self._files.open(self._places[descriptor.digest]) as file:
            copy_bytes(file, descriptor, writer, advance, subject)

    def stop(self) -> None:
        """A file keeps nobody waiting."""

    def _entry(self, name: str) -> dict[str, Any]:
        where = f"{self._files}/manifest.json"
        document = parse_json(self._read("manifest.json"), subject=where, limit_bytes=MANIFEST_MAX_BYTES)
        if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
            raise BadImage(where, expected="a list of images", got=type(document).__name__)
        tags = [[tag for tag in entry.get("RepoTags") or [] if isinstance(tag, str)] for entry in document]
        found = [entry for entry, own in zip(document, tags, strict=True) if not name or _named(name, own)]
        if len(found) == 1:
            return dict(found[0])
        expected = f"name {name}" if name else "exactly one image, as no name is given"
        there = ", ".join(tag for own in tags for tag in own) or "none with a name"
        raise NoSuchImage(self._subject, expected=expected, got=f"{len(found)} of them", hint=f"there: {there}"[:300])

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        size = self._files.size(name)
        if size is None:
            raise NoSuchImage(self._subject, expected=f"layer {name[:120]!r}", got="no such file in the archive")
        with self._files.open(name) as file:
            begin = file.read(4)
            media_type = next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), LAYER_TAR)
            if media_type == LAYER_TAR:
                digest = diff_id
            elif said := _BLOB_NAME.fullmatch(name):
                digest = Digest("sha256", said[1])
            else:
                seen = hashlib.sha256(begin)
                while data := file.read(HASH_BYTES):
                    seen.update(data)
                digest = Digest("sha256", seen.hexdigest())
        self._places[digest] = name
        return Descriptor(media_type, digest, size)

    def _read(self, name: str) -> bytes:
        try:
            with self._files.open(name) as file:
                return file.read(MANIFEST_MAX_BYTES + 1)
        except FileNotFoundError:
            raise NoSuchImage(
                self._subject, expected=f"an archive of docker save with {name[:120]}", got="none"
            ) from None


def named_layout(files: Files, name: str, *, subject: str) -> tuple[LayoutSource, Descriptor]:
    """The image of a name in an archive of newer Dockers that is an OCI layout and has no manifest.json."""
    layout = LayoutSource(files, subject=subject)
    return layout, layout.resolve(name, None, same=lambda entry: _named(name, [entry.annotations.get(CONTAINERD_NAME)]))


def _named(name: str, tags: list[Any]) -> bool:
    """Is one of these names, as Docker shortens them, the one asked for?"""
    wanted = str(parse(f"docker://{name}"))
    for tag in tags:
        try:
            if isinstance(tag, str) and str(parse(f"docker://{tag}")) == wanted:
                return True
        except BadReference:
            continue
    return False


def _diff_ids(config: bytes, count: int, subject: str) -> list[Digest]:
    document = parse_json(config, subject=subject)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or len(found) != count:
        got = str(len(found)) if isinstance(found, list) else "none"
        raise BadImage(subject, expected=f"{count} diff_ids, one per layer", got=got)
    return [Digest.parse(item) for item in found]
