"""Tars and images made by hand: layers entry by entry, broken ones included; images as OCI layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 512


@dataclass
class Member:
    """One tar member for `tar_bytes`; `kind` is the type flag."""

    name: str | bytes
    data: bytes = b""
    kind: bytes = b"0"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str | bytes = b""
    device: tuple[int, int] = (0, 0)
    pax: Sequence[tuple[str | bytes, str | bytes]] = ()
    raw: dict[str, Any] = field(default_factory=dict)  # size=, magic=, checksum=, prefix=, uid= … as bytes


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def number(value: int, width: int) -> bytes:
    """Octal where it fits, base-256 where not."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value + (1 << 8 * width) if value < 0 else value + (0x80 << 8 * (width - 1))).to_bytes(width, "big")


def header(member: Member, *, kind: bytes | None = None, name: bytes | None = None, size: int | None = None) -> bytes:
    """A ustar header; `member.raw` replaces single fields by bytes."""
    name = _bytes(member.name) if name is None else name
    link = _bytes(member.link)
    fields: dict[str, tuple[int, int, bytes]] = {
        "name": (0, 100, name[:100]),
        "mode": (100, 8, number(member.mode, 8)),
        "uid": (108, 8, number(member.uid, 8)),
        "gid": (116, 8, number(member.gid, 8)),
        "size": (124, 12, number(len(member.data) if size is None else size, 12)),
        "mtime": (136, 12, number(member.mtime, 12)),
        "kind": (156, 1, kind or member.kind),
        "link": (157, 100, link[:100]),
        "magic": (257, 8, b"ustar\x0000"),
        "uname": (265, 32, b""),
        "gname": (297, 32, b""),
        "major": (329, 8, number(member.device[0], 8)),
        "minor": (337, 8, number(member.device[1], 8)),
        "prefix": (345, 155, b""),
    }
    block = bytearray(BLOCK)
    for key, (at, width, value) in fields.items():
        value = member.raw.get(key, value) if kind is None else value
        block[at : at + len(value[:width])] = value[:width]
    block[148:156] = b" " * 8
    block[148:156] = member.raw["checksum"] if kind is None and "checksum" in member.raw else b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Data with zeros up to a whole block."""
    return data + bytes(-len(data) % BLOCK)


def record(key: str | bytes, value: str | bytes) -> bytes:
    """One PAX record."""
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    size = len(body) + len(str(len(body)))
    size += len(str(size)) > len(str(len(body)))
    return b"%d" % size + body


def extra(kind: bytes, data: bytes) -> bytes:
    """An extended header: kind x, g, L or K."""
    return header(Member(b"extra", data), kind=kind, name=b"././@extra") + padded(data)


def member_bytes(member: Member) -> bytes:
    """A member with the extended headers it needs."""
    records = b"".join(record(key, value) for key, value in member.pax)
    given = {_bytes(key) for key, _ in member.pax}
    name, link = _bytes(member.name), _bytes(member.link)
    if len(name) > 100 and b"path" not in given:
        records += record("path", name)
    if len(link) > 100 and b"linkpath" not in given:
        records += record("linkpath", link)
    return (extra(b"x", records) if records else b"") + header(member) + padded(member.data)


def tar_bytes(members: Iterable[Member | bytes], *, end: bytes = bytes(2 * BLOCK)) -> bytes:
    """A tar of members; bytes among them are put in as they are."""
    return b"".join(item if isinstance(item, bytes) else member_bytes(item) for item in members) + end


def tar_of(tree: Mapping[Any, Any]) -> bytes:
    """A tar of a mapping, in its order.

    "name/": None a directory; "name": bytes a file; "name": "-> target" a symlink; "name": "=> target" a hardlink;
    "name": Member anything else (its own name is replaced).
    """
    members = []
    for name, value in tree.items():
        match value:
            case Member():
                value.name = name
                members.append(value)
            case None:
                members.append(Member(name, kind=b"5", mode=0o755))
            case bytes():
                members.append(Member(name, value))
            case str() if value.startswith("-> "):
                members.append(Member(name, kind=b"2", mode=0o777, link=value[3:]))
            case str() if value.startswith("=> "):
                members.append(Member(name, kind=b"1", link=value[3:]))
            case _:
                raise ValueError(f"{name}: {value!r}")
    return tar_bytes(members)


def sha256(data: bytes) -> str:
    """The digest text of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compress(tar: bytes, compression: str) -> bytes:
    """gzip, zstd or none."""
    if compression == "gzip":
        return gzip.compress(tar, 6, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=3).compress(tar)
    return tar


@dataclass
class Image:
    """An image in memory: documents and blobs by digest."""

    manifest: bytes
    config: bytes
    blobs: dict[str, bytes]
    media_type: str = "application/vnd.oci.image.manifest.v1+json"

    @property
    def digest(self) -> str:
        return sha256(self.manifest)

    @property
    def layers(self) -> list[str]:
        """The digests of the layers, bottom first."""
        return [layer["digest"] for layer in json.loads(self.manifest)["layers"]]


def image_of(
    *tars: bytes, compression: str = "gzip", config: Mapping[str, Any] | None = None, architecture: str = "amd64"
) -> Image:
    """An image whose layers are these tars, bottom first."""
    suffix = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[compression]
    blobs, layers = {}, []
    for tar in tars:
        blob = compress(tar, compression)
        blobs[sha256(blob)] = blob
        media_type = "application/vnd.oci.image.layer.v1.tar" + suffix
        layers.append({"mediaType": media_type, "digest": sha256(blob), "size": len(blob)})
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        **(config or {}),
    }
    config_bytes = json.dumps(document).encode()
    blobs[sha256(config_bytes)] = config_bytes
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(config_bytes),
            "size": len(config_bytes),
        },
        "layers": layers,
    }
    return Image(json.dumps(manifest).encode(), config_bytes, blobs)


def write_layout(directory: Path, images: Mapping[str, Image]) -> Path:
    """An OCI layout of images by tag."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    entries = []
    for tag, image in images.items():
        for digest, data in [*image.blobs.items(), (image.digest, image.manifest)]:
            (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        annotations = {"org.opencontainers.image.ref.name": tag}
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": annotations,
            }
        )
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def python_tar(fill: Any, *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by the standard library, as a second opinion: `fill(tarfile)` adds the members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        fill(tar)
    return out.getvalue()
