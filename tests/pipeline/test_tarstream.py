"""The tar dialect given to tar2sqfs, read back by the standard library and by GNU tar."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest

from pipeline.tarstream import END, mtime_s, padding, records
from pipeline.tree import Entry, Kind

ENTRIES = [
    Entry(b"", Kind.DIRECTORY, mode=0o755, mtime_ns=10**9),
    Entry(b"d", Kind.DIRECTORY, mode=0o1777, uid=3_000_000_000, gid=70_000),
    Entry(b"d/" + b"n" * 250, Kind.FILE, mode=0o4755, size_bytes=700, mtime_ns=1_600_000_000_999_999_999),
    Entry(b"h" * 101, Kind.HARDLINK, target=b"d/" + b"n" * 250),
    Entry(b"l", Kind.SYMLINK, mode=0o777, target=b"/" + b"t" * 300),
    Entry(b"c", Kind.CHAR, major=4095, minor=1048575),
    Entry(b"x", Kind.FILE, xattrs={b"user.b": b"\0\n=", b"user.a": b""}),
]


def archive() -> bytes:
    out = b""
    for entry in ENTRIES:
        out += records(entry) + b"x" * entry.size_bytes + padding(entry.size_bytes)
    return out + END


def test_python_reads_back_what_was_written() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        found = tar.getmembers()
    assert [info.name for info in found[1:]] == [entry.path.decode() for entry in ENTRIES[1:]]
    for info, entry in zip(found, ENTRIES, strict=True):
        assert (info.mode, info.uid, info.gid) == (entry.mode, entry.uid, entry.gid)
        assert (info.size, info.mtime) == (entry.size_bytes, mtime_s(entry.mtime_ns))
        assert info.linkname == entry.target.decode()
        assert (info.devmajor, info.devminor) == (entry.major, entry.minor)
        assert (info.uname, info.gname) == ("", "")
    assert found[-1].pax_headers == {"SCHILY.xattr.user.a": "", "SCHILY.xattr.user.b": "\0\n="}


def test_gnu_tar_reads_it_without_a_word() -> None:
    done = subprocess.run(["tar", "-tf", "-"], input=archive(), check=True, capture_output=True)
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == len(ENTRIES)


@pytest.mark.parametrize(("mtime_ns", "seconds"), [(-1, 0), (0, 0), (1_999_999_999, 1), (2**32 * 10**9, 2**32 - 1)])
def test_times_are_those_squashfs_can_hold(mtime_ns: int, seconds: int) -> None:
    assert mtime_s(mtime_ns) == seconds


@pytest.mark.parametrize("size", [1, 80, 81, 82, 83, 84, 970, 971, 972, 973, 974, 975, 9969, 9970, 9971, 9972])
def test_record_length_counts_its_own_digits(size: int) -> None:
    entry = Entry(b"f", Kind.FILE, xattrs={b"user.a": b"v" * size})
    with tarfile.open(fileobj=io.BytesIO(records(entry) + END)) as tar:
        assert tar.getmembers()[0].pax_headers == {"SCHILY.xattr.user.a": "v" * size}
