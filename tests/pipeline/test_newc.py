"""pipeline.newc against GNU cpio and libarchive, and its own rules."""

import io
import stat
import subprocess

import libarchive
import pytest
from support.tools import needs

from pipeline import newc

needs_cpio = needs("cpio")

SAMPLE = [
    newc.file("etc/motd", b"hello\n", mode=0o640),
    newc.directory("etc"),
    newc.symlink("etc/link", "../init"),
    newc.file("init", b"\x7fELF" + bytes(1021), mode=0o755),
    newc.directory("dev"),
    newc.char_device("dev/console", 5, 1),
    newc.char_device("dev/null", 1, 3, mode=0o666),
    newc.Entry("etc/owned", stat.S_IFREG | 0o600, b"xyz", uid=101, gid=202),
]


def listing(data: bytes) -> list[list[str]]:
    done = subprocess.run(["cpio", "-tvn"], input=data, capture_output=True, check=True)
    return [line.split() for line in done.stdout.decode().splitlines()]


@needs_cpio
def test_gnu_cpio_reads_types_owners_devices_and_targets():
    lines = listing(newc.archive(SAMPLE))
    seen = {" ".join(words[8:]) if words[0][0] != "c" else words[-1]: words for words in lines}
    assert seen["dev/console"][0] == "crw-------" and seen["dev/console"][4:6] == ["5,", "1"]
    assert seen["etc/owned"][2:5] == ["101", "202", "3"]
    assert seen["etc/motd"][0] == "-rw-r-----"
    assert seen["etc/link -> ../init"][0] == "lrwxrwxrwx"
    assert [words[-1] for words in lines if words[0][0] != "l"] == [
        "dev",
        "dev/console",
        "dev/null",
        "etc",
        "etc/motd",
        "etc/owned",
        "init",
    ]


def test_libarchive_reads_the_same_entries():
    with libarchive.memory_reader(newc.archive(SAMPLE)) as entries:
        seen = {entry.pathname: (entry.mode, b"".join(entry.get_blocks())) for entry in entries}
    assert seen["etc/motd"] == (stat.S_IFREG | 0o640, b"hello\n")
    assert seen["init"][1] == b"\x7fELF" + bytes(1021)
    assert set(seen) == {entry.path for entry in SAMPLE}


def test_order_of_input_does_not_change_the_bytes():
    assert newc.archive(SAMPLE) == newc.archive(reversed(SAMPLE))


def test_times_and_inodes_come_from_nowhere_but_the_order():
    data = newc.archive([newc.file("b", b"1"), newc.file("a", b"2")])
    assert data[6:14] == b"00000001" and data[46:54] == b"00000000"
    second = data.index(b"070701", 6)
    assert data[second + 6 : second + 14] == b"00000002"


def test_a_directory_comes_before_its_contents_also_when_a_sibling_sorts_between():
    paths = [
        entry.path
        for entry in newc.read(newc.archive([newc.file("a/x", b""), newc.file("a.b", b""), newc.directory("a")]))
    ]
    assert paths == ["a", "a/x", "a.b"]


@pytest.mark.parametrize("size", range(9))
def test_every_length_pads_to_four_and_reads_back(size: int):
    data = newc.archive([newc.file("x" * (size + 1), b"y" * size), newc.file("z", b"end")])
    assert len(data) % 4 == 0
    assert [entry.data for entry in newc.read(data)] == [b"y" * size, b"end"]


@needs_cpio
def test_hard_links_share_an_inode_and_carry_their_data_once(tmp_path):
    entries = [newc.Entry(name, stat.S_IFREG | 0o644, b"D" * 1000, hardlink="one") for name in ("a", "b", "c")]
    data = newc.archive([*entries, newc.file("other", b"o")])
    assert data.count(b"D" * 1000) == 1
    subprocess.run(["cpio", "-idm"], input=data, cwd=tmp_path, check=True, capture_output=True)
    assert len({(tmp_path / name).stat().st_ino for name in "abc"}) == 1
    assert (tmp_path / "a").read_bytes() == b"D" * 1000
    assert [entry.data for entry in newc.read(data)] == [b"D" * 1000] * 3 + [b"o"]


@needs_cpio
def test_a_file_called_trailer_does_not_end_the_archive():
    data = newc.archive([newc.file("TRAILER!!!", b"not the end"), newc.file("z", b"seen")])
    assert [words[-1] for words in listing(data)] == ["./TRAILER!!!", "z"]
    assert [entry.path for entry in newc.read(data)] == ["TRAILER!!!", "z"]


def test_segments_can_be_appended(tmp_path):
    for entries in (SAMPLE, [newc.file("a", b"1")], []):
        assert len(newc.archive(entries)) % 4 == 0


def test_a_file_on_disk_is_read_while_writing(tmp_path):
    (tmp_path / "big").write_bytes(bytes(range(256)) * 5000)
    out = io.BytesIO()
    size = newc.write([newc.file("big", tmp_path / "big")], out)
    assert size == len(out.getvalue())
    assert newc.read(out.getvalue())[0].data == (tmp_path / "big").read_bytes()


def test_four_gib_are_refused(tmp_path):
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(newc.BadArchive, match="less than 4 GiB, got 4294967296 bytes"):
        newc.archive([newc.file("huge", tmp_path / "huge")])


@pytest.mark.parametrize("path", ["", "/abs", "a//b", "a/../b", ".", "a/", "nul\0"])
def test_paths_that_are_not_plain_and_relative_are_refused(path: str):
    with pytest.raises(newc.BadArchive):
        newc.archive([newc.file(path, b"")])


def test_a_path_twice_is_refused():
    with pytest.raises(newc.BadArchive, match="each path once"):
        newc.archive([newc.file("a", b"1"), newc.file("a", b"2")])


def test_hard_links_that_disagree_are_refused():
    one = newc.Entry("a", stat.S_IFREG | 0o644, b"1", hardlink="x")
    two = newc.Entry("b", stat.S_IFREG | 0o600, b"1", hardlink="x")
    with pytest.raises(newc.BadArchive, match="hard link of"):
        newc.archive([one, two])


@pytest.mark.parametrize("cut", [1, 4, 60, 109, 113, 200])
def test_a_truncated_archive_is_refused(cut: int):
    data = newc.archive([newc.file("abc", b"z" * 50)])
    with pytest.raises(newc.BadArchive):
        newc.read(data[:-cut] if cut < len(data) else b"")


def test_names_keep_bytes_that_are_no_utf8():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert b"caf\xe9\0" in newc.archive([newc.file(name, b"")])
