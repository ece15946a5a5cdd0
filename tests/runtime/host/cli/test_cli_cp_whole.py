"""What a file is beside its bytes, from this machine into a container and back: both programs' own halves, joined."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import containers, facts
from support.tools import require

from runtime.host.cli.tar import archive_of
from runtime.host.cli.untar import unpack
from runtime.init.agent import tarsparse
from runtime.init.agent.archive import Archive
from runtime.init.agent.errors import Refused
from runtime.init.agent.extract import Extractor
from runtime.init.agent.tarread import Reader

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it gives files owners")]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
DAY_NS = 86400 * 10**9


@pytest.fixture(autouse=True)
def zsys() -> None:
    """openat2 has no function in Python."""
    containers.zsys()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Everything that both sides may have: owners, modes, links, long names, names of any bytes, attributes."""
    made = tmp_path / "tree"
    deep = made / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (made / "file").write_bytes(os.urandom(70_000))
    os.chown(made / "file", 33, 1 << 22)
    (made / "file").chmod(0o640)
    os.setxattr(made / "file", "user.note", b"\0\n=\xff")
    os.setxattr(made / "file", "user.empty", b"")
    os.setxattr(deep, "user.of a directory", b"x" * 3000)
    (deep / "\udcff\u00e9\n").write_text("any bytes")
    os.link(made / "file", deep / "again")
    os.symlink("../" * 40 + "nowhere", made / "dangling")
    os.lchown(made / "dangling", 5, 6)
    (made / "empty").write_bytes(b"")
    (made / "empty").chmod(0o000)
    for number, path in enumerate(facts.of_directory(made)):
        os.utime(made / os.fsdecode(path), ns=(0, number * DAY_NS), follow_symlinks=False)
    return made


def opened(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY)


def copied_in(pieces: Iterator[bytes], root: Path) -> Extractor:
    """As the agent unpacks below a container's root."""
    extractor = Extractor(opened(root), "/")
    reader = Reader(extractor.begin, extractor.data, extractor.end, extractor.seek)
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.finish()
        extractor.finish()
    finally:
        extractor.close()
    return extractor


def copied_out(root: Path, path: str) -> Iterator[bytes]:
    """As the agent packs it."""
    archive = Archive(opened(root), path)
    try:
        while piece := archive.take(4096):
            yield piece
    finally:
        archive.close()


def assert_same(copy: Path, tree: Path) -> None:
    """A copy has all that the tree has; what it has not is shown."""
    got, wanted = facts.of_directory(copy), facts.of_directory(tree)
    assert {path: got.get(path) for path in wanted if got.get(path) != wanted[path]} == {} and len(got) == len(wanted)


def test_everything_a_file_has_comes_into_a_zone_and_back(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    copied_in(archive_of(tree, "copy", owners=True), root)
    assert_same(root / "copy", tree)
    assert unpack(copied_out(root, "/copy"), tmp_path / "back", named="back", owners=True) == []
    assert_same(tmp_path / "back", tree)


def test_without_owners_files_are_roots_and_have_no_attributes(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    copied_in(archive_of(tree, "copy", owners=False), root)
    assert unpack(copied_out(tree.parent, "/tree"), tmp_path / "back", named="back") == []
    for found in (facts.of_directory(root / "copy"), facts.of_directory(tmp_path / "back")):
        assert {(fact.uid, fact.gid, fact.xattrs) for fact in found.values()} == {(0, 0, ())}


HOLES = [(0, 1), (1 << 20, 5000), ((1 << 41) - 4096, 4096)]


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """Files with a hole at their end, in the middle, and nothing but one; the first would be two terabytes."""
    made = tmp_path / "sparse"
    made.mkdir()
    for name, size, pieces in (("\u00e9" * 90, 1 << 41, HOLES), ("end", 1 << 30, HOLES[:2]), ("none", 1 << 40, [])):
        with open(made / name, "wb") as file:
            for at, count in pieces:
                file.seek(at)
                file.write(os.urandom(count))
            file.truncate(size)
    return made


def there(file: Path) -> tuple[int, list[tuple[int, bytes]]]:
    """A file's size, and what is there of it."""
    with open(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        found = tarsparse.extents(opened.fileno(), status)
        assert found is not None, "it has no holes"
        return status.st_size, [(at, os.pread(opened.fileno(), count, at)) for at, count in found]


def test_holes_stay_holes_both_ways(sparse: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    copied_in(archive_of(sparse, "copy", owners=False), root)
    archive = list(copied_out(root, "/copy"))
    assert sum(map(len, archive)) < 1 << 17
    assert unpack(archive, tmp_path / "back", named="back") == []
    for name in sorted(path.name for path in sparse.iterdir()):
        assert there(sparse / name) == there(root / "copy" / name) == there(tmp_path / "back" / name)


def test_sparse_files_are_read_and_written_as_tar_does(sparse: Path, tmp_path: Path) -> None:
    require("tar")
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-x"], input=b"".join(copied_out(tmp_path, "/sparse")), cwd=root, check=True)
    made = subprocess.run(["tar", "-c", "-S", "--format=posix", "sparse"], cwd=root, capture_output=True, check=True)
    back = tmp_path / "back"
    back.mkdir()
    copied_in(iter([made.stdout]), back)
    for name in (path.name for path in sparse.iterdir()):
        assert there(sparse / name) == there(root / "sparse" / name) == there(back / "sparse" / name)


def test_rights_of_a_program_go_into_a_zone_and_not_out_of_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "ping").write_bytes(b"a program")
    os.setxattr(tmp_path / "ping", "security.capability", CAPABILITY)
    copied_in(archive_of(tmp_path / "ping", "ping", owners=True), root)
    assert os.getxattr(root / "ping", "security.capability") == CAPABILITY
    left_out = unpack(copied_out(root, "/ping"), tmp_path / "back", named="back", owners=True)
    assert left_out == ["ping, attribute security.capability (no rights come from a zone)"]
    assert os.listxattr(tmp_path / "back") == []


def test_attributes_that_the_file_system_does_not_take_are_counted(tree: Path, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "root"
    root.mkdir()

    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("posix.setxattr", refused)
    extractor = copied_in(archive_of(tree, "copy", owners=True), root)
    assert extractor.xattrs_left_out == 3 and (root / "copy" / "file").stat().st_uid == 33
    monkeypatch.setattr("os.setxattr", refused)
    left_out = unpack(archive_of(tree / "file", "file", owners=True), tmp_path / "back", named="back", owners=True)
    assert left_out == [
        "file, attribute user.empty (operation not supported)",
        "file, attribute user.note (operation not supported)",
    ]


def test_attributes_that_no_archive_takes_are_refused_and_none_is_left_out(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr("posix.listxattr", lambda fd: [f"user.{number}" for number in range(3)])
    monkeypatch.setattr("posix.getxattr", lambda fd, name: bytes(30_000))
    with pytest.raises(Refused, match="expected attributes of at most 65536 bytes, got 90018"):
        list(copied_out(tmp_path, "/file"))
