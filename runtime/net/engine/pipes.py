"""Pipes that bytes pass through on their way from socket to socket, without a copy to this process.

A pipe belongs to a direction only while it holds bytes, so a few serve all connections and an idle one has none.
An unprivileged user may have pipes of 16384 pages altogether, 64 of 1 MiB, before new ones shrink to 8 KiB, which are
of no use here.
Source: pipe(7), /proc/sys/fs/pipe-user-pages-soft; fs/pipe.c, alloc_pipe_info.
"""

from __future__ import annotations

import fcntl
import os
from typing import NamedTuple

SIZE_BYTES = 1 << 20
SMALLEST_BYTES = 1 << 16


class Pipe(NamedTuple):
    """The two ends."""

    read_fd: int
    write_fd: int

    def close(self) -> None:
        """Both ends, and what is in it."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Makes pipes when they are wanted, keeps those given back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made = 0
        self._free: list[Pipe] = []
        self.shares = 0

    @property
    def free(self) -> int:
        """Pipes that wait to be taken."""
        return len(self._free)

    @property
    def share(self) -> int:
        """How many pipes each of those who share them may hold; two are one connection."""
        return max(2, self._most // max(1, self.shares))

    @property
    def made(self) -> int:
        """Pipes that there are, taken or not."""
        return self._made

    def take(self) -> Pipe | None:
        """An empty pipe; None when no more can be had."""
        if self._free:
            return self._free.pop()
        return self._make() if self._made < self._most else None

    def give(self, pipe: Pipe) -> None:
        """Take an empty pipe back."""
        self._free.append(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Close a pipe that still holds bytes: they are nobody's any more."""
        self._made -= 1
        pipe.close()

    def close(self) -> None:
        """Close all that were given back."""
        while self._free:
            self.drop(self._free.pop())

    def _make(self) -> Pipe | None:
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:  # out of descriptors: some may be free again the next time
            return None
        try:
            size_bytes = fcntl.fcntl(pipe.write_fd, fcntl.F_SETPIPE_SZ, SIZE_BYTES)
        except OSError:  # beyond pipe-max-size or pipe-user-pages-soft
            size_bytes = fcntl.fcntl(pipe.write_fd, fcntl.F_GETPIPE_SZ)
        if size_bytes < SMALLEST_BYTES:
            self._most = self._made  # this user's pages are spent: there is no use in asking for each chunk
            pipe.close()
            return None
        self._made += 1
        return pipe


class PipeShare:
    """One zone's part of a pool: a zone whose streams stand still holds no more pipes than that."""

    def __init__(self, pool: PipePool) -> None:
        self._pool, self._held = pool, 0
        pool.shares += 1

    def take(self) -> Pipe | None:
        """See PipePool."""
        pipe = self._pool.take() if self._held < self._pool.share else None
        self._held += pipe is not None
        return pipe

    def give(self, pipe: Pipe) -> None:
        """See PipePool."""
        self._held -= 1
        self._pool.give(pipe)

    def drop(self, pipe: Pipe) -> None:
        """See PipePool."""
        self._held -= 1
        self._pool.drop(pipe)

    def close(self) -> None:
        """Leave it to the others."""
        self._pool.shares -= 1
