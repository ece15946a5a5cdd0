"""A file or a tree of this machine as a tar archive, in pieces, none of them kept."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.init.agent import tarsparse
from runtime.init.agent.tarformat import XATTR, is_copied

PIECE_BYTES = 256 << 10


class CannotRead(RuntimeFault):
    """A file that cannot be put into the archive, or changed while it was."""


def archive_of(path: Path, name: str, *, owners: bool, follow: bool = False) -> Iterator[bytes]:
    """The archive in which `path` is called `name`, and what is below it lies below that.

    owners:  keep uid, gid and extended attributes; else all of it is root's, and has none.
    follow:  `path` itself is what it leads to; links below it stay links.
    Raises:  CannotRead.
    """
    maker = tarfile.TarFile(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT)  # knows which files it has seen
    for file, called in _walk(path, name, follow):
        try:
            top = follow and file == path
            if stat.S_ISSOCK(os.lstat(file).st_mode):  # no archive has those
                continue
            info = maker.gettarinfo(os.path.realpath(file) if top else file, arcname=called)
        except OSError as error:
            raise CannotRead(str(file), got=error.strerror or str(error)) from error
        info.name = called
        if not owners:
            info.uid = info.gid = 0
            info.uname = info.gname = ""
        elif info.isreg() or info.isdir():
            info.pax_headers = _xattrs(file)
        if info.isreg():
            yield from _content(file, info)
        else:
            yield _header(info)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _xattrs(file: Path) -> dict[str, str]:
    """The extended attributes of a file that mean the same in a zone, as records of a pax header. Raises CannotRead."""
    found = {}
    try:
        for name in filter(is_copied, sorted(os.listxattr(file))):
            found[f"{XATTR}{name}"] = os.getxattr(file, name).decode("utf-8", "surrogateescape")
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA):  # the file system has none; one has just gone
            raise CannotRead(str(file), got=error.strerror or str(error)) from error
    return found


def _walk(path: Path, name: str, follow: bool) -> Iterator[tuple[Path, str]]:
    """A path and all below it, each directory before what it has, with the names they get; in order."""
    yield path, name
    # Not Path.is_dir, which raises for a link that leads to where we may not look.
    if os.path.isdir(path) and (follow or name == "." or not os.path.islink(path)):
        try:
            children = sorted(os.listdir(path))
        except OSError as error:
            raise CannotRead(str(path), got=error.strerror or str(error)) from error
        for child in children:
            yield from _walk(path / child, f"{name}/{child}", False)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(file: Path, info: tarfile.TarInfo) -> Iterator[bytes]:
    """The header and the data of a file, without its holes."""
    size = info.size
    try:
        with open(file, "rb", buffering=0) as opened:
            found, head = tarsparse.extents(opened.fileno(), os.fstat(opened.fileno())), b""
            if found is not None:
                head = tarsparse.sparse_map(found, size)
                # Its own records first, as the agent writes them: see tarformat.encode.
                info.pax_headers = {**tarsparse.records(info.name, size), **info.pax_headers}
                info.name, info.size = tarsparse.NAME, len(head) + sum(length for _, length in found)
            yield _header(info) + head
            for start, length in [(0, size)] if found is None else found:
                opened.seek(start)
                left = length
                while left and (data := opened.read(min(PIECE_BYTES, left))):
                    left -= len(data)
                    yield data
                if left:
                    got = f"{start + length - left}: it changed meanwhile"
                    raise CannotRead(str(file), expected=f"{start + length} bytes", got=got)
    except OSError as error:
        raise CannotRead(str(file), got=error.strerror or str(error)) from error
    yield bytes(-info.size % tarfile.BLOCKSIZE)
