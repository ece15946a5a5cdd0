"""GNU tar's four ways to write a sparse file's map, all to (offset, length) pairs.

Source:  GNU tar manual, "Storing Sparse Files": old GNU format, and PAX formats 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

import re

from pipeline.unpack.numbers import Malformed, decimal, number

EXTENT_BYTES = 128  # what one piece of a sparse file takes in memory, about

_LINE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


def sparse_version(pax: dict[bytes, bytes]) -> tuple[int, int] | None:
    """(major, minor) of the PAX sparse format in use, or None for an ordinary file."""
    if b"GNU.sparse.major" in pax or b"GNU.sparse.minor" in pax:
        version = (
            decimal(pax.get(b"GNU.sparse.major", b""), "GNU.sparse.major"),
            decimal(pax.get(b"GNU.sparse.minor", b""), "GNU.sparse.minor"),
        )
        if version != (1, 0):
            raise Malformed("sparse format 0.0, 0.1 or 1.0")
        return version
    if b"GNU.sparse.map" in pax:
        return (0, 1)
    if b"GNU.sparse.size" in pax or b"GNU.sparse.numblocks" in pax:
        return (0, 0)
    if any(key.startswith(b"GNU.sparse.") for key in pax):
        raise Malformed("a complete sparse map")
    return None


def pax_extents(records: list[tuple[bytes, bytes]]) -> tuple[int, list[tuple[int, int]]]:
    """(real size, map) of formats 0.0 (repeated records) and 0.1 (one list)."""
    last = dict(records)
    real = decimal(last.get(b"GNU.sparse.size", b""), "GNU.sparse.size")
    if b"GNU.sparse.map" in last:
        text = last[b"GNU.sparse.map"]
        numbers = [decimal(word, "GNU.sparse.map") for word in text.split(b",")] if text else []
    else:
        numbers = []
        for key, value in records:
            wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")[len(numbers) % 2]
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                if key != wanted:
                    raise Malformed("sparse offsets and lengths in turn")
                numbers.append(decimal(value, key.decode()))
    if len(numbers) % 2 or decimal(last.get(b"GNU.sparse.numblocks", b""), "numblocks") != len(numbers) // 2:
        raise Malformed("as many sparse pieces as GNU.sparse.numblocks says")
    return real, list(zip(numbers[::2], numbers[1::2], strict=True))


def old_gnu_extents(block: bytes, *, at: int, count: int, more_at: int) -> tuple[list[tuple[int, int]], bool]:
    """The map entries of an old GNU header or of an extension block, and whether another block follows."""
    extents = []
    for slot in range(at, at + 24 * count, 24):
        pair = block[slot : slot + 24]
        if not pair.strip(b"\0"):
            break
        extents.append((number(pair[:12], "sparse offset"), number(pair[12:], "sparse length")))
    return extents, block[more_at] not in (0, 0x30)


def map_count(block: bytes) -> int:
    """How many pieces the map at the start of a format 1.0 file's data has."""
    match = _LINE.match(block)
    if match is None:
        raise Malformed("a sparse map that begins with its count")
    return int(match[1])


def parse_map(text: bytes) -> list[tuple[int, int]]:
    """The map at the start of a format 1.0 file's data, padded with zeros."""
    count, *lines = text.split(b"\n")
    wanted = 2 * int(count)
    padding = b"\n".join(lines[wanted:])
    if padding.strip(b"\0"):
        raise Malformed("only zeros after the sparse map")
    numbers = [decimal(line, "sparse map") for line in lines[:wanted]]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def checked_extents(
    extents: list[tuple[int, int]], *, real_bytes: int, stored_bytes: int
) -> tuple[tuple[int, int], ...]:
    """The map without empty pieces. Raises Malformed unless sorted, apart, inside the file and as long as the data."""
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise Malformed("sparse pieces in order and apart")
        end = offset + length
        total += length
    if end > real_bytes:
        raise Malformed("sparse pieces inside the file")
    if total != stored_bytes:
        raise Malformed("as much data as the sparse map says")
    return tuple((offset, length) for offset, length in extents if length)
