"""The form of output logs: segments `out.000001`, `out.000002`, … of records, each with its own check sum.

record:  magic u8, stream u8, zero u16, length u32, crc32 u32, unix_s f64, offset u64, then `length` bytes.
offset:  of the data in its stream, counted from the start of the run: what the agent is asked to go on from.
stream 0 is a mark: {"run": ID, "offsets": {"1": n, "2": n}}; every segment begins with one, and so does every run.
A record that was torn by a crash fails its check sum; what was in it was never acknowledged, and comes again.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEADER = struct.Struct("<BBHIIdQ")
MAGIC = 0xA7
MARK, STDOUT, STDERR = 0, 1, 2
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}
MAX_DATA_BYTES = 1 << 20
PREFIX = "out."


@dataclass(frozen=True)
class Record:
    """One piece of output, or a mark."""

    stream: int
    unix_s: float
    offset: int
    data: bytes


@dataclass
class Position:
    """Which run a log is at, and how many bytes of each of its streams it has."""

    run: str = ""
    offsets: dict[int, int] = field(default_factory=lambda: {STDOUT: 0, STDERR: 0})

    def take(self, record: Record) -> None:
        """Go on over a record."""
        if record.stream == MARK:
            document = json.loads(record.data)
            self.run = str(document["run"])
            self.offsets = {int(stream): int(offset) for stream, offset in document["offsets"].items()}
        else:
            self.offsets[record.stream] = record.offset + len(record.data)

    def mark(self) -> bytes:
        """What a mark of this position holds."""
        offsets = {str(stream): offset for stream, offset in sorted(self.offsets.items())}
        return json.dumps({"run": self.run, "offsets": offsets}, separators=(",", ":")).encode()


def encode(record: Record) -> bytes:
    """The bytes of a record."""
    blank = HEADER.pack(MAGIC, record.stream, 0, len(record.data), 0, record.unix_s, record.offset)
    crc = zlib.crc32(record.data, zlib.crc32(blank))
    return HEADER.pack(MAGIC, record.stream, 0, len(record.data), crc, record.unix_s, record.offset) + record.data


def decode(data: bytes, at: int = 0) -> Iterator[tuple[Record, int]]:
    """Each whole record from `at` on, with the position behind it; ends before the first that is not whole."""
    while at + HEADER.size <= len(data):
        magic, stream, zero, length, crc, unix_s, offset = HEADER.unpack_from(data, at)
        end = at + HEADER.size + length
        if magic != MAGIC or zero or stream > STDERR or length > MAX_DATA_BYTES or end > len(data):
            return
        payload = data[at + HEADER.size : end]
        blank = HEADER.pack(magic, stream, 0, length, 0, unix_s, offset)
        if zlib.crc32(payload, zlib.crc32(blank)) != crc:
            return
        at = end
        yield Record(stream, unix_s, offset, payload), at


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments there are, in order."""
    found = []
    for path in directory.glob(f"{PREFIX}*"):
        number = path.name.removeprefix(PREFIX)
        if number.isascii() and number.isdigit():
            found.append((int(number), path))
    return sorted(found)


def segment_path(directory: Path, number: int) -> Path:
    """Where segment `number` is."""
    return directory / f"{PREFIX}{number:06}"
