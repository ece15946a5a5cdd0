"""Files into a container and out of it, while its workload does what it likes with them."""

import io
import os
import posix
import resource
import tarfile
from types import SimpleNamespace

import pytest
from support import containers
from support.descriptors import descriptors, opened_since

from runtime.init.agent import copy
from runtime.init.agent.archive import Archive
from runtime.init.agent.errors import Refused
from runtime.init.agent.extract import Extractor
from runtime.init.agent.tarformat import FIFO, REGULAR, SYMLINK, Entry


@pytest.fixture(autouse=True)
def zsys():
    """openat2 has no function in Python."""
    containers.zsys()


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    (made / "tmp").mkdir(parents=True)
    (made / "file").write_text("")
    return made


def opened(root):
    return os.open(root, os.O_PATH | os.O_DIRECTORY)


@pytest.mark.parametrize("path", ["/file/.", "/file/x", "/missing", "/tmp/../file", "/tmp/\0"])
def test_a_copy_that_is_refused_leaves_nothing_open(root, path):
    before = descriptors()
    with pytest.raises((Refused, ValueError)):
        copy.send(SimpleNamespace(), opened(root), path)
    with pytest.raises((Refused, ValueError)):
        copy.receive(SimpleNamespace(), opened(root), path)
    assert not opened_since(before)


def copied_in(root, kind, mode=0o666):
    extractor = Extractor(opened(root), "/tmp")
    try:
        extractor.begin(Entry("p", kind, mode=mode, uid=os.getuid(), gid=os.getgid(), link="x"))
        extractor.end()
    finally:
        extractor.close()


@pytest.mark.parametrize("mode", [0o640, 0o666, 0o6777])
def test_a_fifo_has_the_mode_of_its_entry_whatever_the_umask(root, mode):
    before = os.umask(0o77)
    try:
        copied_in(root, FIFO, mode)
    finally:
        os.umask(before)
    assert os.lstat(root / "tmp" / "p").st_mode == 0o010000 | mode


def test_copies_into_one_directory_do_not_touch_each_others_files(root):
    (root / "tmp" / ".zone.copying").mkdir()
    copies = [Extractor(opened(root), "/tmp") for _ in range(2)]
    entries = [Entry(name, REGULAR, mode=0o644, uid=os.getuid(), gid=os.getgid()) for name in ("one", "two")]
    for extractor, entry in zip(copies, entries, strict=True):
        extractor.begin(entry)
    for extractor, text in zip(copies, (b"first", b"second"), strict=True):
        extractor.data(text)
        extractor.end()
        extractor.close()
    assert [(root / "tmp" / name).read_bytes() for name in ("one", "two")] == [b"first", b"second"]
    assert sorted(os.listdir(root / "tmp")) == [".zone.copying", "one", "two"]


def test_copy_that_is_given_up_leaves_no_file(root):
    extractor = Extractor(opened(root), "/tmp")
    extractor.begin(Entry("one", REGULAR, mode=0o644, uid=os.getuid(), gid=os.getgid()))
    extractor.data(b"half")
    extractor.close()
    assert os.listdir(root / "tmp") == []


@pytest.fixture
def victim(tmp_path):
    made = tmp_path / "outside"
    made.write_text("")
    made.chmod(0o600)
    return made


def replaces(monkeypatch, name, place, victim, link):
    """The workload is quick: right behind the call of this name a link to the victim is what lies at the place."""
    real = getattr(posix, name)

    def call(*arguments, **keywords):
        real(*arguments, **keywords)
        place.unlink()
        link(victim, place)

    monkeypatch.setattr(posix, name, call)


@pytest.mark.parametrize(
    ("kind", "call", "link"), [(FIFO, "mknod", os.symlink), (FIFO, "mknod", os.link), (SYMLINK, "symlink", os.link)]
)
def test_what_the_workload_puts_in_the_place_of_a_new_member_gets_neither_owner_nor_mode(
    root, victim, monkeypatch, kind, call, link
):
    given = []
    replaces(monkeypatch, call, root / "tmp" / "p", victim, link)
    monkeypatch.setattr(posix, "chown", lambda *words, **_: given.append(words))
    with pytest.raises(Refused, match="something else was put in its place"):
        copied_in(root, kind)
    assert not given and victim.stat().st_mode == 0o100600


def test_the_mode_of_a_fifo_is_set_through_no_link_of_the_workload(root, victim, monkeypatch):
    replaces(monkeypatch, "chown", root / "tmp" / "p", victim, os.symlink)
    copied_in(root, FIFO)
    assert victim.stat().st_mode == 0o100600


def archived(root, path="/tmp"):
    archive = Archive(opened(root), path)
    try:
        while piece := archive.take(1 << 16):
            yield piece
    finally:
        archive.close()


def test_a_file_whose_holes_cannot_be_asked_for_comes_whole(root, monkeypatch):
    """As many below /sys: no blocks, a size, and no seek to what is there."""
    (root / "tmp" / "f").write_bytes(b"data")
    os.truncate(root / "tmp" / "f", 9000)
    real = posix.lseek

    def refused(fd, offset, whence):
        if whence:
            raise OSError(22, "Invalid argument")
        return real(fd, offset, whence)

    monkeypatch.setattr(posix, "lseek", refused)
    with tarfile.open(fileobj=io.BytesIO(b"".join(archived(root)))) as tar:
        assert tar.extractfile("tmp/f").read() == b"data".ljust(9000, b"\0")


def deep(directory, levels):
    """A tree of so many levels with a file in each, on the way back too."""
    for level in range(levels):
        (directory / "z").write_text(str(level))
        directory /= "d"
        directory.mkdir()


def test_a_tree_that_is_deeper_than_descriptors_reach_comes_whole(root):
    deep(root / "tmp", 300)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 100, hard))
    try:
        packed = b"".join(archived(root))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names)) == 601
        for level in (0, 150, 299):
            assert tar.extractfile(f"tmp/{'d/' * level}z").read() == b"%d" % level


def test_a_tree_that_branches_far_down_comes_whole(root):
    deep(root / "tmp", 80)
    ends = [f"{'d/' * level}{name}" for level in (70, 80) for name in "abc"]
    for end in ends:
        (root / "tmp" / end).mkdir()
    with tarfile.open(fileobj=io.BytesIO(b"".join(archived(root)))) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)) == 161 + len(ends) and {f"tmp/{end}" for end in ends} < set(names)


@pytest.mark.parametrize(("call", "name"), [("open", "d"), ("readlink", "l"), ("open", "f")])
def test_what_goes_while_a_tree_is_read_is_passed_over(root, monkeypatch, call, name):
    place, real = root / "tmp" / name, getattr(posix, call)
    (root / "tmp" / "z").write_text("stays")
    {"d": place.mkdir, "l": lambda: place.symlink_to("z"), "f": lambda: place.write_text("")}[name]()

    def quick(what, *arguments, **keywords):
        if what == name:
            place.rmdir() if name == "d" else place.unlink()
        return real(what, *arguments, **keywords)

    monkeypatch.setattr(posix, call, quick)
    with tarfile.open(fileobj=io.BytesIO(b"".join(archived(root)))) as tar:
        assert tar.extractfile("tmp/z").read() == b"stays"


def test_a_tree_that_is_moved_while_it_is_read_leads_nowhere_else(root):
    deep(root / "tmp", 300)
    (root / "secret").mkdir()
    pieces = archived(root)
    for _ in range(600):  # all the way down, and a part of the way back
        next(pieces)
    os.rename(root / "tmp" / "/".join("d" * 100), root / "secret" / "d")
    with pytest.raises(Refused, match="moved elsewhere"):
        list(pieces)
