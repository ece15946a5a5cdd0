"""What other readers of tar say is in one: names alone, in the form all of them could have meant."""

from __future__ import annotations

import codecs
import io
import logging
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import PurePosixPath


def plain(path: bytes) -> bytes:
    """A name without leading and trailing slashes, empty parts and dots."""
    return str(PurePosixPath(path.decode("latin-1").strip("/") or ".")).encode("latin-1").removeprefix(b"./")


def by_tarfile(tar: bytes) -> set[bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as archive:
            return {plain(info.name.encode("utf-8", "surrogateescape")) for info in archive}
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError):
        return set()


def by_gnu_tar(tar: bytes) -> set[bytes]:
    argv = ["tar", "-t", "--quoting-style=escape", "--ignore-zeros"]
    done = subprocess.run(argv, input=tar, capture_output=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
    decode = codecs.escape_decode  # type: ignore[attr-defined]
    return {plain(decode(line)[0]) for line in done.stdout.split(b"\n") if line}


def by_libarchive(tar: bytes) -> set[bytes]:
    """The reader bsdtar is made of."""
    import libarchive
    from libarchive import ffi

    logging.getLogger("libarchive").setLevel(logging.ERROR)  # a warning for each name that is no UTF-8
    found = set()
    try:
        with libarchive.memory_reader(tar, format_name="tar", header_codec="latin-1") as entries:
            for entry in entries:
                found.add(plain(ffi.entry_pathname(entry._entry_p) or b""))
    except libarchive.ArchiveError:
        pass
    return found


def ours_alone(tar: bytes, names: Iterable[bytes]) -> set[bytes]:
    """Those of the names that neither tarfile, nor GNU tar, nor libarchive lists."""
    left = {plain(name) for name in names}
    for reader in (by_libarchive, by_tarfile, by_gnu_tar):
        if left:
            left -= reader(tar)
    return left
