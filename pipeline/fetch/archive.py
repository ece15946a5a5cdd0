"""The files in a tar that lies on a disk, read where they lie: a table of names and offsets, nothing is extracted.

The tar is judged hostile. Its headers are read strictly, a bounded number of them; what they name is only ever looked
up, and a link leads to another file of the same tar or nowhere.

Source:  POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import io
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.fetch.errors import BadImage, NoSuchImage

BLOCK = 512
MEMBERS_MAX = 100_000
NAME_BYTES_MAX = 64 << 10  # of a pax or GNU record
LINKS_MAX = 8
_FILES, _LINKS, _DIRECTORY = (b"0", b"\0", b"7"), (b"1", b"2"), b"5"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


@dataclass(frozen=True)
class _Member:
    """A file's place, or, with `link`, the name of another member."""

    offset: int
    size_bytes: int
    link: str = ""


class TarFiles:
    """The regular files of a tar, by name."""

    def __init__(self, path: Path, *, subject: str) -> None:
        """Read the headers. Raises NoSuchImage where there is no file, BadImage for one that is no proper tar."""
        self._path, self._subject = path, subject
        try:
            with open(path, "rb") as file:
                self._members = _Reader(file, str(path)).members()
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchImage(subject, expected="an archive", got=f"no {path}") from None
        except OSError as error:
            raise NoSuchImage(subject, expected="an archive to read", got=f"{error.strerror}: {path}") from None

    def __str__(self) -> str:
        return str(self._path)

    def size(self, name: str) -> int | None:
        """The size of a file in the tar, or None where there is none of that name."""
        found = self._find(name)
        return None if found is None else found.size_bytes

    def open(self, name: str) -> IO[bytes]:
        """The bytes of a file in the tar. Raises FileNotFoundError."""
        found = self._find(name)
        if found is None:
            raise FileNotFoundError(name)
        return io.BufferedReader(_Part(self._path, found.offset, found.size_bytes))

    def _find(self, name: str) -> _Member | None:
        name = _clean(name)
        for _ in range(LINKS_MAX):
            member = self._members.get(name)
            if member is None or not member.link:
                return member
            name = member.link
        raise BadImage(str(self._path), expected=f"at most {LINKS_MAX} links to a file", got="more", hint=name[:80])


class _Part(io.RawIOBase):
    """A piece of a file."""

    def __init__(self, path: Path, offset: int, size_bytes: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at, self._end = offset, offset + size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        count = os.preadv(self._fd, [view[: max(0, min(len(view), self._end - self._at))]], self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class _Reader:
    """Headers, one after the other."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._end = os.fstat(file.fileno()).st_size

    def members(self) -> dict[str, _Member]:
        found: dict[str, _Member] = {}
        at, path, link, size = 0, "", "", -1
        for _ in range(2 * MEMBERS_MAX):
            if at == self._end and found:
                return found
            header = self._read(at, BLOCK)
            if not any(header):
                if found and not any(self._read(at + BLOCK, BLOCK) if at + BLOCK < self._end else b""):
                    return found
                raise self._bad("two zero blocks after the last file", at)
            self._check(header, at)
            kind, body = header[156:157], at + BLOCK
            own = self._number(header[124:136], at)
            length = size if size >= 0 and kind not in b"xgLK" else own
            if kind in (*_LINKS, _DIRECTORY):
                length = 0
            at = body + length + (-length % BLOCK)
            if body + length > self._end:
                raise self._bad(f"{length} bytes of a file", body)
            if kind in b"xgLK":
                data = self._extra(body, length)
                if kind == b"x":
                    records = self._records(data, body)
                    path, link = records.get("path", path), records.get("linkpath", link)
                    size = self._decimal(records["size"], body) if "size" in records else size
                elif kind == b"L":
                    path = _text(data.rstrip(b"\0"))
                elif kind == b"K":
                    link = _text(data.rstrip(b"\0"))
                continue
            name = _clean(path or _name(header))
            if kind in _FILES:
                found[name] = _Member(body, length)
            elif kind in _LINKS:
                target = link or _text(header[157:257].split(b"\0")[0])
                base = posixpath.dirname(name) if kind == b"2" else ""
                found[name] = _Member(0, 0, _clean(posixpath.join(base, target)) or ".")
            path, link, size = "", "", -1
        raise BadImage(self._name, expected=f"at most {MEMBERS_MAX} files", got="more")

    def _read(self, at: int, count: int) -> bytes:
        data = os.pread(self._file.fileno(), count, at)
        if len(data) != count:
            raise self._bad("a whole header", at)
        return data

    def _extra(self, at: int, length: int) -> bytes:
        if length > NAME_BYTES_MAX:
            raise self._bad(f"a name record of at most {NAME_BYTES_MAX} bytes", at)
        return self._read(at, length) if length else b""

    def _check(self, header: bytes, at: int) -> None:
        wanted = sum(header[:148]) + 8 * 32 + sum(header[156:])
        text = header[148:156].strip(b"\0 ")
        if not text or text.strip(b"01234567") or int(text, 8) != wanted:
            packed = next((name for magic, name in _COMPRESSED.items() if at == 0 and header.startswith(magic)), "")
            if packed:
                raise BadImage(
                    self._name, expected="a tar as it is", got=f"one in {packed}", hint="decompress it first"
                )
            raise self._bad("a tar header with a right checksum", at)

    def _number(self, field: bytes, at: int) -> int:
        if field[0] & 0x80:
            value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
        else:
            text = field.strip(b"\0 ")
            value = -1 if text.strip(b"01234567") else int(text or b"0", 8)
        if not 0 <= value <= self._end:
            raise self._bad("a size within the file", at)
        return value

    def _decimal(self, text: str, at: int) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= self._end):
            raise self._bad("a size within the file", at)
        return int(text)

    def _records(self, data: bytes, at: int) -> dict[str, str]:
        found: dict[str, str] = {}
        while data:
            length, blank, _ = data[:20].partition(b" ")
            count = int(length) if blank and length.isdigit() else 0
            record = data[len(length) + 1 : count]
            key, equals, value = record.partition(b"=")
            if not equals or not value.endswith(b"\n") or count > len(data):
                raise self._bad("a pax record of the length it says", at)
            found[_text(key)] = _text(value[:-1])
            data = data[count:]
        return found

    def _bad(self, expected: str, at: int) -> BadImage:
        return BadImage(self._name, expected=f"{expected} at byte {at}", got="something else")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    name, prefix = (header[begin:end].split(b"\0")[0] for begin, end in ((0, 100), (345, 500)))
    return _text(prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name)


def _clean(name: str) -> str:
    """A name as it is looked up: relative, without `.`; `..` cannot climb above the top."""
    return posixpath.normpath("/" + name).lstrip("/")
