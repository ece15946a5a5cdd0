"""An open directory as Treaddir reads it: in pieces, from one stream of the host's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from runtime.share import abi, wire


class _Entry(NamedTuple):
    qid_type: int
    inode: int
    kind: int
    name: bytes


class Listing:
    """Reads an open directory, which stays the caller's.

    Nothing is kept but what the C library has read ahead (32 KiB), however many names there are: a zone that opens
    many large directories takes no memory of the host's. As long as a client goes on where it stopped, which is what
    Linux does, it gets what readdir(3) promises: what is there all the while comes once, what comes and goes meanwhile
    comes at most once. An offset is how many entries came before; another one than where it stopped reads the
    directory from its beginning again and passes over so many.
    """

    def __init__(self, fd: int, *, is_root: bool) -> None:
        self._fd, self._is_root = fd, is_root
        self._stream: Any = None
        self._entries: Iterator[_Entry] = iter(())
        self._held: _Entry | None = None
        self._at = -1

    def read(self, offset: int, limit: int) -> bytes:
        """As many whole entries as fit in `limit` bytes, from the offset on; b"" after the last.

        Raises:  OSError; EINVAL where not even one fits.
        """
        if offset != self._at or offset == 0:
            self._restart()
            while self._at < offset:
                if self._take() is None:
                    return b""
                self._at += 1
        entries = bytearray()
        while (entry := self._take()) is not None:
            encoded = (
                abi.QID.pack(entry.qid_type, 0, entry.inode)
                + abi.ENTRY.pack(self._at + 1, entry.kind)
                + wire.string(entry.name)
            )
            if len(entries) + len(encoded) > limit:
                self._held = entry
                if not entries:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                break
            entries += encoded
            self._at += 1
        return bytes(entries)

    def close(self) -> None:
        """Let go of the stream; twice is fine."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._entries, self._held, self._at = None, iter(()), None, -1

    def _take(self) -> _Entry | None:
        entry, self._held = self._held, None
        return entry if entry is not None else next(self._entries, None)

    def _restart(self) -> None:
        self.close()
        os.lseek(self._fd, 0, os.SEEK_SET)  # the stream's descriptor is a duplicate, and shares the place
        self._stream = os.scandir(self._fd)
        self._entries, self._at = self._all(), 0

    def _all(self) -> Iterator[_Entry]:
        # Linux shows no . and .. but those it is told of: fs/9p/vfs_dir.c, v9fs_dir_readdir_dotl.
        own = os.stat(self._fd).st_ino
        yield _Entry(abi.QTDIR, own, abi.DT_DIR, b".")
        above = own if self._is_root else os.stat("..", dir_fd=self._fd).st_ino
        yield _Entry(abi.QTDIR, above, abi.DT_DIR, b"..")
        for found in self._stream:
            qid_type, kind = _kind_of(found)
            yield _Entry(qid_type, found.inode(), kind, os.fsencode(found.name))


def _kind_of(found: os.DirEntry[str]) -> tuple[int, int]:
    """A qid's type and an entry's kind, from what the directory itself says."""
    try:
        if found.is_symlink():
            return abi.QTSYMLINK, abi.DT_LNK
        if found.is_dir(follow_symlinks=False):
            return abi.QTDIR, abi.DT_DIR
        if found.is_file(follow_symlinks=False):
            return abi.QTFILE, abi.DT_REG
    except OSError:  # a file system that does not say, and the file is gone
        pass
    return abi.QTFILE, abi.DT_UNKNOWN
