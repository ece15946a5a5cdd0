"""The data of a squashfs image: blocks compressed by all cores, written in order, equal ones written once.

A file is full blocks, then a tail, which lies with other files' tails in a fragment block. What goes where depends on
the order of the files and on their bytes alone: threads only decide when a block is ready.

Source:  Linux Documentation/filesystems/squashfs.rst, "Squashfs filesystem design".
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from pipeline.squashfs.library import Compress, SquashFailed
from pipeline.squashfs.twins import Twins

UNCOMPRESSED = 1 << 24  # in the size word of a block
NO_FRAGMENT = 0xFFFFFFFF
COMPARE_BYTES = 1 << 20
AHEAD_BYTES = 8 << 20  # of blocks on their way through the compressor
WINDOW_BYTES = 128 << 10
WINDOWS = 16
HEAD_BYTES = 4096
HASH_BYTES = 16


class Piece(NamedTuple):
    """Bytes of an open file; those of a hole where fd is -1."""

    fd: int
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """All of it."""
        if self.fd < 0:
            return bytes(self.size_bytes)
        data = os.pread(self.fd, self.size_bytes, self.offset)
        if len(data) != self.size_bytes:
            raise SquashFailed("inflated layer", expected=f"{self.size_bytes} bytes at {self.offset}", got="its end")
        return data


class Windows:
    """Reads many small pieces that mostly follow one another, as small files do in a layer, with few calls."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, bytes]] = {}  # by file: where the last window begins, and its bytes

    def read(self, piece: Piece) -> bytes:
        """The bytes of a piece."""
        if piece.fd < 0 or piece.size_bytes > WINDOW_BYTES // 2:
            return piece.read()
        start, data = self._kept.get(piece.fd, (0, b""))
        at = piece.offset - start
        if at < 0 or at + piece.size_bytes > len(data):
            data, at = os.pread(piece.fd, WINDOW_BYTES, piece.offset), 0
            if len(self._kept) >= WINDOWS:
                self._kept.clear()
            self._kept[piece.fd] = (piece.offset, data)
            if len(data) < piece.size_bytes:
                return piece.read()  # says what is missing
        return data[at : at + piece.size_bytes]


class _Tail(NamedTuple):
    """A tail that was stored: where it was read, and where it lies now."""

    fd: int
    offset: int
    size_bytes: int
    fragment: int
    fragment_offset: int

    def read(self) -> bytes:
        return os.pread(self.fd, self.size_bytes, self.offset)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


@dataclass(slots=True, eq=False)
class Stored:
    """Where a file's data lies in the image; complete once `ready`."""

    size_bytes: int
    blocks_start: int = 0
    blocks: list[int] = field(default_factory=list)  # size words; 0 is a hole
    fragment: int = NO_FRAGMENT
    fragment_offset: int = 0
    hole_bytes: int = 0
    ready: bool = False
    head: int = 0  # a checksum of what its first block begins with


@dataclass(slots=True, eq=False)
class _Job:
    """One block under way. stored: the file it belongs to; None for a fragment block."""

    pieces: tuple[Piece, ...]
    stored: Stored | None
    data: bytes = b""  # of a fragment block
    word: int = 0
    packed: bytes = b""
    error: BaseException | None = None
    done: bool = False


class Compressors:
    """Threads that read and compress blocks.

    make:    a compressor for one thread.
    """

    def __init__(self, make: Callable[[], Compress], *, threads: int, block_bytes: int) -> None:
        self._todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._make, self._zeros = make, bytes(block_bytes)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; what they have not begun is not done."""
        while not self._todo.empty():
            try:
                self._todo.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def put(self, job: _Job) -> None:
        """Begin a job."""
        self._todo.put(job)

    def wait(self, job: _Job) -> None:
        """Until that job is done; raises what it raised."""
        while not job.done:
            self._done.get().done = True
        if job.error is not None:
            raise job.error

    def settle(self) -> None:
        """Note which jobs are done, without waiting."""
        while not self._done.empty():  # this thread alone takes from it
            self._done.get().done = True

    def _work(self) -> None:
        compress: Compress | None = None
        while (job := self._todo.get()) is not None:
            try:
                compress = compress or self._make()
                self._compress(job, compress)
            except BaseException as error:
                job.error = error
            self._done.put(job)

    def _compress(self, job: _Job, compress: Compress) -> None:
        data = job.data or (job.pieces[0].read() if len(job.pieces) == 1 else b"".join(p.read() for p in job.pieces))
        job.data = b""
        if job.stored is not None and data == self._zeros:
            return
        packed = compress(data)
        if packed is None:
            job.packed, job.word = data, len(data) | UNCOMPRESSED
        else:
            job.packed, job.word = packed, len(packed)


class BlockWriter:
    """Writes files' data to `fd` from `start` on; `fragments` are (position, size word), in order.

    threads: of the compressor; the bytes do not depend on it.
    """

    def __init__(self, fd: int, start: int, make: Callable[[], Compress], *, threads: int, block_bytes: int) -> None:
        self.fragments: list[tuple[int, int]] = []
        self.end = start
        self._fd, self._block_bytes = fd, block_bytes
        self._window = max(AHEAD_BYTES // block_bytes, 2 * threads)
        self._compressors = Compressors(make, threads=threads, block_bytes=block_bytes)
        self._under_way: deque[_Job | Stored] = deque()  # jobs, and after a file's last one the file
        self._jobs = 0
        self._tails: Twins[_Tail] = Twins(lambda tail: _hash(tail.read()))
        self._files: Twins[tuple[int, int]] = Twins(self._hash_written)  # where they begin, their size in bytes
        self._windows = Windows()
        self._fragment: list[bytes] = []
        self._fragment_bytes = self._fragment_count = 0

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compressors.close()

    def add(self, size_bytes: int, blocks: Iterable[tuple[Piece, ...]]) -> Stored:
        """Take a file, given as the pieces of each of its blocks."""
        stored = Stored(size_bytes)
        left, tail = size_bytes, None
        for pieces in blocks:
            if left < self._block_bytes:
                tail = pieces
                break
            left -= self._block_bytes
            self._begin(_Job(pieces, stored))
        if left == size_bytes:
            stored.ready = True  # it has a tail at most
        else:
            # Before the tail, which may send off a fragment block: what lies before this mark is the file's alone.
            self._under_way.append(stored)
            self._advance(self._window)
        if tail is not None:
            self._add_tail(stored, tail, left)
        return stored

    def finish(self) -> None:
        """Write what is left."""
        self._flush_fragment()
        self._advance(0)

    def _begin(self, job: _Job) -> None:
        self._under_way.append(job)
        self._jobs += 1
        if job.stored is None or any(piece.fd >= 0 for piece in job.pieces):
            self._compressors.put(job)
        else:
            job.done = True
        self._advance(self._window)

    def _add_tail(self, stored: Stored, pieces: tuple[Piece, ...], size_bytes: int) -> None:
        data = b"".join(map(self._windows.read, pieces))
        same: list[_Tail] | None = None
        if len(pieces) == 1 and pieces[0].fd >= 0:
            same = self._tails.like((size_bytes, zlib.crc32(data[:HEAD_BYTES])), lambda: _hash(data))
            for tail in same:
                if tail.read() == data:
                    stored.fragment, stored.fragment_offset = tail.fragment, tail.fragment_offset
                    return
        if self._fragment_bytes + size_bytes > self._block_bytes:
            self._flush_fragment()
        if same is not None:
            where = (self._fragment_count, self._fragment_bytes)
            same.append(_Tail(pieces[0].fd, pieces[0].offset, size_bytes, *where))
        stored.fragment, stored.fragment_offset = self._fragment_count, self._fragment_bytes
        self._fragment.append(data)
        self._fragment_bytes += size_bytes

    def _flush_fragment(self) -> None:
        if self._fragment:
            data, self._fragment, self._fragment_bytes = b"".join(self._fragment), [], 0
            self._fragment_count += 1
            self._begin(_Job((), None, data))

    def _advance(self, jobs: int) -> None:
        """Write what is ready, in order, until at most so many jobs are under way."""
        self._compressors.settle()
        while self._under_way:
            first = self._under_way[0]
            if isinstance(first, Stored):
                self._complete(first)
            elif first.done or self._jobs > jobs:
                self._compressors.wait(first)
                self._jobs -= 1
                self._write(first)
            else:
                return
            self._under_way.popleft()

    def _write(self, job: _Job) -> None:
        if job.stored is None:
            self.fragments.append((self.end, job.word))
        else:
            stored = job.stored
            if not stored.blocks:
                stored.blocks_start, stored.head = self.end, zlib.crc32(job.packed[:HEAD_BYTES])
            stored.blocks.append(job.word)
            stored.hole_bytes += 0 if job.word else self._block_bytes
        view = memoryview(job.packed)
        while view:
            done = os.pwrite(self._fd, view, self.end)
            view, self.end = view[done:], self.end + done
        job.packed = b""

    def _complete(self, stored: Stored) -> None:
        """All blocks are written: where another file has the same ones, take them back."""
        mine = (stored.blocks_start, self.end - stored.blocks_start)
        same = self._files.like((stored.head, *stored.blocks), lambda: self._hash_written(mine))
        for start, size in same:
            if self._equal(start, stored.blocks_start, size):
                self.end, stored.blocks_start = stored.blocks_start, start
                break
        else:
            same.append(mine)
        stored.ready = True

    def _hash_written(self, where: tuple[int, int]) -> bytes:
        start, size = where
        hashed = hashlib.blake2b(digest_size=HASH_BYTES)
        for at in range(0, size, COMPARE_BYTES):
            hashed.update(os.pread(self._fd, min(COMPARE_BYTES, size - at), start + at))
        return hashed.digest()

    def _equal(self, one: int, other: int, size: int) -> bool:
        for at in range(0, size, COMPARE_BYTES):
            step = min(COMPARE_BYTES, size - at)
            if os.pread(self._fd, step, one + at) != os.pread(self._fd, step, other + at):
                return False
        return True
