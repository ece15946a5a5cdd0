"""A strict push reader of layer tars: ustar, old GNU, PAX; it records where data lies and keeps none of it.

Where known readers disagree about an archive, the layer is refused, naming the offset and the rule
(which archives those are: robustness notes, "Tar syntax"; CVE-2025-62518 is what leniency leads to).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from pipeline.limits import Limits, limit_hint
from pipeline.tree import Entry, Kind, printable
from pipeline.unpack.errors import BadLayer, LimitExceeded
from pipeline.unpack.numbers import Malformed, decimal, number, pax_records, time_ns
from pipeline.unpack.sparse import (
    EXTENT_BYTES,
    checked_extents,
    map_count,
    old_gnu_extents,
    parse_map,
    pax_extents,
    sparse_version,
)
from pipeline.unpack.xattrs import is_xattr, kept_xattrs

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
META_MAX_BYTES = 1 << 20
ID_MAX = 2**32 - 2  # 2**32 - 1 is "no id" to chown(2)
MAJOR_MAX, MINOR_MAX = 0xFFF, 0xFFFFF  # squashfs and the kernel keep 12 and 20 bits
ENTRY_BYTES = 300  # what an entry does, beside its names and all that is counted as metadata
NO_XATTRS: dict[bytes, bytes] = {}  # one for all the entries that have none: they are many
MTIME_END_NS = 2**32 * 10**9  # squashfs counts seconds from 1970 in 32 bits

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
# In a global header these would change every following entry, and readers disagree whether they do.
_LOCAL_ONLY = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"hdrcharset")
_CHARSETS = (b"BINARY", b"ISO-IR 10646 2000 UTF-8")
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # "contiguous": POSIX says to treat it as regular
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHAR,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"S": Kind.FILE,
}


class TarReader:
    """`feed` it the bytes of one layer, `finish` it, and take `entries` and `warnings`.

    Raises:  BadLayer, LimitExceeded.
    """

    def __init__(self, limits: Limits, *, subject: str) -> None:
        self.entries: list[Entry] = []
        self.warnings: Counter[str] = Counter()
        self._limits, self._subject = limits, subject
        self._metadata_bytes = 0
        self._offset = 0  # of the next byte to come
        self._at = 0  # of the header being read
        self._skip = 0
        self._need = BLOCK
        self._buffer = bytearray()
        self._then: Callable[[bytes], None] = self._header
        self._pax: dict[bytes, bytes] | None = None
        self._sparse_records: list[tuple[bytes, bytes]] = []
        self._long: dict[bytes, bytes] = {}
        self._zero_blocks = 0
        self._ended = False

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory, about."""
        return ENTRY_BYTES * len(self.entries) + self._metadata_bytes

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the inflated layer, however they are cut."""
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
            elif self._ended:
                if data[at:].strip(b"\0"):
                    raise self._bad("only zeros after the end of the archive", "other bytes")
                step = end - at
            else:
                step = min(self._need - len(self._buffer), end - at)
                whole = not self._buffer and step == self._need
                block = data[at : at + step]
                if not whole:
                    self._buffer += block
                    if len(self._buffer) == self._need:
                        block, whole = bytes(self._buffer), True
                        self._buffer.clear()
                if whole:
                    self._offset += step
                    at += step
                    self._act(block)
                    continue
            self._offset += step
            at += step

    def finish(self) -> None:
        """Say that there are no more bytes."""
        if self._offset == 0:
            raise self._bad("a tar archive", "no bytes at all")
        if self._skip or self._buffer or self._then != self._header:
            raise self._bad("the archive to end after an entry", "its end in the middle of one")
        if self._pax is not None or self._long:
            raise self._bad("an entry after its extended header", "the end of the archive")

    def _act(self, block: bytes) -> None:
        try:
            self._then(block)
        except Malformed as error:
            raise self._bad(str(error), "something else") from error

    def _collect(self, size: int, then: Callable[[bytes], None]) -> None:
        self._need, self._then = size, then

    def _bad(self, expected: str, got: str) -> BadLayer:
        return BadLayer(f"{self._subject}: tar entry at byte {self._at}", expected=expected, got=got)

    # -- headers -------------------------------------------------------------------------------------------------------

    def _header(self, block: bytes) -> None:
        if block == ZERO_BLOCK:
            self._zero_blocks += 1
            if self._zero_blocks == 2:
                if self._pax is not None or self._long:
                    raise self._bad("an entry after its extended header", "the end of the archive")
                self._ended = True
            return
        self._at = self._offset - BLOCK
        if self._zero_blocks:
            raise self._bad("a second zero block to end the archive", "another header after a single one")
        fields = _HEADER.unpack(block)
        self._check_sum(block, fields[6])
        flag = fields[7]
        size = number(fields[4], "size")
        if size < 0:
            raise self._bad("a size of 0 or more", str(size))
        if flag in (b"x", b"g", b"L", b"K"):
            self._meta_header(flag, size)
            return
        kind = _KINDS.get(flag)
        if kind is None:
            raise self._bad("a type flag of POSIX or GNU tar", repr(flag)[1:])
        self._entry(block, fields, kind, size)

    def _check_sum(self, block: bytes, field: bytes) -> None:
        stated = number(field, "checksum")
        actual = sum(block) - sum(block[148:156]) + 8 * 0x20
        if stated != actual:
            # Some historical tars summed signed characters.
            high = sum(1 for byte in block[:148] + block[156:] if byte & 0x80)
            if stated != actual - 256 * high:
                raise self._bad(f"header checksum {actual}", str(stated))

    def _meta_header(self, flag: bytes, size: int) -> None:
        if not 0 < size <= META_MAX_BYTES:
            raise self._bad(f"an extended header of 1 to {META_MAX_BYTES} bytes", f"{size}")
        if self._pax is not None or (flag in (b"x", b"g") and self._long) or flag in self._long:
            raise self._bad("one extended header before an entry, PAX or GNU", "several that compete")
        handler = {b"x": self._local, b"g": self._global}.get(flag) or (lambda data: self._long_name(flag, data))

        def take(block: bytes) -> None:
            self._collect(BLOCK, self._header)
            handler(block[:size])

        self._collect(-(-size // BLOCK) * BLOCK, take)

    def _long_name(self, flag: bytes, data: bytes) -> None:
        name, terminator, rest = data.partition(b"\0")
        if not terminator or rest.strip(b"\0") or not name:
            raise self._bad("a long name ended by a zero byte", "none, or bytes after it")
        self._long[flag] = name

    def _global(self, data: bytes) -> None:
        for key, _ in pax_records(data):
            if key in _LOCAL_ONLY or key.startswith(b"GNU.sparse.") or is_xattr(key):
                raise self._bad("no entry fields in a global PAX header", printable(key))

    def _local(self, data: bytes) -> None:
        records = pax_records(data)
        self._pax = dict(records)
        self._sparse_records = [(key, value) for key, value in records if key.startswith(b"GNU.sparse.")]
        for key in (b"path", b"linkpath", b"GNU.sparse.name"):
            value = self._pax.get(key)
            if value is not None and (not value or b"\0" in value):
                raise self._bad(f"a PAX {key.decode()} that is a name", "an empty one, or one with a zero byte")
        if self._pax.get(b"hdrcharset", _CHARSETS[0]) not in _CHARSETS:
            raise self._bad("hdrcharset BINARY or UTF-8", printable(self._pax[b"hdrcharset"]))

    # -- entries -------------------------------------------------------------------------------------------------------

    def _entry(self, block: bytes, fields: tuple[bytes, ...], kind: Kind, size: int) -> None:
        if len(self.entries) >= self._limits.entries:
            raise self._exceeded("entries", f"at most {self._limits.entries} entries")
        pax, self._pax = self._pax or {}, None
        long, self._long = self._long, {}
        name, mode, uid, gid, _, mtime, _, flag, linkname, magic, _, _, _, major, minor, prefix = fields
        path = name.rstrip(b"\0")
        if b"\0" in path:
            raise self._bad("a name", "one with a zero byte")
        if magic == b"ustar\0" and prefix[0]:
            path = prefix.partition(b"\0")[0] + b"/" + path
        path = pax.get(b"path") or long.get(b"L") or path
        if b"size" in pax:
            size = decimal(pax[b"size"], "size")
            if size < 0:
                raise self._bad("a size of 0 or more", str(size))
        entry = Entry(path, kind, number(mode, "mode") & 0o7777, xattrs=NO_XATTRS, offset=self._offset)
        entry.uid, entry.gid = self._id(pax, b"uid", uid), self._id(pax, b"gid", gid)
        seconds = pax.get(b"mtime")
        entry.mtime_ns = number(mtime, "mtime") * 10**9 if seconds is None else time_ns(seconds, "mtime")
        if not 0 <= entry.mtime_ns < MTIME_END_NS:
            self.warnings["time outside 1970 to 2106, clamped in images"] += 1
        if pax:
            entry.xattrs = kept_xattrs(pax, self.warnings)
        if kind in (Kind.CHAR, Kind.BLOCK):
            entry.major, entry.minor = number(major, "major number"), number(minor, "minor number")
            if not (0 <= entry.major <= MAJOR_MAX and 0 <= entry.minor <= MINOR_MAX):
                raise self._bad(f"a device up to {MAJOR_MAX}:{MINOR_MAX}", f"{entry.major}:{entry.minor}")
        if kind is Kind.FILE and path.endswith(b"/"):
            entry.kind = Kind.DIRECTORY  # how V7 tar, which had no type for them, stored directories
        if entry.kind is not Kind.FILE and size:
            raise self._bad("no data with an entry that is not a regular file", f"{size} bytes")
        if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
            entry.target = self._target(pax.get(b"linkpath") or long.get(b"K") or linkname.rstrip(b"\0"))
        entry.size_bytes = size
        self.entries.append(entry)
        self._count_metadata(len(path) + len(entry.target))
        if entry.xattrs:
            self._count_metadata(sum(len(name) + len(value) for name, value in entry.xattrs.items()))
        self._data(block, entry, flag, pax)

    def _count_metadata(self, size_bytes: int) -> None:
        self._metadata_bytes += size_bytes
        if self._metadata_bytes > self._limits.metadata_bytes:
            limit = self._limits.metadata_bytes
            raise self._exceeded("metadata_bytes", f"at most {limit} bytes of names, link targets, xattrs, sparse maps")

    def _data(self, block: bytes, entry: Entry, flag: bytes, pax: dict[bytes, bytes]) -> None:
        stored = entry.size_bytes
        version = sparse_version(pax) if pax else None
        if flag == b"S":
            if version is not None or entry.kind is not Kind.FILE:
                raise self._bad("one sparse map on a regular file", "two, or another type")
            self._old_sparse(block, entry)
            return
        if version is not None:
            if flag not in (b"0", b"\0") or entry.kind is not Kind.FILE:
                raise self._bad("a sparse map on a regular file", "another type")
            entry.path = pax.get(b"GNU.sparse.name") or entry.path
            self._count_metadata(len(entry.path))
            if version == (1, 0):
                self._map_in_data(entry, pax, stored)
                return
            real, extents = pax_extents(self._sparse_records)
            self._make_sparse(entry, stored, real, extents)
        self._skip_data(entry, stored)

    def _skip_data(self, entry: Entry, stored: int) -> None:
        limit = self._limits.file_bytes
        if entry.size_bytes > limit:
            got = f"{entry.size_bytes} bytes"
            raise self._exceeded("file_bytes", f"a file of at most {limit} bytes", path=entry.path, got=got)
        self._skip = -(-stored // BLOCK) * BLOCK
        self._collect(BLOCK, self._header)

    def _make_sparse(self, entry: Entry, stored: int, real: int, extents: list[tuple[int, int]]) -> None:
        self._check_extents(len(extents))
        entry.extents = checked_extents(extents, real_bytes=real, stored_bytes=stored)
        self._count_metadata(EXTENT_BYTES * len(entry.extents))
        entry.size_bytes = real

    def _old_sparse(self, block: bytes, entry: Entry) -> None:
        extents, more = old_gnu_extents(block, at=386, count=4, more_at=482)
        real, stored = number(block[483:495], "real size"), entry.size_bytes

        def extension(block: bytes) -> None:
            found, again = old_gnu_extents(block, at=0, count=21, more_at=504)
            extents.extend(found)
            self._check_extents(len(extents))
            finish(again)

        def finish(again: bool) -> None:
            if again:
                self._collect(BLOCK, extension)
                return
            entry.offset = self._offset
            self._make_sparse(entry, stored, real, extents)
            self._skip_data(entry, stored)

        finish(more)

    def _map_in_data(self, entry: Entry, pax: dict[bytes, bytes], stored: int) -> None:
        real = decimal(pax.get(b"GNU.sparse.realsize", b""), "GNU.sparse.realsize")
        text = bytearray()
        lines_left = 0

        def take(block: bytes) -> None:
            nonlocal lines_left
            if not text:
                lines_left = 1 + 2 * map_count(block)
                self._check_extents(lines_left // 2)
            text.extend(block)
            lines_left -= block.count(b"\n")
            left = stored - len(text)
            if lines_left > 0:
                if left < BLOCK:
                    raise self._bad("a sparse map inside the entry's data", "a longer one")
                self._collect(BLOCK, take)
                return
            extents = parse_map(bytes(text))
            entry.offset = self._offset
            self._make_sparse(entry, left, real, extents)
            self._skip_data(entry, left)

        if stored < BLOCK:
            raise self._bad("a sparse map in the entry's data", f"{stored} bytes")
        self._collect(BLOCK, take)

    def _check_extents(self, count: int) -> None:
        if count > self._limits.extents:
            raise self._exceeded("extents", f"at most {self._limits.extents} pieces of a file")

    def _id(self, pax: dict[bytes, bytes], key: bytes, field: bytes) -> int:
        value = decimal(pax[key], key.decode()) if key in pax else number(field, key.decode())
        if not 0 <= value <= ID_MAX:
            raise self._bad(f"a {key.decode()} from 0 to {ID_MAX}", str(value))
        return value

    def _target(self, target: bytes) -> bytes:
        if not 0 < len(target) <= 4095 or b"\0" in target:
            raise self._bad("a link target of 1 to 4095 bytes", f"{printable(target)[:60]} of {len(target)}")
        return target

    def _exceeded(self, key: str, expected: str, *, path: bytes | None = None, got: str = "more") -> LimitExceeded:
        where = self._subject if path is None else f"{self._subject}: {printable(path)}"
        return LimitExceeded(where, expected=expected, got=got, hint=limit_hint(key))
