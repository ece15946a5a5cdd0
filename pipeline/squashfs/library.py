"""libsquashfs (squashfs-tools-ng), called by cffi without a compiler: what of it writes the tables of an image.

Files and compressors are interfaces there, structs of functions; `callbacks` makes them from Python's, so that the
bytes of an image do not depend on which libzstd a host has.

Source:  sqfs/{predef,compressor,io,super,inode,meta_writer,dir_writer,frag_table,id_table,xattr_writer}.h, version 1.2.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

from pipeline.errors import PipelineError
from pipeline.tool import ToolMissing

SONAME = "libsquashfs.so.1"
PACKAGE = "libsquashfs1"
ERROR_IO, ERROR_INTERNAL = -2, -4
ERRORS = {
    -1: "no memory",
    -2: "an I/O error",
    -3: "a compressor that fails",
    -4: "an internal error",
    -6: "something unsupported",
    -7: "a number too large for squashfs",
    -16: "an invalid argument",
}

_DECLARATIONS = """
typedef struct sqfs_object_t { void (*destroy)(void *); void *copy; } sqfs_object_t;
typedef struct sqfs_compressor_t {
    sqfs_object_t base;
    void *get_configuration, *write_options, *read_options;
    int32_t (*do_block)(struct sqfs_compressor_t *, const uint8_t *, uint32_t, uint8_t *, uint32_t);
} sqfs_compressor_t;
typedef struct sqfs_compressor_config_t {
    uint16_t id, flags;
    uint32_t block_size, level;
    uint64_t opt[2];
} sqfs_compressor_config_t;
typedef struct sqfs_file_t {
    sqfs_object_t base;
    int (*read_at)(struct sqfs_file_t *, uint64_t, void *, size_t);
    int (*write_at)(struct sqfs_file_t *, uint64_t, const void *, size_t);
    uint64_t (*get_size)(const struct sqfs_file_t *);
    int (*truncate)(struct sqfs_file_t *, uint64_t);
} sqfs_file_t;
typedef struct sqfs_super_t {
    uint32_t magic, inode_count, modification_time, block_size, fragment_entry_count;
    uint16_t compression_id, block_log, flags, id_count, version_major, version_minor;
    uint64_t root_inode_ref, bytes_used, id_table_start, xattr_id_table_start, inode_table_start;
    uint64_t directory_table_start, fragment_table_start, export_table_start;
} sqfs_super_t;
typedef struct sqfs_inode_t {
    uint16_t type, mode, uid_idx, gid_idx;
    uint32_t mod_time, inode_number;
} sqfs_inode_t;
typedef struct sqfs_inode_dir_t {
    uint32_t start_block, nlink;
    uint16_t size, offset;
    uint32_t parent_inode;
} sqfs_inode_dir_t;
typedef struct sqfs_inode_dir_ext_t {
    uint32_t nlink, size, start_block, parent_inode;
    uint16_t inodex_count, offset;
    uint32_t xattr_idx;
} sqfs_inode_dir_ext_t;
typedef struct sqfs_inode_generic_t {
    sqfs_inode_t base;
    uint32_t payload_bytes_available, payload_bytes_used;
    union { sqfs_inode_dir_t dir; sqfs_inode_dir_ext_t dir_ext; uint64_t largest[5]; } data;
    uint32_t extra[];
} sqfs_inode_generic_t;
typedef struct sqfs_meta_writer_t sqfs_meta_writer_t;
typedef struct sqfs_dir_writer_t sqfs_dir_writer_t;
typedef struct sqfs_frag_table_t sqfs_frag_table_t;
typedef struct sqfs_id_table_t sqfs_id_table_t;
typedef struct sqfs_xattr_writer_t sqfs_xattr_writer_t;

void sqfs_free(void *);
int sqfs_compressor_config_init(sqfs_compressor_config_t *, int, size_t, uint16_t);
int sqfs_compressor_create(const sqfs_compressor_config_t *, sqfs_compressor_t **);
int sqfs_super_init(sqfs_super_t *, size_t, uint32_t, int);
int sqfs_super_write(const sqfs_super_t *, sqfs_file_t *);
sqfs_meta_writer_t *sqfs_meta_writer_create(sqfs_file_t *, sqfs_compressor_t *, uint32_t);
int sqfs_meta_writer_flush(sqfs_meta_writer_t *);
void sqfs_meta_writer_get_position(const sqfs_meta_writer_t *, uint64_t *, uint32_t *);
int sqfs_meta_write_write_to_file(sqfs_meta_writer_t *);
int sqfs_meta_writer_write_inode(sqfs_meta_writer_t *, const sqfs_inode_generic_t *);
sqfs_dir_writer_t *sqfs_dir_writer_create(sqfs_meta_writer_t *, uint32_t);
int sqfs_dir_writer_begin(sqfs_dir_writer_t *, uint32_t);
int sqfs_dir_writer_add_entry(sqfs_dir_writer_t *, const char *, uint32_t, uint64_t, uint16_t);
int sqfs_dir_writer_end(sqfs_dir_writer_t *);
sqfs_inode_generic_t *sqfs_dir_writer_create_inode(const sqfs_dir_writer_t *, size_t, uint32_t, uint32_t);
sqfs_frag_table_t *sqfs_frag_table_create(uint32_t);
int sqfs_frag_table_append(sqfs_frag_table_t *, uint64_t, uint32_t, uint32_t *);
int sqfs_frag_table_write(sqfs_frag_table_t *, sqfs_file_t *, sqfs_super_t *, sqfs_compressor_t *);
sqfs_id_table_t *sqfs_id_table_create(uint32_t);
int sqfs_id_table_id_to_index(sqfs_id_table_t *, uint32_t, uint16_t *);
int sqfs_id_table_write(sqfs_id_table_t *, sqfs_file_t *, sqfs_super_t *, sqfs_compressor_t *);
sqfs_xattr_writer_t *sqfs_xattr_writer_create(uint32_t);
int sqfs_xattr_writer_begin(sqfs_xattr_writer_t *, uint32_t);
int sqfs_xattr_writer_add(sqfs_xattr_writer_t *, const char *, const void *, size_t);
int sqfs_xattr_writer_end(sqfs_xattr_writer_t *, uint32_t *);
int sqfs_xattr_writer_flush(const sqfs_xattr_writer_t *, sqfs_file_t *, sqfs_super_t *, sqfs_compressor_t *);
"""


class SquashFailed(PipelineError):
    """An image that could not be written."""


class Compress(Protocol):
    """A block compressor: the compressed bytes, or None where they are not fewer."""

    def __call__(self, data: bytes, /) -> bytes | None: ...


@functools.cache
def load() -> tuple[Any, Any]:
    """cffi's door and the library. Raises ToolMissing."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        return ffi, ffi.dlopen(SONAME)
    except OSError:
        raise ToolMissing(
            f"library {SONAME}", expected="it installed", got="none", hint=f"apt-get install {PACKAGE}"
        ) from None


@functools.cache
def version() -> str:
    """The full version in the name of the library's file."""
    try:
        ctypes.CDLL(SONAME)  # cffi takes longer, and a remembered result needs no more than this
    except OSError:
        load()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        names = {line.split(None, 5)[-1].strip() for line in maps if f"/{SONAME.split('.')[0]}." in line}
    return os.path.basename(os.path.realpath(min(names))).partition(".so.")[2] if names else "unknown"


def check(code: int, what: str) -> None:
    """Raise SquashFailed for an error code."""
    if code:
        raise SquashFailed(f"squashfs {what}", expected="success", got=ERRORS.get(code, f"error {code}"))


def destroy(made: Any) -> None:
    """Give back one of the library's objects."""
    ffi, _ = load()
    ffi.cast("sqfs_object_t *", made).destroy(made)


class Callbacks:
    """A file and a compressor of libsquashfs's kind, made from a file descriptor and a function.

    What their functions raise is kept, and raised by `check` in place of the library's error code.
    """

    def __init__(self, fd: int, compress: Compress) -> None:
        ffi, _ = load()
        self._error: BaseException | None = None

        def read_at(_: Any, offset: int, buffer: Any, size: int) -> int:
            data = os.pread(fd, size, offset)
            ffi.memmove(buffer, data, len(data))
            return 0 if len(data) == size else ERROR_IO

        def write_at(_: Any, offset: int, buffer: Any, size: int) -> int:
            view = memoryview(ffi.buffer(buffer, size))
            while view:
                done = os.pwrite(fd, view, offset)
                view, offset = view[done:], offset + done
            return 0

        def get_size(_: Any) -> int:
            return os.fstat(fd).st_size

        def truncate(_: Any, size: int) -> int:
            os.ftruncate(fd, size)
            return 0

        def do_block(_: Any, data: Any, size: int, out: Any, out_size: int) -> int:
            packed = compress(bytes(ffi.buffer(data, size)))
            if packed is None or len(packed) > out_size:
                return 0
            ffi.memmove(out, packed, len(packed))
            return len(packed)

        self._alive: list[Any] = []
        self.file = ffi.new("sqfs_file_t *")
        self.compressor = ffi.new("sqfs_compressor_t *")
        for struct, name, function in (
            (self.file, "read_at", read_at),
            (self.file, "write_at", write_at),
            (self.file, "get_size", get_size),
            (self.file, "truncate", truncate),
            (self.compressor, "do_block", do_block),
        ):
            kind = ffi.typeof(getattr(struct, name))
            made = ffi.callback(kind, function, error=0 if name == "get_size" else ERROR_INTERNAL, onerror=self._keep)
            self._alive.append(made)
            setattr(struct, name, made)

    def _keep(self, kind: Any, error: BaseException, trace: Any) -> None:
        self._error = self._error or error

    def check(self, code: int, what: str) -> None:
        """Raise what a callback raised, or SquashFailed for an error code."""
        if self._error is not None:
            raise self._error
        check(code, what)


def own_compressor(number: int, block_bytes: int) -> Callable[[bytes], bytes | None]:
    """One of the library's own compressors; not for several threads at once."""
    ffi, lib = load()
    config, made = ffi.new("sqfs_compressor_config_t *"), ffi.new("sqfs_compressor_t **")
    check(lib.sqfs_compressor_config_init(config, number, block_bytes, 0), "compressor")
    check(lib.sqfs_compressor_create(config, made), "compressor")
    out = ffi.new("uint8_t[]", block_bytes)

    def compress(data: bytes) -> bytes | None:
        size = made[0].do_block(made[0], ffi.from_buffer("uint8_t[]", data), len(data), out, len(data))
        if size < 0:
            check(size, "block")
        return bytes(ffi.buffer(out, size)) if size else None

    return compress
