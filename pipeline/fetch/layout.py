"""Images in OCI layouts: directories, the store itself being one of them, and tars.

Source:  OCI image specification, image-layout.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from pipeline.errors import DigestMismatch
from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.fetch.manifest import INDEX_TYPES, MANIFEST_MAX_BYTES, MANIFEST_TYPES
from pipeline.oci import REF_NAME, Descriptor, Digest, parse_json
from pipeline.store import BlobWriter

COPY_BYTES = 1 << 20
CONTAINERD_NAME = "io.containerd.image.name"
NAMES_SHOWN = 8  # of those there are, where the one asked for is not


class Files(Protocol):
    """Files by their relative names; `str` of it is what a user calls it."""

    def size(self, name: str) -> int | None:
        """The size of a file, or None where there is none."""

    def open(self, name: str) -> IO[bytes]:
        """The bytes of a file. Raises FileNotFoundError, BadImage."""


class DirectoryFiles:
    """The files below a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def size(self, name: str) -> int | None:
        path = self._directory / name
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise BadImage(str(path), expected="a file to read", got=str(error.strerror)) from error

    def open(self, name: str) -> IO[bytes]:
        path = self._directory / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # to open a pipe would be to wait for ever
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(str(path)) from None
        except OSError as error:
            raise BadImage(str(path), expected="a file to read", got=str(error.strerror)) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BadImage(str(path), expected="a regular file", got="something else")
        return open(fd, "rb")


class LayoutSource:
    """Reads blobs of a layout. Who asks checks what comes."""

    def __init__(self, files: Files, *, subject: str) -> None:
        self._files, self._subject = files, subject

    def resolve(
        self, tag: str, digest: Digest | None, *, same: Callable[[Descriptor], bool] | None = None
    ) -> Descriptor:
        """The manifest or index of a tag, of a digest, or the only one. Raises NoSuchImage, BadImage.

        same: says whether an entry of index.json is what the tag means; by default, whether that is its name.
        """
        self._check_version()
        document = self._json("index.json")
        found = document.get("manifests") if isinstance(document, dict) else None
        if not isinstance(found, list):
            raise BadImage(f"{self._files}/index.json", expected="a list of manifests", got="none")
        entries = [Descriptor.from_json(entry, subject=f"{self._files}/index.json") for entry in found]
        images = [entry for entry in entries if entry.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)]
        if digest is not None:
            size = self._files.size(_path(digest))
            named = [entry for entry in images if entry.digest == digest]
            if named or size is None:
                return self._only(named, f"digest {digest}", images)
            return Descriptor("", digest, size)
        if tag:
            named = [entry for entry in images if (same(entry) if same else entry.annotations.get(REF_NAME) == tag)]
            return self._only(named, f"tag {tag}", images)
        return self._only(images, "exactly one image, as no tag is given", images)

    def _only(self, fitting: list[Descriptor], expected: str, there: list[Descriptor]) -> Descriptor:
        if len({entry.digest for entry in fitting}) == 1:
            return fitting[0]
        names = sorted(entry.annotations.get(REF_NAME, entry.digest.short)[:60] for entry in there)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        tags = (", ".join(names[:NAMES_SHOWN]) or "nothing") + more
        raise NoSuchImage(self._subject, expected=expected, got=f"{len(fitting)} of them", hint=f"there: {tags}")

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, str]:
        """The bytes and media type of a manifest or index."""
        with self._open(descriptor.digest) as file:
            return file.read(MANIFEST_MAX_BYTES + 1), descriptor.media_type

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        """Write a blob's bytes, one more than its size at most."""
        with self._open(descriptor.digest) as file:
            copy_bytes(file, descriptor, writer, advance, subject)

    def stop(self) -> None:
        """A file keeps nobody waiting."""

    def _open(self, digest: Digest) -> IO[bytes]:
        try:
            return self._files.open(_path(digest))
        except FileNotFoundError:
            raise NoSuchImage(self._subject, expected=f"blob {digest}", got="no such file in the layout") from None

    def _check_version(self) -> None:
        document = self._json("oci-layout")
        version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
        if version != "1.0.0":
            raise BadImage(f"{self._files}/oci-layout", expected="imageLayoutVersion 1.0.0", got=repr(version)[:40])

    def _json(self, name: str) -> object:
        where = f"{self._files}/{name}"
        try:
            with self._files.open(name) as file:
                data = file.read(MANIFEST_MAX_BYTES + 1)
        except FileNotFoundError:
            raise NoSuchImage(self._subject, expected=f"an OCI layout with {name}", got=f"no {where}") from None
        parsed: object = parse_json(data, subject=where)
        return parsed


def copy_bytes(
    file: IO[bytes], descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str
) -> None:
    """Write what a file holds, one byte more than the descriptor's size at most. Raises DigestMismatch for more."""
    while data := file.read(min(COPY_BYTES, descriptor.size_bytes + 1 - writer.size_bytes)):
        writer.write(data)
        advance(len(data))
    if writer.size_bytes > descriptor.size_bytes:
        raise DigestMismatch(subject, expected=f"{descriptor.size_bytes} bytes", got="more")


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
