"""Sparse files in archives: GNU's pax form 1.0, in which a map of what is there stands before the data.

Without it a file that says to have a terabyte would be sent, and laid down, as one.
Source:  GNU tar manual, "PAX Format, Version 1.0"; lseek(2), SEEK_DATA.
"""

import errno
import posix

from runtime.init.agent import tarformat
from runtime.init.agent.tarformat import BadArchive

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

Extents = list[tuple[int, int]]
"""(offset, how many bytes) of what is there, in order."""

NAME = "GNUSparseFile.0/file"  # what readers see that do not know of this; the others have it from GNU.sparse.name
MAJOR, MINOR, PATH, REAL_SIZE = "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize"
_MAX_EXTENTS = 10_000  # what lies behind so many goes as one
_MAX_PIECES = 1 << 16  # of a map that is read
_MAX_SIZE = (1 << 63) - 1


def extents(fd: int, status: posix.stat_result) -> Extents | None:
    """What is there of a file; None where that is all of it. Leaves the descriptor where it likes."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return None
    found: Extents = []
    at = 0
    while at < size:
        try:
            start = posix.lseek(fd, at, posix.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return None  # a file system that knows no holes, as those in memory of the kernel's own: read it
            break  # there is nothing but a hole behind
        at = size if len(found) == _MAX_EXTENTS else posix.lseek(fd, start, posix.SEEK_HOLE)
        found.append((start, at - start))
    return None if found == [(0, size)] else found


def sparse_map(found: Extents, size: int) -> bytes:
    """The map of a file of this size. GNU tar has a hole at the end end with an empty piece."""
    pieces = found if found and sum(found[-1]) == size else [*found, (size, 0)]
    text = b"%d\n" % len(pieces) + b"".join([b"%d\n%d\n" % piece for piece in pieces])
    return text + bytes(tarformat.padding(len(text)))


def records(path: str, size: int) -> dict[str, str]:
    """What the pax header of a sparse file says."""
    return {MAJOR: "1", MINOR: "0", PATH: path, REAL_SIZE: str(size)}


class Expander:
    """The data of a sparse member: reads its map, and says of each piece where in the file it belongs.

    seek:  called with an offset before what lies there, and at last with the file's size.
    """

    def __init__(self, size: int, data: "Callable[[bytes], object]", seek: "Callable[[int], object]") -> None:
        self._size, self._data, self._seek = size, data, seek
        self._head = b""
        self._read = 0  # of the map, in bytes
        self._numbers: list[int] = []
        self._padding = -1  # behind the map, once it is known
        self._pieces: Extents = []
        self._left = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes. Raises BadArchive."""
        if self._padding:
            piece = self._behind_map(piece)
        while piece:
            while not self._left:
                if not self._pieces:
                    raise BadArchive("sparse file: expected as much data as its map says, got more")
                offset, self._left = self._pieces.pop()
                self._seek(offset)
            part, piece = piece[: self._left], piece[self._left :]
            self._left -= len(part)
            self._data(part)

    def finish(self) -> None:
        """There is no more of it. Raises BadArchive."""
        if self._padding or self._left or any(count for _, count in self._pieces):
            raise BadArchive("sparse file: expected as much data as its map says, got less")
        self._seek(self._size)

    def _behind_map(self, piece: bytes) -> bytes:
        """What of this comes behind the map and its padding."""
        piece, at = self._head + piece, 0
        while self._padding < 0:
            end = piece.find(b"\n", at, at + 20)
            if end < 0 and len(piece) - at < 20:
                self._head = piece[at:]
                return b""
            most = self._size if self._numbers else _MAX_PIECES
            self._numbers.append(_number(piece[at:end] if end >= 0 else piece[at : at + 20], most))
            self._read += end + 1 - at
            at = end + 1
            if len(self._numbers) > 2 * self._numbers[0]:
                self._padding = tarformat.padding(self._read)
                self._pieces = self._checked()
        self._head = b""
        passed = min(self._padding, len(piece) - at)
        self._padding -= passed
        return piece[at + passed :]

    def _checked(self) -> Extents:
        """The pieces, the last one first."""
        found = list(zip(self._numbers[1::2], self._numbers[2::2], strict=True))
        end = 0
        for offset, size in found:
            if offset < end or offset + size > self._size:
                within = f"pieces in order within {self._size} bytes"
                raise BadArchive(f"sparse file: expected {within}, got {size} bytes at {offset}")
            end = offset + size
        found.reverse()
        return found


def real_size(keys: dict[str, str]) -> int:
    """The size of the file that a pax header is about. Raises BadArchive for another form than 1.0."""
    form = (keys.get(MAJOR), keys.get(MINOR))
    if form != ("1", "0") or PATH not in keys:
        raise BadArchive(f"sparse file: expected one of GNU's form 1.0, got {form[0]}.{form[1]}")
    return _number(keys.get(REAL_SIZE, "").encode("ascii", "replace"), _MAX_SIZE)


def _number(digits: bytes, most: int) -> int:
    if not digits.isdigit() or len(digits) > 19 or int(digits) > most:
        raise BadArchive(f"sparse file: expected a number of at most {most}, got {digits[:40]!r}")
    return int(digits)
