"""What a .deb unpacks to, read without dpkg: an ar archive whose data.tar is compressed in one of three ways."""

from __future__ import annotations

import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pipeline.errors import PipelineError

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60


class BadDeb(PipelineError):
    """A file that is no Debian binary package, or one in a form unknown here."""


@contextmanager
def data_tar(path: Path, *, subject: str) -> Iterator[tarfile.TarFile]:
    """The package's data.tar as a stream: members in order, each read before the next.

    path:    a .deb whose hash has been checked.
    Raises:  BadDeb.
    Source:  deb(5); ar(5).
    """
    with open(path, "rb") as file:
        name = _seek_data(file, subject)
        try:
            with _decompress(file, name, subject) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
                yield archive
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise BadDeb(subject, expected=f"a whole {name}", got=str(error)) from error


def _seek_data(file: IO[bytes], subject: str) -> str:
    """Stand at the first byte of the data.tar member and return its name."""
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise BadDeb(subject, expected="an ar archive", got="other bytes")
    while len(header := file.read(AR_HEADER_BYTES)) == AR_HEADER_BYTES:
        name, size = header[:16].decode("ascii", "replace").rstrip().rstrip("/"), header[48:58].strip()
        if header[58:] != b"`\n" or not size.isdigit():
            break
        if name.startswith("data.tar"):
            return name
        file.seek(int(size) + int(size) % 2, 1)
    raise BadDeb(subject, expected="a member data.tar", got="none")


@contextmanager
def _decompress(file: IO[bytes], name: str, subject: str) -> Iterator[IO[bytes]]:
    """The member's plain bytes. It is the last one of the archive (deb(5)), so its end is the end of the file."""
    match name:
        case "data.tar.xz":
            # The pad byte behind an odd-sized member is no part of the stream: read no further than the archive does.
            with lzma.LZMAFile(file) as plain:
                yield cast(IO[bytes], plain)
        case "data.tar.zst":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as plain_zstd:
                yield cast(IO[bytes], plain_zstd)
        case "data.tar.gz":
            with gzip.GzipFile(fileobj=file) as plain_gzip:
                yield cast(IO[bytes], plain_gzip)
        case _:
            raise BadDeb(subject, expected="data.tar.xz, .zst or .gz", got=name)
