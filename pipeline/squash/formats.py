"""The formats by name, each with the compressions it takes."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.rootfs import Rootfs
from pipeline.squash import erofs, tarball
from pipeline.squash.errors import UnknownFormat
from pipeline.squash.form import Form
from pipeline.squashfs import DEFAULT_COMPRESSION, compression_of, squash_rootfs, writer_versions
from pipeline.store import Store


def _squashfs(compression: str) -> Form:
    name = compression or DEFAULT_COMPRESSION
    how = compression_of(name)

    def write(store: Store, rootfs: Rootfs, progress: Progress, total_bytes: int) -> Descriptor:
        return squash_rootfs(store, rootfs, compression=name, progress=progress, total_bytes=total_bytes)

    params = {
        "format": "squashfs",
        "compressor": how.compressor,
        "options": how.described,
        "block_bytes": how.block_bytes,
    }
    return Form(params, lambda: writer_versions(name), write)


_FORMS: dict[str, Callable[[str], Form]] = {"squashfs": _squashfs, "erofs": erofs.form, "tar": tarball.form}
FORMATS = tuple(_FORMS)


def form_of(format: str, compression: str) -> Form:
    """A format in a compression; "" is the format's own default. Raises UnknownFormat, BadCompressionName."""
    if format not in _FORMS:
        raise UnknownFormat(f"format {format!r}", expected=f"one of {', '.join(FORMATS)}", got="another")
    return _FORMS[format](compression)
