"""Squashfs images, the same bytes for the same content anywhere: data compressed here, tables laid by libsquashfs.

image    entries, or a merged image, to a blob of the store     blocks   data: compressed by all cores, in order
tables   inodes, directories, ids, xattrs                       library  libsquashfs by cffi
"""

from pipeline.squashfs.image import (
    DEFAULT_COMPRESSION,
    BadCompressionName,
    SquashFailed,
    compression_of,
    library_version,
    squash_entries,
    squash_rootfs,
    writer_versions,
)

__all__ = [
    "DEFAULT_COMPRESSION",
    "BadCompressionName",
    "SquashFailed",
    "compression_of",
    "library_version",
    "squash_entries",
    "squash_rootfs",
    "writer_versions",
]
