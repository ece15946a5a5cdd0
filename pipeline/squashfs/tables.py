"""The tables of a squashfs image, by libsquashfs: inodes, directories, fragments, ids, xattrs, superblock.

Entries come parents first, siblings by name bytes. A directory's inode names its listing, which names its children's
inodes: so it is written when its last child has been.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.squashfs.blocks import NO_FRAGMENT, Stored
from pipeline.squashfs.library import Callbacks, SquashFailed, destroy, load
from pipeline.tarstream import mtime_s
from pipeline.tree import Entry, Kind, printable

NO_XATTR = 0xFFFFFFFF
KEEP_IN_MEMORY = 1
U32 = 1 << 32
FLAG_COMPRESSOR_OPTIONS = 0x0400
EXTENDED = 7  # between the number of a basic inode type and that of its extended one

_BASE = struct.Struct("<4H4I")  # sqfs_inode_t, payload bytes available and used
_FILE, _EXT_FILE = struct.Struct("<4I24x"), struct.Struct("<3Q4I")
_DATA = struct.Struct("<3I28x")  # nlink, then by kind: target size or device, xattrs
_TYPES = {  # libsquashfs's number, mode bits
    Kind.DIRECTORY: (1, stat.S_IFDIR),
    Kind.FILE: (2, stat.S_IFREG),
    Kind.SYMLINK: (3, stat.S_IFLNK),
    Kind.BLOCK: (4, stat.S_IFBLK),
    Kind.CHAR: (5, stat.S_IFCHR),
    Kind.FIFO: (6, stat.S_IFIFO),
}


@dataclass(slots=True)
class _Directory:
    entry: Entry
    number: int
    children: list[tuple[bytes, int, int, int]] = field(default_factory=list)  # name, inode number, reference, mode
    directories: int = 0
    last: bytes = b""


class TableWriter:
    """Gathers the tables while `add` is called, and writes them behind the data in `finish`.

    links:   how many further names each path has.
    """

    def __init__(self, callbacks: Callbacks, links: Mapping[bytes, int]) -> None:
        self._ffi, self._lib = load()
        self._calls, self._links = callbacks, links
        file, compressor = callbacks.file, callbacks.compressor
        self._made: list[Any] = []
        self._inodes = self._own(self._lib.sqfs_meta_writer_create(file, compressor, KEEP_IN_MEMORY))
        self._listings = self._own(self._lib.sqfs_meta_writer_create(file, compressor, KEEP_IN_MEMORY))
        self._directory_writer = self._own(self._lib.sqfs_dir_writer_create(self._listings, 0))
        self._fragments = self._own(self._lib.sqfs_frag_table_create(0))
        self._ids = self._own(self._lib.sqfs_id_table_create(0))
        self._xattrs = self._own(self._lib.sqfs_xattr_writer_create(0))
        self._position = self._ffi.new("uint64_t *"), self._ffi.new("uint32_t *")
        self._id_index: dict[int, int] = {}
        self._open: list[_Directory] = []
        self._first: dict[bytes, tuple[int, int, int]] = {}  # names that have further ones
        self._count = 0
        self._root = 0

    def _own(self, made: Any) -> Any:
        if made == self._ffi.NULL:
            raise SquashFailed("squashfs", expected="memory", got="none")
        self._made.append(made)
        return made

    def close(self) -> None:
        """Give everything back."""
        while self._made:
            destroy(self._made.pop())

    def add(self, entry: Entry, stored: Stored | None) -> None:
        """Take the next entry. stored: where its data lies, for a regular file."""
        parent, _, name = entry.path.rpartition(b"/")
        while self._open and self._open[-1].entry.path != parent:
            self._end_directory()
        self._check_place(entry, name)
        if entry.kind is Kind.HARDLINK:
            known = self._first.get(entry.target)
            if known is None:
                expected = f"{printable(entry.target)} before it"
                raise SquashFailed(f"hardlink {printable(entry.path)}", expected=expected, got="none")
            self._name(name, *known)
            return
        self._count += 1
        if entry.kind is Kind.DIRECTORY:
            self._open.append(_Directory(entry, self._count))
            return
        number = self._count
        reference = self._write(self._inode(entry, number, stored))
        mode = _TYPES[entry.kind][1]
        if entry.path in self._links:
            self._first[entry.path] = (number, reference, mode)
        self._name(name, number, reference, mode)

    def _check_place(self, entry: Entry, name: bytes) -> None:
        """The kernel looks names up as if they were sorted; an entry without its directory would be lost."""
        if not self._open:
            if entry.path or self._count:
                raise SquashFailed(
                    printable(entry.path), expected="its directory before it", got="none, or an ended one"
                )
        elif name <= self._open[-1].last:
            last = printable(self._open[-1].last)
            raise SquashFailed(
                printable(entry.path), expected="names in the order of their bytes", got=f"one after {last}"
            )
        else:
            self._open[-1].last = name

    def _name(self, name: bytes, number: int, reference: int, mode: int) -> None:
        self._open[-1].children.append((name, number, reference, mode))

    # -- inodes --------------------------------------------------------------------------------------------------------

    def _base(self, entry: Entry, number: int, *, extended: bool, payload: int) -> bytes:
        kind, mode = _TYPES[entry.kind]
        kind += EXTENDED * extended
        ids = self._id(entry.uid), self._id(entry.gid)
        return _BASE.pack(kind, mode | entry.mode, *ids, mtime_s(entry.mtime_ns), number, payload, payload)

    def _inode(self, entry: Entry, number: int, stored: Stored | None) -> bytes:
        nlink = 1 + self._links.get(entry.path, 0)
        xattr = self._xattr(entry)
        if stored is not None:
            blocks = struct.pack(f"<{len(stored.blocks)}I", *stored.blocks)
            large = stored.size_bytes >= U32 or stored.blocks_start >= U32 or stored.hole_bytes > 0
            extended = large or nlink > 1 or xattr != NO_XATTR
            where = (stored.fragment, stored.fragment_offset if stored.fragment != NO_FRAGMENT else 0)
            if extended:
                data = _EXT_FILE.pack(stored.blocks_start, stored.size_bytes, stored.hole_bytes, nlink, *where, xattr)
            else:
                data = _FILE.pack(stored.blocks_start, *where, stored.size_bytes)
            return self._base(entry, number, extended=extended, payload=len(blocks)) + data + blocks
        extended = xattr != NO_XATTR
        if entry.kind is Kind.SYMLINK:
            data = _DATA.pack(nlink, len(entry.target), xattr)
        elif entry.kind is Kind.FIFO:
            data = _DATA.pack(nlink, xattr, 0)
        else:
            # The kernel's new_encode_dev.
            device = entry.minor & 0xFF | entry.major << 8 | (entry.minor & ~0xFF) << 12
            data = _DATA.pack(nlink, device, xattr)
        return self._base(entry, number, extended=extended, payload=len(entry.target)) + data + entry.target

    def _write(self, inode: bytes) -> int:
        """Write an inode; gives its reference."""
        pointer = self._ffi.cast("sqfs_inode_generic_t *", self._ffi.from_buffer(inode))
        return self._written(pointer)

    def _written(self, inode: Any) -> int:
        block, offset = self._position
        self._lib.sqfs_meta_writer_get_position(self._inodes, block, offset)
        self._calls.check(self._lib.sqfs_meta_writer_write_inode(self._inodes, inode), "inode")
        return int(block[0]) << 16 | int(offset[0])

    def _id(self, number: int) -> int:
        index = self._id_index.get(number)
        if index is None:
            out = self._ffi.new("uint16_t *")
            self._calls.check(self._lib.sqfs_id_table_id_to_index(self._ids, number, out), "id table")
            index = self._id_index[number] = int(out[0])
        return index

    def _xattr(self, entry: Entry) -> int:
        if not entry.xattrs:
            return NO_XATTR
        self._calls.check(self._lib.sqfs_xattr_writer_begin(self._xattrs, 0), "xattrs")
        for key, value in sorted(entry.xattrs.items()):
            code = self._lib.sqfs_xattr_writer_add(self._xattrs, key, value, len(value))
            self._calls.check(code, f"xattr {printable(key)} of {printable(entry.path)}")
        out = self._ffi.new("uint32_t *")
        self._calls.check(self._lib.sqfs_xattr_writer_end(self._xattrs, out), "xattrs")
        return int(out[0])

    # -- directories ---------------------------------------------------------------------------------------------------

    def _end_directory(self) -> None:
        done = self._open.pop()
        entry, writer = done.entry, self._directory_writer
        self._calls.check(self._lib.sqfs_dir_writer_begin(writer, 0), "directory")
        for name, number, reference, mode in done.children:
            code = self._lib.sqfs_dir_writer_add_entry(writer, name, number, reference, mode)
            if code:
                self._calls.check(code, f"name {printable(name)}")
        self._calls.check(self._lib.sqfs_dir_writer_end(writer), "directory")
        parent = self._open[-1].number if self._open else self._count + 1
        inode = self._lib.sqfs_dir_writer_create_inode(writer, 0, self._xattr(entry), parent)
        if inode == self._ffi.NULL:
            raise SquashFailed("squashfs", expected="memory", got="none")
        try:
            base = inode.base
            base.mode = stat.S_IFDIR | entry.mode
            base.uid_idx, base.gid_idx = self._id(entry.uid), self._id(entry.gid)
            base.mod_time, base.inode_number = mtime_s(entry.mtime_ns), done.number
            data = inode.data.dir if base.type == _TYPES[Kind.DIRECTORY][0] else inode.data.dir_ext
            data.nlink = 2 + done.directories
            reference = self._written(inode)
        finally:
            self._lib.sqfs_free(inode)
        if self._open:
            self._open[-1].directories += 1
            self._name(entry.path.rpartition(b"/")[2], done.number, reference, stat.S_IFDIR)
        else:
            self._root = reference

    # -- the end -------------------------------------------------------------------------------------------------------

    def finish(self, fragments: list[tuple[int, int]], *, compressor: int, block_bytes: int) -> None:
        """Write the tables behind the data, where the file ends, and the superblock."""
        while self._open:
            self._end_directory()
        file, packer = self._calls.file, self._calls.compressor
        index = self._ffi.new("uint32_t *")
        for position, word in fragments:
            code = self._lib.sqfs_frag_table_append(self._fragments, position, word, index)
            self._calls.check(code, "fragment table")
        head = self._ffi.new("sqfs_super_t *")
        self._calls.check(self._lib.sqfs_super_init(head, block_bytes, 0, compressor), "superblock")
        head.flags |= FLAG_COMPRESSOR_OPTIONS
        head.inode_count, head.root_inode_ref = self._count, self._root
        for what, writer in (("inode_table_start", self._inodes), ("directory_table_start", self._listings)):
            self._calls.check(self._lib.sqfs_meta_writer_flush(writer), what)
            setattr(head, what, file.get_size(file))
            self._calls.check(self._lib.sqfs_meta_write_write_to_file(writer), what)
        for what, table in (
            ("sqfs_frag_table_write", self._fragments),
            ("sqfs_id_table_write", self._ids),
            ("sqfs_xattr_writer_flush", self._xattrs),
        ):
            self._calls.check(getattr(self._lib, what)(table, file, head, packer), what)
        head.bytes_used = file.get_size(file)
        self._calls.check(self._lib.sqfs_super_write(head, file), "superblock")
