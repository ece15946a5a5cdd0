"""A merged image as other stages read it: its entries, and the bytes of its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from pipeline.errors import PipelineError
from pipeline.layers import Layer, Spools
from pipeline.oci import Descriptor
from pipeline.store import Store
from pipeline.tree import Entry, Kind, printable, read_tree

COPY_BYTES = 1 << 20
HOPS_MAX = 40


class NoSuchFile(PipelineError):
    """An image without a file that is needed from it."""


def pieces(entry: Entry) -> Iterator[tuple[int, int, int]]:
    """(offset in the file, length, offset in the inflated layer) of a regular file's stored pieces."""
    extents = ((0, entry.size_bytes),) if entry.extents is None else entry.extents
    source = entry.offset
    for offset, length in extents:
        yield offset, length, source
        source += length


def runs(entry: Entry) -> Iterator[tuple[int, int]]:
    """(offset in the inflated layer, length) of a regular file from its begin to its end; holes have offset -1."""
    done = 0
    for offset, length, source in pieces(entry):
        if offset > done:
            yield -1, offset - done
        if length:
            yield source, length
        done = offset + length
    if done < entry.size_bytes:
        yield -1, entry.size_bytes - done


class Rootfs:
    """Reads a merged image by its tree document and its layers; see `Spools` for where the bytes come from."""

    def __init__(self, store: Store, tree: Descriptor, layers: tuple[Layer, ...], spools: Spools) -> None:
        self._store, self._tree, self._layers, self._spools = store, tree, layers, spools
        self._by_path: dict[bytes, Entry] | None = None

    def entries(self) -> Iterator[Entry]:
        """Every name, parents first, siblings by name bytes."""
        known = self._spools.trees.get(self._tree.digest)
        return read_tree(self._store, self._tree) if known is None else iter(known)

    def find(self, path: bytes | str) -> Entry | None:
        """The entry a path leads to, symlinks followed inside the image; hardlinks give the entry that has the data."""
        if self._by_path is None:
            self._by_path = {entry.path: entry for entry in self.entries()}
        name = path.encode() if isinstance(path, str) else path
        todo, way, hops = list(reversed(name.split(b"/"))), [b""], 0
        entry: Entry | None = self._by_path[b""]
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                way = way[:-1] or [b""]
                entry = self._by_path[way[-1]]
                continue
            entry = self._by_path.get(way[-1] + b"/" + part if way[-1] else part)
            if entry is None:
                return None
            if entry.kind is Kind.HARDLINK:
                entry = self._by_path[entry.target]
            if entry.kind is Kind.SYMLINK:
                hops += 1
                if hops > HOPS_MAX:
                    return None
                if entry.target.startswith(b"/"):
                    way = [b""]
                todo += reversed(entry.target.split(b"/"))
                entry = self._by_path[way[-1]]
                continue
            way.append(entry.path)
        return entry

    def file(self, path: bytes | str, *, subject: str = "image") -> Entry:
        """The regular file of that path. Raises NoSuchFile."""
        entry = self.find(path)
        if entry is None or entry.kind is not Kind.FILE:
            name = path if isinstance(path, str) else printable(path)
            got = "none" if entry is None else f"a {entry.kind.name.lower()}"
            raise NoSuchFile(subject, expected=f"a file {name}", got=got)
        return entry

    def read(self, path: bytes | str, *, limit_bytes: int = 64 << 20, subject: str = "image") -> bytes:
        """The bytes of one regular file. Raises NoSuchFile, also where it is larger than the limit."""
        entry = self.file(path, subject=subject)
        if entry.size_bytes > limit_bytes:
            raise NoSuchFile(
                f"{subject}: {printable(entry.path)}",
                expected=f"at most {limit_bytes} bytes",
                got=f"{entry.size_bytes}",
            )
        out = bytearray()
        self.copy(entry, out.extend)
        return bytes(out)

    def store_file(self, path: bytes | str, *, media_type: str, subject: str = "image") -> Descriptor:
        """Put one regular file into the store as a blob of its own."""
        entry = self.file(path, subject=subject)
        with self._store.writer() as writer:
            self.copy(entry, writer.write)
            return writer.commit(media_type=media_type)

    def copy(self, entry: Entry, write: Callable[[bytes], object]) -> None:
        """Give a regular file's bytes to `write`, holes as zeros."""
        for data in self.chunks(entry):
            write(data)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """A regular file's bytes piece by piece, holes as zeros."""
        fd = self.spool(entry) if entry.size_bytes else -1
        done = 0
        for offset, length, source in pieces(entry):
            yield from _zeros(offset - done)
            end = source + length
            while source < end:
                data = os.pread(fd, min(COPY_BYTES, end - source), source)
                yield data
                source += len(data)
            done = offset + length
        yield from _zeros(entry.size_bytes - done)

    def spool(self, entry: Entry) -> int:
        """The file descriptor that has a file's bytes at `entry.offset`."""
        return self._spools.open(self._layers[entry.layer])


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, COPY_BYTES))
        count -= COPY_BYTES
