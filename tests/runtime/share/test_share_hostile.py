"""What a zone's kernel that means harm can send: nothing of it raises, blocks or leaves the directory."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fuzz import LONG, ends
from support.mounts import mounted
from support.namespaces import require_mounted_root
from support.ninep import REQUESTS, Client, Refused, encode, error_of, whole
from support.sharing import client_of, served

from runtime.share.fids import Limits
from runtime.share.server import Server

ME = os.geteuid()
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory with all kinds of files; one beside it that must stay as it is."""
    directory, canary = tmp_path / "shared", tmp_path / "canary"
    (directory / "dir" / "below").mkdir(parents=True)
    (directory / "file").write_bytes(b"content")
    (directory / "dir" / "inner").write_bytes(b"inner content")
    os.mkfifo(directory / "fifo")
    (directory / "away").symlink_to(canary)
    (directory / "up").symlink_to("../canary/secret")
    (directory / "etc").symlink_to("/etc")
    canary.mkdir()
    (canary / "secret").write_bytes(b"secret")
    (canary / "link").symlink_to("secret")
    yield directory
    mend(directory)  # pytest removes it


def mend(directory: Path) -> None:
    """A zone may have taken its modes, which keeps a plain user out, and its files."""
    directory.chmod(0o755)
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            mend(path)


def picture(directory: Path) -> list[Any]:
    """Everything of a directory that a change would change, but for times of access."""
    found: list[Any] = []
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((path, status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ctime_ns, content))
    return found


def examples(fid: int = 0, opened: int = 1, directory: int = 2) -> list[bytes]:
    """A valid request of every kind."""
    requests: dict[str, tuple[Any, ...]] = {
        "version": (65536, b"9P2000.L"),
        "auth": (9, b"user", b"", 0),
        "attach": (9, 0xFFFFFFFF, b"user", b"", ME),
        "flush": (5,),
        "walk": (fid, 10, (b"dir", b"inner")),
        "read": (opened, 0, 100),
        "write": (opened, 2, b"some data"),
        "clunk": (11,),
        "remove": (12,),
        "statfs": (fid,),
        "lopen": (3, 0),
        "lcreate": (4, b"made", 2, 0o644, 0xFFFFFFFF),
        "symlink": (fid, b"link", b"../canary", 0xFFFFFFFF),
        "mknod": (fid, b"node", 0o010644, 0, 0, 0xFFFFFFFF),
        "rename": (5, fid, b"renamed"),
        "readlink": (6,),
        "getattr": (fid, 0x3FFF),
        "setattr": (opened, 0x1F9, 0o644, ME, ME, 20, 1, 2, 3, 4),
        "xattrwalk": (fid, 13, b"user.x"),
        "xattrcreate": (fid, b"user.x", 1, 0),
        "readdir": (directory, 0, 500),
        "fsync": (opened, 1),
        "lock": (opened, 0, 1, 0, 10, 77, b"zone"),
        "getlock": (opened, 0, 0, 10, 77, b"zone"),
        "link": (fid, 3, b"linked"),
        "mkdir": (fid, b"sub", 0o755, 0xFFFFFFFF),
        "renameat": (fid, b"file", 2, b"file2"),
        "unlinkat": (fid, b"linked", 0),
    }
    assert set(requests) == set(REQUESTS)
    return [encode(name, *values) for name, values in requests.items()]


def prepare(server: Server) -> Client:
    """A session with the fids that `examples` uses."""
    client = Client(server.handle)
    client.start(uid=ME)
    for number, names, flags in (
        (1, (b"file",), 2),
        (2, (), 0),
        (3, (b"file",), None),
        (4, (b"dir",), None),
        (5, (b"dir", b"inner"), None),
        (6, (b"up",), None),
        (11, (b"fifo",), None),
        (12, (b"dir", b"below"), None),
    ):
        try:
            client.walk(0, *names, to=number)
            if flags is not None:
                client.ask("lopen", number, flags)
        except Refused:
            continue  # gone by now
    return client


def test_every_prefix_of_every_message_is_refused(shared: Path) -> None:
    before = picture(shared)
    with served(shared) as server:
        prepare(server)
        for message in examples():
            for size in range(len(message)):
                assert error_of(server.handle(message[:size])) == errno.EPROTO
                if size >= 7:
                    said = whole(message[4], 1, message[7:size])
                    expected = (errno.EPROTO, errno.EOPNOTSUPP) if message[4] in (102, 30, 32) else (errno.EPROTO,)
                    assert error_of(server.handle(said)) in expected, said
            if message[4] not in (102, 30, 32):
                assert error_of(server.handle(whole(message[4], 1, message[7:] + b"x"))) == errno.EPROTO
    assert picture(shared) == before


NAMES = (
    *(b"file", b"dir", b"inner", b"below", b"away", b"up", b"etc", b"fifo", b"made", b"link", b"x" * 255),
    *(b"..", b".", b"", b"/", b"../canary", b"../canary/secret", b"/etc/passwd", b"dir/inner", b"\xff", b"secret"),
)
NUMBERS = (0, 1, 2, 3, 7, 0x200, 0o644, 0o6777, 0o100644, 0o010644, 0o020666, 0o060666, 0o120777, 4096, 65535)
EXTREMES = (2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


def random_request(dice: random.Random) -> bytes:
    """A well-formed request of any kind, with values that may mean something."""
    name = dice.choice(list(REQUESTS))
    if name == "version" and dice.random() < 0.9:
        name = "walk"
    values: list[Any] = []
    for place, field in enumerate(REQUESTS[name][1]):
        if field == "s":
            values.append(dice.choice(NAMES) if name != "version" else b"9P2000.L")
        elif field == "N":
            values.append([dice.choice(NAMES) for _ in range(dice.randrange(4))])
        elif field == "D":
            values.append(dice.randbytes(dice.randrange(40)))
        elif field == "d" and place == 0:
            values.append(dice.randrange(16))
        else:
            number = dice.choice(NUMBERS) if dice.random() < 0.7 else dice.choice(EXTREMES)
            values.append(number & {"b": 0xFF, "w": 0xFFFF, "d": 2**32 - 1, "q": 2**64 - 1}[field])
    return encode(name, *values)


def damaged(message: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, gone or more; mostly with a header that fits."""
    data = bytearray(message)
    for _ in range(dice.randrange(1, 4)):
        how, at = dice.randrange(4), dice.randrange(4, len(data)) if len(data) > 4 else 0
        if how < 2:
            data[at:at] = b"" if at < len(data) else b"\0"
            data[at] = dice.choice((0, 1, 2, 0x7F, 0xFF, dice.randrange(256)))
        elif how == 2:
            del data[at : at + dice.randrange(1, 4)]
        else:
            data[at:at] = dice.choice((b"..", b"/", b"\0", b"\xff" * 4, b"../canary"))
    if dice.random() < 0.9 and len(data) >= 4:
        data[:4] = len(data).to_bytes(4, "little")
    return bytes(data)


def test_fuzz_no_message_raises_blocks_or_leaves_the_directory(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd: None)  # the disk is others' too
    seed = time.time_ns() if LONG in os.environ else 7
    rounds = int(os.environ.get(LONG, 20_000))
    dice, valid = random.Random(seed), examples()
    canary = shared.parent / "canary"
    before, etc = picture(canary), os.stat("/etc").st_ctime_ns
    answered = 0
    with ends(), served(shared, limits=Limits(fids=64, open_files=16)) as server:
        for number in range(rounds):
            if number % 50 == 0:
                mend(shared)
                (shared / "file").exists() or (shared / "file").write_bytes(b"content")
                prepare(server)
            message = random_request(dice) if number % 3 == 0 else dice.choice(valid)
            if number % 3 != 2 or number % 2:
                message = damaged(message, dice)
            reply = server.handle(message)
            assert server.faults == 0, f"seed {seed}, round {number}: {message.hex()}"
            assert len(reply) <= 65536 and int.from_bytes(reply[:4], "little") == len(reply)
            answered += error_of(reply) is None
    assert answered > rounds // 20
    assert picture(canary) == before
    assert sorted(os.listdir(shared.parent)) == ["canary", "shared"]
    assert os.stat("/etc").st_ctime_ns == etc


def test_symlink_leads_nowhere(shared: Path) -> None:
    with client_of(shared) as client:
        for name in (b"away", b"up", b"etc"):
            for next_name in (b"secret", b"passwd", b".."):
                number, qids = client.walk(0, name, next_name)
                assert len(qids) == 1, "the symlink itself"
            number = client.at(name)
            for ask, values in (
                ("lopen", (number, 0)),
                ("lopen", (number, 2)),
                ("lcreate", (client.at(), name, 2, 0o644, 0xFFFFFFFF)),
                ("lcreate", (client.at(name), b"new", 2, 0o644, 0xFFFFFFFF)),
                ("mkdir", (number, b"new", 0o755, 0xFFFFFFFF)),
                ("symlink", (number, b"new", b"x", 0xFFFFFFFF)),
                ("unlinkat", (number, b"secret", 0)),
                ("link", (number, client.at(b"file"), b"new")),
                ("renameat", (0, b"file", number, b"new")),
                ("setattr", (number, 8, 0, 0, 0, 0, 0, 0, 0, 0)),
                ("setattr", (number, 1, 0o777, 0, 0, 0, 0, 0, 0, 0)),
            ):
                with pytest.raises(Refused) as caught:
                    client.ask(ask, *values)
                assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EOPNOTSUPP), ask


def test_name_swapped_for_a_symlink_leads_nowhere(shared: Path) -> None:
    """Another zone with the same directory may rename at any time; what is held stays what it was."""
    canary = shared.parent / "canary"
    before = picture(canary)
    with client_of(shared) as client:
        directory, file = client.at(b"dir"), client.at(b"dir", b"inner")
        (shared / "dir").rename(shared / "dir2")
        (shared / "dir").symlink_to(canary)
        client.create(b"secret", fid=directory)
        client.setattr(file, 1, mode=0o600)
        client.ask("remove", file)
        client.ask("unlinkat", directory, b"secret", 0)
    assert picture(canary) == before
    assert os.listdir(shared / "dir2") == ["below"]


def test_directory_moved_out_has_nothing_above(shared: Path) -> None:
    with client_of(shared) as client:
        below, directory = client.at(b"dir", b"below"), client.at(b"dir")
        (shared / "dir").rename(shared.parent / "canary" / "dir")
        for number in (below, directory):
            with pytest.raises(Refused) as caught:
                client.walk(number, b"..")
            assert caught.value.errno == errno.ESTALE
            with pytest.raises(Refused) as caught:
                client.ask("remove", number)
            assert caught.value.errno == errno.ESTALE
    assert (shared.parent / "canary" / "dir" / "below").is_dir()


def test_other_file_systems_below_are_not_entered() -> None:
    if os.stat("/").st_dev == os.stat("/proc").st_dev:
        pytest.skip("needs a /proc that is mounted")
    with client_of(Path("/"), readonly=True) as client:
        assert b"proc" in client.names(client.open())
        with pytest.raises(Refused) as caught:
            client.walk(0, b"proc")
        assert caught.value.errno == errno.EXDEV
        assert len(client.walk(0, b"usr", b"..", b"proc", b"1")[1]) == 2


@pytest.mark.root
def test_bind_mounts_of_the_same_file_system_are_not_entered(shared: Path) -> None:
    """Nothing but the mount tells them from directories."""
    canary = shared.parent / "canary"
    with mounted(shared / "bound", "none", canary, "bind"), client_of(shared) as client:
        assert (shared / "bound").stat().st_dev == shared.stat().st_dev
        for ask, values in (
            ("walk", (0, 9, (b"bound",))),
            ("lcreate", (client.at(), b"bound", 0, 0o644, 0)),
        ):
            with pytest.raises(Refused) as caught:
                client.ask(ask, *values)
            assert caught.value.errno == errno.EXDEV
        for ask, values in (
            ("unlinkat", (0, b"bound", 0x200)),
            ("renameat", (0, b"bound", 0, b"x")),
            ("mkdir", (0, b"bound", 0o755, 0)),
        ):
            with pytest.raises(Refused) as caught:
                client.ask(ask, *values)
            assert caught.value.errno in (errno.EBUSY, errno.EEXIST)
    assert sorted(os.listdir(canary)) == ["link", "secret"]


IN_AN_EMPTY_ROOT = """
import os, sys
sys.path[:0] = sys.argv[2:]
from support.ninep import Client
from runtime.net.engine import confine
from runtime.share.server import Server
server = Server(os.open(sys.argv[1], os.O_RDONLY), readonly=False)
confine.empty_root()
assert os.listdir("/") == []
client = Client(server.handle)
client.start(uid=0)
number = client.create(b"new", mode=0o640, gid=5)
client.write(number, b"made")
client.setattr(client.at(b"new"), 1 | 2 | 8 | 0x20, mode=0o600, uid=6, size=2)
client.ask("mkdir", 0, b"sub", 0o755, 0)
client.ask("symlink", 0, b"to", b"/etc", 7)
client.ask("link", client.at(b"sub"), number, b"again")
client.ask("rename", client.at(b"sub", b"again"), 0, b"third")
client.ask("remove", client.at(b"new"))
assert client.at(b"sub", b"..", b"..") and client.lock(number, 1) == 0
assert client.read(client.open(b"third")) == b"ma"
assert set(client.names(client.open(b"sub"))) == {b".", b".."}
server.close()
"""


@pytest.mark.root
def test_it_serves_from_an_empty_root(tmp_path: Path) -> None:
    if ME != 0:
        pytest.skip("needs root, to change the root")
    require_mounted_root()
    directory = tmp_path / "shared"
    directory.mkdir()
    command = [sys.executable, "-c", IN_AN_EMPTY_ROOT, str(directory), str(PROJECT), str(PROJECT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(directory)) == ["sub", "third", "to"]
    status = (directory / "third").stat()
    assert (status.st_uid, status.st_gid, status.st_mode, status.st_size) == (6, 5, 0o100600, 2)
    assert (directory / "to").lstat().st_gid == 7
