"""What a client of a shared directory can do, message by message."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path

import pytest
from support.ninep import NOFID, NOTAG, Client, encode, error_of, qid, whole
from support.sharing import client_of, refused, served

from runtime.share.fids import Limits

ME = os.geteuid()
O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY = 0o200, 0o1000, 0o2000, 0o200000
READ, WRITE, BOTH = 0, 1, 2
MODE, UID, GID, SIZE, ATIME, MTIME, ATIME_SET, MTIME_SET = 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x100
ANY = NOFID  # a gid that is left to the host


def test_version_is_agreed_upon(shared: Path) -> None:
    with served(shared) as server:
        client = Client(server.handle)
        assert client.version(8192) == (8192, b"9P2000.L")
        assert client.version(1 << 30) == (131072, b"9P2000.L")
        assert client.version(8192, b"9P2000.u") == (8192, b"unknown")
        refused(errno.EPROTO, client.attach, 0, uid=0)
        refused(errno.EMSGSIZE, client.version, 4095)
        assert struct.unpack_from("<H", server.handle(encode("version", 8192, b"9P2000.L", tag=NOTAG)), 5) == (NOTAG,)


def test_version_ends_all_fids(client: Client) -> None:
    client.open(b"file")
    client.version(8192)
    refused(errno.EBADF, client.getattr, 0)
    client.attach(0, uid=ME)


def test_nothing_is_served_before_a_version(shared: Path) -> None:
    with served(shared) as server:
        refused(errno.EPROTO, Client(server.handle).attach, 0, uid=0)


def test_attach_gives_the_directory(client: Client, shared: Path) -> None:
    found = client.attach(5, uid=ME, name=b"/")
    assert (found.kind, found.path) == (0x80, shared.stat().st_ino)
    refused(errno.EINVAL, client.attach, 5, uid=ME)
    refused(errno.EINVAL, client.attach, NOFID, uid=ME)
    refused(errno.ENOENT, client.attach, 6, uid=ME, name=b"dir")
    refused(errno.EINVAL, client.ask, "attach", 6, 5, b"", b"", ME)
    refused(errno.EOPNOTSUPP, client.ask, "auth", 6, b"", b"", ME)


def test_flush_is_answered_at_once(client: Client) -> None:
    assert client.ask("flush", 7) == b""


def test_walk_gives_each_qid(client: Client, shared: Path) -> None:
    number, qids = client.walk(0, b"dir", b"inner")
    assert [(found.kind, found.path) for found in qids] == [
        (0x80, (shared / "dir").stat().st_ino),
        (0, (shared / "dir" / "inner").stat().st_ino),
    ]
    assert client.getattr(number).size == 13
    _, (link,) = client.walk(0, b"away")
    assert link.kind == 2


def test_walk_stops_where_a_name_is_not_and_makes_no_fid(client: Client) -> None:
    number, qids = client.walk(0, b"dir", b"nothing", b"file")
    assert len(qids) == 1
    refused(errno.EBADF, client.getattr, number)
    refused(errno.ENOENT, client.walk, 0, b"nothing", b"dir")
    refused(errno.ENOTDIR, client.walk, client.at(b"file"), b"file")
    assert len(client.walk(0, b"file", b"file")[1]) == 1


def test_walk_of_a_fid_onto_itself(client: Client) -> None:
    number = client.at(b"dir")
    refused(errno.ENOENT, client.walk, number, b"nothing", to=number)
    assert len(client.walk(number, b"below", b"nothing", to=number)[1]) == 1
    assert client.getattr(number).qid == client.getattr(client.at(b"dir")).qid
    client.walk(number, b"inner", to=number)
    assert client.getattr(number).size == 13
    refused(errno.EINVAL, client.walk, client.open(b"dir"), to=1002)


def test_walk_of_an_open_fid_gives_one_that_is_not_open(client: Client) -> None:
    copy = client.at(fid=client.open(b"file"))
    refused(errno.EBADF, client.read, copy)
    client.ask("lopen", copy, READ)
    assert client.read(copy) == b"content"


def test_walk_up_stays_in_the_directory(client: Client, shared: Path) -> None:
    root = client.getattr(0).qid
    _, qids = client.walk(0, b"..", b"..", b"dir", b"below", b"..", b"..", b"..", b"..")
    assert [found.path for found in qids].count(root.path) == 5
    refused(errno.ENOTDIR, client.walk, client.at(b"file"), b"..")
    assert client.getattr(client.at(*[b".."] * 16)).qid == root


def test_walk_takes_names_only(client: Client) -> None:
    for name in (b"", b".", b"dir/inner", b"/", b"../shared"):
        refused(errno.EINVAL, client.walk, 0, name)
    refused(errno.EINVAL, client.walk, 0, *[b".."] * 17)
    refused(errno.EINVAL, client.walk, 0, b"dir", to=NOFID)
    refused(errno.EINVAL, client.walk, client.at(), b"dir", to=0)
    refused(errno.EBADF, client.walk, 77, b"dir")


def test_clunk_frees_the_number(client: Client) -> None:
    number = client.open(b"file")
    assert client.ask("clunk", number) == b""
    refused(errno.EBADF, client.ask, "clunk", number)
    client.walk(0, b"file", to=number)


def test_read_and_write_at_offsets(client: Client, shared: Path) -> None:
    number = client.open(b"file", flags=BOTH)
    assert client.read(number, 3, 2) == b"te"
    assert client.read(number, 100) == b""
    assert client.write(number, b"XY", 6) == 2
    assert client.write(number, b"", 0) == 0
    assert (shared / "file").read_bytes() == b"contenXY"
    assert client.ask("fsync", number, 0) == client.ask("fsync", number, 1) == b""
    refused(errno.EINVAL, client.read, number, 2**63)
    refused(errno.EINVAL, client.write, number, b"x", 2**64 - 1)


def test_reply_fits_the_message_size(client: Client, shared: Path) -> None:
    (shared / "large").write_bytes(bytes(200_000))
    client.version(4096)
    client.attach(0, uid=ME)
    assert len(client.read(client.open(b"large"), 0, 2**32 - 1)) == 4096 - 11
    assert len(client.ask("readdir", client.open(), 0, 2**32 - 1)) < 4096


def test_reads_and_writes_need_a_fid_that_is_open_for_them(client: Client) -> None:
    number = client.at(b"file")
    refused(errno.EBADF, client.read, number)
    refused(errno.EBADF, client.write, number, b"x")
    refused(errno.EBADF, client.ask, "fsync", number, 0)
    refused(errno.EBADF, client.readdir, number)
    refused(errno.EBADF, client.lock, number, 0)
    refused(errno.EBADF, client.write, client.open(b"file"), b"x")
    refused(errno.EBADF, client.read, client.open(b"file", flags=WRITE))
    refused(errno.EISDIR, client.read, client.open(b"dir"))
    refused(errno.ENOTDIR, client.readdir, client.open(b"file"))


def test_open_takes_few_flags(client: Client, shared: Path) -> None:
    number = client.open(b"file", flags=WRITE | O_APPEND | 0o4010000)
    client.write(number, b"+", 0)
    assert (shared / "file").read_bytes() == b"content+"
    client.open(b"file", flags=WRITE | O_TRUNC)
    assert (shared / "file").read_bytes() == b""
    client.open(b"file", flags=0o40000 | 0o100 | 0o4000 | 0o20000)  # O_DIRECT, which would bind offsets, and others
    refused(errno.EINVAL, client.open, b"file", flags=3)
    refused(errno.ENOTDIR, client.open, b"file", flags=O_DIRECTORY)
    refused(errno.EISDIR, client.open, b"dir", flags=BOTH)
    refused(errno.EINVAL, client.ask, "lopen", client.open(b"file"), READ)
    client.open(b"dir", flags=O_DIRECTORY)


def test_create_makes_a_file_and_opens_it(client: Client, shared: Path) -> None:
    number = client.create(b"new", mode=0o100640)
    client.write(number, b"made")
    assert client.read(number) == b"made"
    assert (shared / "new").read_bytes() == b"made"
    assert stat.S_IMODE((shared / "new").stat().st_mode) == 0o640
    assert client.getattr(number).qid.path == (shared / "new").stat().st_ino
    assert client.getattr(client.at(b"new")).uid == ME


def test_umask_of_the_server_is_not_asked(client: Client, shared: Path) -> None:
    before = os.umask(0o077)
    try:
        client.create(b"new", mode=0o666)
        client.ask("mkdir", 0, b"sub", 0o1777, ANY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((shared / "new").stat().st_mode) == 0o666
    assert stat.S_IMODE((shared / "sub").stat().st_mode) == 0o1777


def test_create_of_what_is_there_opens_it_unless_that_is_excluded(client: Client, shared: Path) -> None:
    mode = (shared / "file").stat().st_mode
    assert client.read(client.create(b"file", mode=0)) == b"content"
    assert (shared / "file").stat().st_mode == mode
    refused(errno.EEXIST, client.create, b"file", flags=BOTH | O_EXCL)
    refused(errno.ELOOP, client.create, b"away")
    refused(errno.EISDIR, client.create, b"dir")
    assert client.read(client.create(b"file", flags=BOTH | O_TRUNC)) == b""


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/"])
def test_no_file_is_made_of_such_a_name(client: Client, name: bytes) -> None:
    refused(errno.EINVAL, client.create, name)
    for request, values in {
        "mkdir": (0o755, ANY),
        "mknod": (0o100644, 0, 0, ANY),
        "symlink": (b"x", ANY),
        "unlinkat": (0,),
    }.items():
        refused(errno.EINVAL, client.ask, request, 0, name, *values)
    refused(errno.EINVAL, client.ask, "link", 0, client.at(b"file"), name)
    refused(errno.EINVAL, client.ask, "renameat", 0, b"file", 0, name)
    refused(errno.EINVAL, client.ask, "renameat", 0, name, 0, b"x")
    refused(errno.EINVAL, client.ask, "rename", client.at(b"file"), 0, name)


def test_mkdir_symlink_and_mknod_give_the_qid(client: Client, shared: Path) -> None:
    def path(body: bytes) -> int:
        assert len(body) == 13
        return qid(body).path

    assert path(client.ask("mkdir", 0, b"sub", 0o750, ANY)) == (shared / "sub").stat().st_ino
    assert path(client.ask("symlink", 0, b"to", b"some/where", ANY)) == (shared / "to").lstat().st_ino
    assert path(client.ask("mknod", 0, b"fifo", 0o010600, 0, 0, ANY)) == (shared / "fifo").stat().st_ino
    client.ask("mknod", 0, b"socket", 0o140600, 0, 0, ANY)
    client.ask("mknod", 0, b"plain", 0o100604, 0, 0, ANY)
    assert os.readlink(shared / "to") == "some/where"
    kinds = {name: stat.filemode((shared / name).stat().st_mode) for name in ("sub", "fifo", "socket", "plain")}
    assert kinds == {"sub": "drwxr-x---", "fifo": "prw-------", "socket": "srw-------", "plain": "-rw----r--"}
    refused(errno.EEXIST, client.ask, "mkdir", 0, b"sub", 0o750, ANY)
    refused(errno.ENOTDIR, client.ask, "mkdir", client.at(b"file"), b"sub", 0o750, ANY)


def test_devices_are_not_made(client: Client, shared: Path) -> None:
    refused(errno.EPERM, client.ask, "mknod", 0, b"null", 0o020666, 1, 3, ANY)
    refused(errno.EPERM, client.ask, "mknod", 0, b"disk", 0o060666, 8, 0, ANY)
    refused(errno.EPERM, client.ask, "mknod", 0, b"whiteout", 0o020000, 0, 0, ANY)
    refused(errno.EINVAL, client.ask, "mknod", 0, b"what", 0o040666, 0, 0, ANY)
    refused(errno.EINVAL, client.ask, "mknod", 0, b"what", 0o120666, 0, 0, ANY)
    assert sorted(os.listdir(shared)) == ["away", "dir", "file"]


def test_readlink(client: Client) -> None:
    assert client.ask("readlink", client.at(b"away")) == b"\x04\0/etc"
    refused(errno.EINVAL, client.ask, "readlink", client.at(b"file"))
    refused(errno.EINVAL, client.ask, "readlink", 0)


def test_target_too_long_for_a_message_is_refused(client: Client) -> None:
    client.ask("symlink", 0, b"long", b"x" * 4095, ANY)
    assert len(client.ask("readlink", client.at(b"long"))) == 4097
    client.version(4096)
    client.attach(0, uid=ME)
    refused(errno.EMSGSIZE, client.ask, "readlink", client.at(b"long"))


def test_link_gives_another_name(client: Client, shared: Path) -> None:
    client.ask("link", client.at(b"dir"), client.at(b"file"), b"again")
    assert (shared / "dir" / "again").samefile(shared / "file")
    client.ask("link", 0, client.at(b"away"), b"away2")
    assert os.readlink(shared / "away2") == "/etc"
    refused(errno.EEXIST, client.ask, "link", 0, client.at(b"file"), b"away")
    refused(errno.EPERM, client.ask, "link", 0, client.at(b"dir"), b"dir2")


def test_unlinkat_removes_files_and_with_its_flag_directories(client: Client, shared: Path) -> None:
    refused(errno.EISDIR, client.ask, "unlinkat", 0, b"dir", 0)
    refused(errno.ENOTEMPTY, client.ask, "unlinkat", 0, b"dir", 0x200)
    refused(errno.ENOTDIR, client.ask, "unlinkat", 0, b"file", 0x200)
    client.ask("unlinkat", client.at(b"dir"), b"below", 0x200)
    client.ask("unlinkat", client.at(b"dir"), b"inner", 0)
    client.ask("unlinkat", 0, b"away", 0)
    assert sorted(os.listdir(shared)) == ["dir", "file"] and not os.listdir(shared / "dir")


def test_remove_ends_the_fid_also_where_it_fails(client: Client, shared: Path) -> None:
    file, directory, link = client.at(b"dir", b"inner"), client.at(b"dir"), client.at(b"away")
    client.ask("remove", file)
    refused(errno.ENOTEMPTY, client.ask, "remove", directory)
    client.ask("remove", link)
    refused(errno.EBUSY, client.ask, "remove", 0)
    for number in (file, directory, link, 0):
        refused(errno.EBADF, client.getattr, number)
    assert sorted(os.listdir(shared)) == ["dir", "file"] and os.listdir(shared / "dir") == ["below"]


def test_remove_takes_the_name_the_file_has_now(client: Client, shared: Path) -> None:
    number = client.at(b"file")
    (shared / "file").rename(shared / "dir" / "elsewhere")
    (shared / "file").write_bytes(b"another")
    client.ask("remove", number)
    assert (shared / "file").read_bytes() == b"another" and not (shared / "dir" / "elsewhere").exists()


def test_remove_of_what_has_no_name_is_stale(client: Client, shared: Path) -> None:
    number = client.at(b"file")
    (shared / "file").unlink()
    (shared / "file (deleted)").write_bytes(b"another")
    refused(errno.ESTALE, client.ask, "remove", number)
    number = client.at(b"dir", b"inner")
    (shared / "dir" / "inner").unlink()
    refused(errno.ESTALE, client.ask, "rename", number, 0, b"x")


def test_removed_file_is_read_through_what_is_open(client: Client) -> None:
    number = client.open(b"file", flags=BOTH)
    walked = client.at(b"file")
    client.ask("unlinkat", 0, b"file", 0)
    client.write(number, b"C")
    assert client.read(number) == b"Content"
    assert client.getattr(walked).nlink == 0
    client.setattr(walked, SIZE, size=1)
    assert client.read(number) == b"C"
    client.ask("clunk", number)


def test_renames_leave_fids_what_they_were(client: Client, shared: Path) -> None:
    number, walked, directory = client.open(b"file"), client.at(b"file"), client.at(b"dir")
    client.ask("renameat", 0, b"file", directory, b"moved")
    client.ask("renameat", 0, b"dir", 0, b"dir2")
    assert client.read(number) == b"content"
    assert client.getattr(walked).size == 7
    client.ask("rename", walked, 0, b"back")
    assert (shared / "back").read_bytes() == b"content"
    client.create(b"inside", fid=directory)
    assert sorted(os.listdir(shared / "dir2")) == ["below", "inner", "inside"]
    client.ask("rename", directory, 0, b"dir3")
    refused(errno.EINVAL, client.ask, "rename", directory, client.at(b"dir3", b"below"), b"loop")
    refused(errno.EBUSY, client.ask, "rename", 0, directory, b"root")
    assert sorted(os.listdir(shared)) == ["away", "back", "dir3"]


def test_statfs_is_that_of_the_host(client: Client, shared: Path) -> None:
    kind, size, blocks, *_, names = struct.unpack("<IIQQQQQQI", client.ask("statfs", 0))
    found = os.statvfs(shared)
    assert (kind, size, blocks, names) == (0x01021997, found.f_frsize, found.f_blocks, found.f_namemax)


def test_extended_attributes_are_not_supported(client: Client) -> None:
    refused(errno.EOPNOTSUPP, client.ask, "xattrwalk", 0, 9, b"user.x")
    refused(errno.EOPNOTSUPP, client.ask, "xattrcreate", 0, b"user.x", 1, 0)


def test_directory_of_a_thousand_names_comes_in_pieces_each_name_once(client: Client, shared: Path) -> None:
    many = shared / "many"
    many.mkdir()
    expected = {b".", b".."}
    for index in range(1000):
        (many / f"{index:03}-{'x' * (index % 200)}").touch()
        expected.add(b"%03d-%s" % (index, b"x" * (index % 200)))
    number = client.open(b"many")
    for count in (300, 1000, 65536):
        names = client.names(number, count)
        assert len(names) == 1002 and set(names) == expected
    refused(errno.EINVAL, client.readdir, number, 0, 20)


def test_names_removed_while_the_directory_is_read_hide_no_other(client: Client, shared: Path) -> None:
    many = shared / "many"
    many.mkdir()
    for index in range(1000):
        (many / str(index)).touch()
    number, directory, offset, seen = client.open(b"many"), client.at(b"many"), 0, []
    while piece := client.readdir(number, offset, 500):
        offset = piece[-1].offset
        for entry in piece:
            if entry.name not in (b".", b".."):
                seen.append(entry.name)
                client.ask("unlinkat", directory, entry.name, 0)
    assert len(seen) == len(set(seen)) == 1000 and not os.listdir(many)


def test_entries_have_kind_inode_and_offset_to_go_on_from(client: Client, shared: Path) -> None:
    os.mkfifo(shared / "fifo")
    os.close(os.open(os.fsencode(shared) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    number = client.open()
    entries = client.readdir(number)
    found = {entry.name: (entry.qid.kind, entry.kind) for entry in entries}
    assert found == {
        b".": (0x80, 4),
        b"..": (0x80, 4),
        b"dir": (0x80, 4),
        b"file": (0, 8),
        b"\xff\xfe": (0, 8),
        b"away": (2, 10),
        b"fifo": (0, 0),
    }
    inodes = {entry.name: entry.qid.path for entry in entries}
    own = shared.stat().st_ino
    assert (inodes[b"."], inodes[b".."], inodes[b"file"]) == (own, own, (shared / "file").stat().st_ino)
    for index, entry in enumerate(entries):
        assert client.readdir(number, entry.offset) == entries[index + 1 :]
    assert client.readdir(number, 1000) == []
    below = {entry.name: entry.qid.path for entry in client.readdir(client.open(b"dir"))}
    assert below[b".."] == own


def test_readonly_share_changes_nothing(shared: Path) -> None:
    with client_of(shared, readonly=True) as client:
        file = client.at(b"file")
        for flags in (WRITE, BOTH, O_TRUNC):
            refused(errno.EROFS, client.open, b"file", flags=flags)
        refused(errno.EROFS, client.create, b"new")
        refused(errno.EROFS, client.create, b"file", flags=READ)
        refused(errno.EROFS, client.setattr, file, MODE, mode=0o600)
        refused(errno.EROFS, client.ask, "mkdir", 0, b"new", 0o755, ANY)
        refused(errno.EROFS, client.ask, "mknod", 0, b"new", 0o100644, 0, 0, ANY)
        refused(errno.EROFS, client.ask, "symlink", 0, b"new", b"x", ANY)
        refused(errno.EROFS, client.ask, "link", 0, file, b"new")
        refused(errno.EROFS, client.ask, "unlinkat", 0, b"file", 0)
        refused(errno.EROFS, client.ask, "renameat", 0, b"file", 0, b"new")
        refused(errno.EROFS, client.ask, "rename", file, 0, b"new")
        refused(errno.EROFS, client.ask, "remove", file)
        number = client.open(b"file")
        refused(errno.EROFS, client.write, number, b"x")
        assert client.read(number) == b"content"
        assert client.lock(number, 0) == 0
        assert set(client.names(client.open())) == {b".", b"..", b"dir", b"file", b"away"}
        client.ask("statfs", 0)
        client.ask("readlink", client.at(b"away"))


def test_fifo_socket_and_symlink_are_not_opened(client: Client, shared: Path) -> None:
    os.mkfifo(shared / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(shared)  # the name of a socket is short
        listener.bind("socket")
        os.chdir(before)
        for name in (b"fifo", b"socket"):
            for flags in (READ, WRITE, BOTH):
                refused(errno.ENXIO, client.open, name, flags=flags)
                refused(errno.ENXIO, client.create, name, flags=flags)
    refused(errno.ELOOP, client.open, b"away")


@pytest.mark.root
def test_device_of_the_host_is_not_opened(shared: Path) -> None:
    if ME != 0:
        pytest.skip("needs root, to make a device")
    os.mknod(shared / "null", 0o020666, os.makedev(1, 3))
    with client_of(shared) as client:
        refused(errno.ENXIO, client.open, b"null")
        refused(errno.ENXIO, client.create, b"null")
        refused(errno.EINVAL, client.setattr, client.at(b"null"), SIZE, size=0)
        assert client.getattr(client.at(b"null")).rdev == os.makedev(1, 3)


def test_unknown_and_broken_messages_are_answered(client: Client) -> None:
    for kind in (0, 6, 7, 101, 112, 114, 124, 126, 255):
        assert error_of(client.handle(whole(kind, 1, bytes(4)))) == errno.EOPNOTSUPP
    assert error_of(client.handle(b"")) == errno.EPROTO
    assert error_of(client.handle(encode("clunk", 0) + b"x")) == errno.EPROTO
    assert error_of(client.handle(whole(120, 1, bytes(5)))) == errno.EPROTO
    assert error_of(client.handle(memoryview(encode("clunk", 99)))) == errno.EBADF


def test_limits_are_kept(shared: Path) -> None:
    limits = Limits(fids=5, open_files=2, message_bytes=8192, locks=3)
    with client_of(shared, limits=limits) as client:
        first, second = client.open(b"file", flags=BOTH), client.open(b"dir")
        third = client.at(b"file")
        refused(errno.ENFILE, client.ask, "lopen", third, READ)
        refused(errno.ENFILE, client.ask, "lcreate", client.at(b"dir"), b"new", BOTH, 0o644, ANY)
        assert not (shared / "dir" / "new").exists()
        refused(errno.ENFILE, client.at)
        refused(errno.ENFILE, client.attach, 9, uid=ME)
        client.ask("clunk", second)
        client.ask("lopen", third, READ)
        client.at()
        assert [client.lock(first, 1, 10 * index, 1) for index in range(4)] == [0, 0, 0, 2]
        assert client.lock(first, 2) == 0 and client.lock(first, 1, 40, 1) == 0
        data = bytes(65536 - 7 - 20)
        refused(errno.EMSGSIZE, client.write, first, data)
        client.write(first, bytes(8192 - 23))


def test_descriptors_are_all_let_go(shared: Path) -> None:
    with client_of(shared) as client:
        for _ in range(20):
            client.open(b"file", flags=BOTH)
            client.readdir(client.open(b"dir"), 0, 40)
            client.create(b"new")
            client.at(b"dir", b"below", b"..", b"..")
            client.walk(0, b"dir", b"nothing")
            client.ask("remove", client.open(b"new"))
