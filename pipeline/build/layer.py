"""OCI layers whose bytes depend on their entries alone: our own tar records, gzip without name or time."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.build.roottree import Entry
from pipeline.oci import LAYER_GZIP, Descriptor, Digest
from pipeline.store import Store
from pipeline.tarstream import BLOCK, END, padding, pax_record

CHUNK_BYTES = 1 << 20
GZIP_LEVEL = 6


@dataclass(frozen=True)
class Layer:
    """A layer as stored, and the digest of its tar."""

    descriptor: Descriptor
    diff_id: Digest


def write_layer(store: Store, entries: Iterable[Entry]) -> Layer:
    """Put the layer of these entries, which must be sorted, into the store."""
    tar_hash = hashlib.sha256()
    gzip = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)  # 31: a gzip header, which zlib fills with time 0
    with store.writer() as writer:
        for chunk in tar_bytes(entries):
            tar_hash.update(chunk)
            writer.write(gzip.compress(chunk))
        writer.write(gzip.flush())
        descriptor = writer.commit(media_type=LAYER_GZIP)
    return Layer(descriptor, Digest("sha256", tar_hash.hexdigest()))


def tar_bytes(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The entries as a tar stream in POSIX pax form, up to its two closing zero blocks.

    Source:  IEEE Std 1003.1, pax, "pax Interchange Format" and "ustar Interchange Format".
    """
    for entry in entries:
        yield from _records(entry)
    yield END


def _records(entry: Entry) -> Iterator[bytes]:
    name = os.fsencode(entry.path) + (b"/" if entry.is_dir else b"")
    linkname = os.fsencode(entry.linkname)
    kind, size = entry.kind, entry.size_bytes
    if entry.group and entry.path != entry.group[0]:
        kind, size, linkname = tarfile.LNKTYPE, 0, os.fsencode(entry.group[0])
    pax: list[tuple[bytes, bytes]] = []
    if len(name) > 100:
        pax.append((b"path", name))
    if len(linkname) > 100:
        pax.append((b"linkpath", linkname))
    if kind != tarfile.LNKTYPE:
        pax += [(b"SCHILY.xattr." + os.fsencode(key), value) for key, value in entry.xattrs]
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid), (b"size", size), (b"mtime", entry.mtime)):
        if number >= 8 ** (11 if key in (b"size", b"mtime") else 7):
            pax.append((key, b"%d" % number))
    if pax:
        body = b"".join(pax_record(key, value) for key, value in sorted(pax))
        yield _header(b"././@PaxHeader", b"x", 0o644, size=len(body)) + body + padding(len(body))
    yield _header(
        name[:100],
        kind,
        entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=size,
        mtime=entry.mtime,
        linkname=linkname[:100],
        device=entry.device,
    )
    if size:
        yield from contents(entry)
        yield padding(size)


def _header(
    name: bytes,
    kind: bytes,
    mode: int,
    *,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One ustar header block; numbers too long for their field are 0 here and stand in a pax record."""
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            _octal(mode, 8),
            _octal(uid, 8),
            _octal(gid, 8),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,
            kind,
            linkname.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),  # no user and group names: the host that unpacks would look them up
            _octal(device[0], 8),
            _octal(device[1], 8),
        )
    ).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    digits = b"%0*o" % (width - 1, number)
    return (digits if len(digits) < width else b"0" * (width - 1)) + b"\0"


def contents(entry: Entry) -> Iterator[bytes]:
    """The bytes of a regular file, piece by piece."""
    if entry.tar is None:
        yield entry.content
        return
    with open(entry.tar, "rb") as file:
        file.seek(entry.offset)
        left = entry.size_bytes
        while left:
            chunk = file.read(min(left, CHUNK_BYTES))
            yield chunk
            left -= len(chunk)
