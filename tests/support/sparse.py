"""Sparse files in a tar, in the three PAX ways GNU tar has; `pieces` are (offset, length) in the file."""

from __future__ import annotations

from support.tars import Member, number, padded, tar_bytes


def sparse_1_0(*, pieces: list[tuple[int, int]], real: int, data: bytes, text: bytes | None = None) -> bytes:
    """Format 1.0: the map before the data; `text` stands for another map."""
    lines = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    keys = {"major": "1", "minor": "0", "name": "s", "realsize": str(real)}
    body = padded(lines if text is None else text) + data
    return tar_bytes([Member("GNUSparseFile.0/s", body, pax=[(f"GNU.sparse.{key}", keys[key]) for key in keys])])


def sparse_0_1(pieces: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    """Format 0.1: the map as one record."""
    listed = ",".join(f"{offset},{length}" for offset, length in pieces)
    keys = {"numblocks": str(len(pieces)), "map": listed, "size": str(real), "name": "s"}
    return tar_bytes([Member("x", data, pax=[(f"GNU.sparse.{key}", keys[key]) for key in keys])])


def sparse_0_0(pieces: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    """Format 0.0: two records for each piece."""
    records = [("GNU.sparse.size", str(real)), ("GNU.sparse.numblocks", str(len(pieces)))]
    for offset, length in pieces:
        records += [("GNU.sparse.offset", str(offset)), ("GNU.sparse.numbytes", str(length))]
    return tar_bytes([Member("s", data, pax=records)])


def sparse_old(pieces: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    """Old GNU format, up to four pieces in the header itself."""
    table = b"".join(number(offset, 12) + number(length, 12) for offset, length in pieces)
    # What ustar calls the prefix begins at byte 345; the table at 386, the real size at 483.
    area = bytes(41) + table.ljust(96, b"\0") + b"\0" + number(real, 12)
    return tar_bytes([Member("s", data, kind=b"S", raw={"magic": b"ustar  \0", "prefix": area})])
