"""Files into a container and out of it, while its workload does what it likes with them."""

import os
import posix
from types import SimpleNamespace

import pytest
from support import containers

from runtime.init.agent import copy
from runtime.init.agent.errors import Refused
from runtime.init.agent.extract import Extractor
from runtime.init.agent.tarformat import FIFO, SYMLINK, Entry


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
    before = os.listdir("/proc/self/fd")
    with pytest.raises((Refused, ValueError)):
        copy.send(SimpleNamespace(), opened(root), path)
    with pytest.raises((Refused, ValueError)):
        copy.receive(SimpleNamespace(), opened(root), path)
    assert os.listdir("/proc/self/fd") == before


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
