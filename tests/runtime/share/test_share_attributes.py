"""Owners, modes, sizes and times of files: what a client is told of them, and what it may change."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.ninep import NOFID, Client
from support.sharing import client_of, refused

ME = os.geteuid()
O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY = 0o200, 0o1000, 0o2000, 0o200000
READ, WRITE, BOTH = 0, 1, 2
MODE, UID, GID, SIZE, ATIME, MTIME, ATIME_SET, MTIME_SET = 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x100
ANY = NOFID  # a gid that is left to the host
NOBODY = 65534


def test_getattr_says_what_stat_says(client: Client, shared: Path) -> None:
    for name in ("file", "dir", "away"):
        path, found = shared / name, client.getattr(client.at(name.encode()))
        status = path.lstat()
        assert found[2:10] == (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev),
            *(status.st_size, status.st_blksize, status.st_blocks),
        )
        assert [s * 10**9 + ns for s, ns in found[10:13]] == [
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
        ]
        assert found.valid == 0x7FF and found.rest == (0, 0, 0, 0)
        assert found.qid.path == status.st_ino


def test_qid_has_another_version_when_the_content_changed(client: Client, shared: Path) -> None:
    before = client.getattr(client.at(b"file")).qid
    os.utime(shared / "file", ns=(0, 12345))
    after = client.getattr(client.at(b"file")).qid
    assert before.path == after.path and before.version != after.version


def test_setattr_of_mode_size_and_times(client: Client, shared: Path) -> None:
    number, path = client.at(b"file"), shared / "file"
    client.setattr(number, MODE, mode=0o100604)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    client.setattr(number, SIZE, size=3)
    assert path.read_bytes() == b"con"
    client.setattr(client.open(b"file", flags=BOTH), SIZE, size=5)
    assert path.read_bytes() == b"con\0\0"
    set_both = ATIME | MTIME | ATIME_SET | MTIME_SET
    client.setattr(number, set_both, atime_s=1, atime_ns=2, mtime_s=3, mtime_ns=4)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_000_000_002, 3_000_000_004)
    client.setattr(number, MTIME | MTIME_SET, mtime_s=2**64 - 1, mtime_ns=5)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_000_000_002, -999_999_995)
    client.setattr(number, ATIME)
    assert path.stat().st_atime > 10**9 and path.stat().st_mtime_ns == -999_999_995
    client.setattr(number, ATIME | MTIME)
    assert path.stat().st_mtime > 10**9
    client.setattr(client.at(b"dir"), MODE, mode=0o3775)
    client.setattr(number, 0x40)  # ctime: it has changed anyway
    refused(errno.EINVAL, client.setattr, number, MTIME | MTIME_SET, mtime_ns=10**9)
    refused(errno.EFBIG, client.setattr, number, SIZE, size=2**63)
    refused(errno.EISDIR, client.setattr, 0, SIZE, size=0)
    refused(errno.EINVAL, client.setattr, client.at(b"away"), SIZE, size=0)
    refused(errno.EINVAL, client.setattr, number, UID, uid=2**32 - 1)
    refused(errno.EINVAL, client.setattr, number, GID, gid=2**32 - 1)


def test_setattr_of_a_symlink_is_of_itself(client: Client, shared: Path) -> None:
    number = client.at(b"away")
    refused(errno.EOPNOTSUPP, client.setattr, number, MODE, mode=0o777)
    before = os.stat("/etc").st_mtime_ns
    client.setattr(number, ATIME | MTIME | ATIME_SET | MTIME_SET, mtime_s=7)
    assert (shared / "away").lstat().st_mtime == 7 and os.stat("/etc").st_mtime_ns == before


@pytest.mark.root
def test_owners_are_those_the_zone_gives(shared: Path) -> None:
    if ME != 0:
        pytest.skip("needs root, to give files away")
    with client_of(shared) as client:
        client.attach(1, uid=1234)
        client.create(b"new", fid=1, gid=77)
        client.ask("mkdir", 1, b"sub", 0o2755, 77)
        client.ask("symlink", 1, b"link", b"/etc", 77)
        client.ask("mknod", 1, b"fifo", 0o010600, 0, 0, 77)
        for name in ("new", "sub", "link", "fifo"):
            assert ((shared / name).lstat().st_uid, (shared / name).lstat().st_gid) == (1234, 77), name
        assert (shared / "sub").stat().st_mode & 0o2000
        client.attach(2, uid=2**32 - 1)
        client.create(b"nobodys", fid=2)
        assert ((shared / "nobodys").stat().st_uid, (shared / "nobodys").stat().st_gid) == (65534, 0)
        before = os.stat("/etc").st_uid
        for name in (b"file", b"dir", b"away"):
            client.setattr(client.at(name), UID | GID, uid=4, gid=5)
            client.setattr(client.at(name), GID, gid=6)
            status = os.lstat(os.fsencode(shared) + b"/" + name)
            assert (status.st_uid, status.st_gid) == (4, 6)
        assert os.stat("/etc").st_uid == before


@contextmanager
def without_rights(shared: Path) -> Iterator[None]:
    """As a user who may not give files away, and has the directory; root becomes one meanwhile."""
    if ME == 0:
        for path in (shared, *shared.iterdir()):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(ME)


def test_owner_that_cannot_be_given_leaves_nothing(shared: Path, client: Client) -> None:
    with without_rights(shared):
        client.attach(1, uid=ME + 1)
        refused(errno.EPERM, client.create, b"new", fid=1)
        refused(errno.EPERM, client.ask, "mkdir", 1, b"new", 0o755, ANY)
        refused(errno.EPERM, client.ask, "symlink", 1, b"new", b"x", ANY)
        refused(errno.EPERM, client.setattr, client.at(b"file"), UID, uid=ME + 1)
    assert sorted(os.listdir(shared)) == ["away", "dir", "file"]


def test_no_file_gets_set_user_id(client: Client, shared: Path) -> None:
    client.create(b"new", mode=0o6755)
    client.ask("mknod", 0, b"node", 0o106755, 0, 0, ANY)
    client.setattr(client.at(b"file"), MODE, mode=0o6755)
    for name in ("new", "node", "file"):
        assert stat.S_IMODE((shared / name).stat().st_mode) == 0o755


def test_file_of_the_host_loses_set_user_id_before_it_is_written(client: Client, shared: Path) -> None:
    path = shared / "file"

    def change(how: Any, *values: Any, **named: Any) -> int:
        path.chmod(0o4755)
        client.read(client.open(b"file"))
        assert path.stat().st_mode & 0o4000
        how(*values, **named)
        return stat.S_IMODE(path.stat().st_mode)

    number = client.open(b"file", flags=WRITE)
    assert change(client.open, b"file", flags=WRITE) == 0o755
    assert change(client.create, b"file") == 0o755
    assert change(client.setattr, client.at(b"file"), SIZE, size=1) == 0o755
    assert change(client.setattr, number, SIZE, size=1) == 0o755
