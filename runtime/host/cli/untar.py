"""A tar archive from a zone onto this machine: whatever the archive says, nothing outside the target is touched."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from runtime.errors import RuntimeFault
from runtime.host.cli.terminal import escaped
from runtime.init.agent import tarsparse
from runtime.init.agent.tarformat import XATTR, is_copied

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Of what a zone sends no file of this machine gets set-uid, set-gid or sticky bits.
_MODE = 0o777
COPY_BYTES = 256 << 10
# What may lie between two members' data; tarfile keeps it in memory, whatever size a header says.
HEADERS_BYTES = 2 << 20


class BadArchive(RuntimeFault):
    """An archive that is none, or names what is not its own."""


class _Pieces:
    """Pieces as a file that can be read from, up to a bound that each member moves on."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""
        self._left_bytes = HEADERS_BYTES

    def pass_over(self, member: tarfile.TarInfo) -> None:
        """What may be read from now on: the member's data, and headers.

        A size says how much data there is of files alone (tarfile.TarInfo._proc_builtin); of sparse ones the map does.
        """
        if member.issparse() and member.pax_headers.get(tarsparse.MAJOR) != "1":
            expected = "sparse files in the form of the zone's agent"
            raise BadArchive("archive of the zone", expected=expected, got=escaped(member.name))
        has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
        stored = sum(size for _, size in _pieces_of(member)) if member.issparse() else member.size
        self._left_bytes = HEADERS_BYTES + (stored if has_data else 0)

    def read(self, size: int) -> bytes:
        if self._left_bytes <= 0:
            expected = f"headers of at most {HEADERS_BYTES >> 20} MiB"
            raise BadArchive("archive of the zone", expected=expected, got="more")
        self._left_bytes -= size
        parts, have = [self._rest], len(self._rest)
        while have < size and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def unpack(
    pieces: Iterable[bytes], target: Path, *, named: str, contents: bool = False, owners: bool = False
) -> list[str]:
    """Lay an archive of one file or one directory down at `target`, as docker's cp would.

    named:    the target as it was written: with a slash at its end it has to be a directory.
    contents: the archive is of what lies in a directory.
    owners:   give files their owners, where this user may, and the attributes users have given them.
    Returns what was left out, a line each. Raises BadArchive.
    """
    try:
        source = _Pieces(pieces)
        with tarfile.open(fileobj=cast(Any, source), mode="r|", encoding="utf-8") as archive:
            first = archive.next()
            if first is None:
                raise BadArchive("archive of the zone", expected="an entry", got="none")
            base, name = _place(first, target, named, contents)
            made = not name and not base.exists()
            if made:  # the directory that becomes the copy; one that is to hold it has to be there
                base.mkdir()
            root = os.open(base, _DIRECTORY & ~os.O_NOFOLLOW)
            try:
                return list(_Tree(root, archive, source, owners).lay(first, name, made=made))
            finally:
                os.close(root)
    except tarfile.TarError as error:
        raise BadArchive("archive of the zone", expected="a tar archive", got=str(error)) from error
    except (ValueError, OverflowError) as error:  # a time that is none, a NUL in where a link leads, an owner of 2**64
        raise BadArchive("archive of the zone", expected="what files can have", got=str(error)) from error
    except OSError as error:
        raise BadArchive(str(error.filename or target), got=error.strerror or str(error)) from error


def _place(first: tarfile.TarInfo, target: Path, named: str, contents: bool) -> tuple[Path, str]:
    """(directory that is there or is made, what the archive's root is called in it; "" for the directory itself)"""
    if contents:
        return target, ""
    own = first.name.rstrip("/").rpartition("/")[2]
    if target.is_dir():
        return (target, "") if own in ("", ".", "..") else (target, own)
    if first.isdir():
        if target.exists():
            raise BadArchive(named, expected="a directory, as the source is one", got="a file")
        return target, ""
    if named.endswith("/"):
        raise BadArchive(named, expected="a directory that is there", got="none")
    return target.parent, target.name


class _Tree:
    """Writes below one directory; every step down is by descriptor, and through no link."""

    def __init__(self, root: int, archive: tarfile.TarFile, source: _Pieces, owners: bool) -> None:
        self._root, self._archive, self._source, self._owners = root, archive, source, owners
        self._left_out: list[str] = []

    def lay(self, first: tarfile.TarInfo, name: str, *, made: bool) -> Iterator[str]:
        """Yields what is left out. made: is our directory itself of the archive, rather than one that was there?"""
        prefix = first.name.rstrip("/")
        member: tarfile.TarInfo | None = first
        directories: list[tuple[list[str], tarfile.TarInfo]] = []
        while member is not None:
            self._source.pass_over(member)
            self._archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            path = self._inside(member.name, prefix, name)
            if member.isdir():
                if path:
                    self._directory(path)
                directories.append((path, member))
            elif reason := self._file(path, member, prefix, name):
                yield f"{escaped(member.name)} ({reason})"
            yield from self._left_out
            self._left_out = []
            member = self._archive.next()
        for path, info in reversed(directories):  # last: a directory may be read-only, and writing changes its time
            if path or made:
                self._finish(path, info)
        yield from self._left_out

    def _inside(self, member: str, prefix: str, name: str) -> list[str]:
        """A member's path below our root, by its parts. Raises BadArchive."""
        bare = member.rstrip("/")
        if bare != prefix and not bare.startswith(f"{prefix}/" if prefix else ""):
            raise BadArchive("archive of the zone", expected=f"names below {escaped(prefix)}", got=escaped(member))
        parts = [*([name] if name else []), *bare.removeprefix(prefix).strip("/").split("/")]
        path = [part for part in parts if part not in ("", ".")]
        if ".." in path or any("\0" in part for part in path):
            raise BadArchive("archive of the zone", expected="names without ..", got=escaped(member))
        return path

    def _open(self, path: list[str]) -> int:
        """The directory of that path, made where it is not there."""
        fd = os.dup(self._root)
        for part in path:
            try:
                os.mkdir(part, 0o700 | _MODE & 0o755, dir_fd=fd)
            except FileExistsError:
                pass
            try:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _directory(self, path: list[str]) -> None:
        os.close(self._open(path))

    def _file(self, path: list[str], info: tarfile.TarInfo, prefix: str, name: str) -> str:
        """Write a member that is no directory; returns why not, if it is left out."""
        if not path:
            return "it has no name"
        if not (info.isreg() or info.issym() or info.islnk()):
            return "a device, or a pipe"
        fd = self._open(path[:-1])
        try:
            _remove(path[-1], fd)
            if info.issym():
                os.symlink(info.linkname, path[-1], dir_fd=fd)
                os.utime(path[-1], (info.mtime, info.mtime), dir_fd=fd, follow_symlinks=False)
            elif info.islnk():
                self._link(self._inside(info.linkname, prefix, name), path[-1], fd)
            else:
                self._regular(path[-1], info, fd)
            self._own(path[-1], info, fd)
        finally:
            os.close(fd)
        return ""

    def _link(self, to: list[str], name: str, fd: int) -> None:
        if not to:
            raise BadArchive("archive of the zone", expected="a link to a file", got="one to the root")
        source = self._open(to[:-1])
        try:
            os.link(to[-1], name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(source)

    def _regular(self, name: str, info: tarfile.TarInfo, fd: int) -> None:
        content = self._archive.extractfile(info)
        assert content is not None
        # Unbuffered: what is written behind the time would change it.
        with open(os.open(name, _NEW, 0o600, dir_fd=fd), "wb", buffering=0) as file:
            if info.issparse():
                self._holes(file, info)
            else:
                while data := content.read(COPY_BYTES):
                    _write(file, data)
            self._attribute(file.fileno(), info)  # before the mode, by which we may not write to it
            os.fchmod(file.fileno(), info.mode & _MODE)
            os.utime(file.fileno(), (info.mtime, info.mtime))

    def _holes(self, file: IO[bytes], info: tarfile.TarInfo) -> None:
        """Only what is there of a sparse file is read, and written."""
        stored: Any = self._archive.fileobj
        for start, left in _pieces_of(info):
            file.seek(start)
            while left > 0:
                data = stored.read(min(COPY_BYTES, left))
                if not data:
                    raise BadArchive("archive of the zone", expected="the whole of a sparse file", got="an end")
                left -= len(data)
                _write(file, data)
        file.truncate(int(info.pax_headers[tarsparse.REAL_SIZE]))

    def _own(self, name: str, info: tarfile.TarInfo, fd: int) -> None:
        if self._owners and os.geteuid() == 0:
            os.chown(name, info.uid, info.gid, dir_fd=fd, follow_symlinks=False)

    def _attribute(self, fd: int, info: tarfile.TarInfo) -> None:
        """Users' attributes; as of set-uid bits, no file of this machine gets rights by what a zone says."""
        headers = info.pax_headers if self._owners else {}
        for key in [key for key in headers if key.startswith(XATTR)]:
            name = key.removeprefix(XATTR)
            reason = "no rights come from a zone"
            if name.startswith("user.") and is_copied(name):
                try:
                    os.setxattr(fd, name, headers[key].encode("utf-8", "surrogateescape"))
                    continue
                except OSError as error:
                    reason = (error.strerror or str(error)).lower()
            self._left_out.append(f"{escaped(info.name)}, attribute {escaped(name)} ({reason})")

    def _finish(self, path: list[str], info: tarfile.TarInfo) -> None:
        fd = self._open(path)
        try:
            if self._owners and os.geteuid() == 0:
                os.fchown(fd, info.uid, info.gid)
            self._attribute(fd, info)
            os.fchmod(fd, info.mode & _MODE)
            os.utime(fd, (info.mtime, info.mtime))
        finally:
            os.close(fd)


def _write(file: IO[bytes], data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _pieces_of(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """(offset, size) of what is there of a sparse file, as tarfile has read them (TarInfo._proc_gnusparse_10)."""
    return cast(Any, member).sparse or []


def _remove(name: str, fd: int) -> None:
    """Make way for a file: a link is removed, never written through; a directory stays, and refuses."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
