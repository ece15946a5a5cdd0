"""The agent's tar writer and reader against Python's own tarfile."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.init.agent import tarformat, tarsparse
from runtime.init.agent.tarformat import BadArchive, Entry
from runtime.init.agent.tarread import Reader

NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=300)


def written(entry: Entry, data: bytes = b"") -> bytes:
    return tarformat.encode(entry) + data + bytes(tarformat.padding(len(data))) + tarformat.END


def read(archive: bytes, step: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    found: list[tuple[Entry, bytearray]] = []
    ended = []
    reader = Reader(
        lambda entry: found.append((entry, bytearray())),
        lambda data: found[-1][1].extend(data),
        lambda: ended.append(1),
    )
    for at in range(0, len(archive), step):
        reader.feed(archive[at : at + step])
    reader.finish()
    assert len(ended) == len(found)
    return [(entry, bytes(data)) for entry, data in found]


@given(
    NAMES.filter(lambda name: not name.endswith("/")),
    NAMES,
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 2),
    st.integers(0, 1 << 40),
)
def test_what_is_written_is_read_by_tarfile(name, link, mode, uid, mtime):
    entry = Entry(name, tarformat.SYMLINK, mode=mode, uid=uid, gid=7, mtime=mtime, link=link)
    with tarfile.open(fileobj=io.BytesIO(written(entry))) as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.linkname) == (name, link)
    assert (member.mode, member.uid, member.gid, member.mtime) == (mode, uid, 7, mtime)


def test_sizes_beyond_octal_are_written_as_pax():
    header = tarformat.encode(Entry("big", tarformat.REGULAR, size=1 << 35))
    assert b"size=34359738368\n" in header
    entries = []
    Reader(entries.append, lambda data: None, lambda: None).feed(header)
    assert entries[0].size == 1 << 35


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 513, 1 << 20])
def test_what_tarfile_writes_is_read(form, step):
    out = io.BytesIO()
    long = "d/" * 30 + "n" * 90
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, link, data in (
            ("d", tarfile.DIRTYPE, "", b""),
            (long, tarfile.REGTYPE, "", b"x" * 1025),
            ("empty", tarfile.REGTYPE, "", b""),
            ("soft", tarfile.SYMTYPE, "../t" * 20, b""),
            ("hard", tarfile.LNKTYPE, "d/x", b""),
            ("node", tarfile.CHRTYPE, "", b""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.uid, member.mtime = kind, link, len(data), 33, 99
            member.devmajor, member.devminor = (1, 3) if kind == tarfile.CHRTYPE else (0, 0)
            tar.addfile(member, io.BytesIO(data))
    found = read(out.getvalue(), step)
    assert [entry.name.rstrip("/") for entry, _ in found] == ["d", long, "empty", "soft", "hard", "node"]
    assert found[1][1] == b"x" * 1025 and found[3][0].link == "../t" * 20 and found[4][0].link == "d/x"
    assert found[5][0].device == (1, 3) and {entry.uid for entry, _ in found} == {33}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mtime", [-1, -315619200, -1.5])
def test_files_are_older_than_1970(form, mtime):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        member = tarfile.TarInfo("old")
        member.mtime = mtime
        tar.addfile(member)
    ((entry, _),) = read(out.getvalue())
    assert entry.mtime == int(mtime)


def test_what_is_written_of_a_file_older_than_1970_is_read():
    ((entry, _),) = read(written(Entry("old", tarformat.REGULAR, mtime=-315619200)))
    assert entry.mtime == -315619200


XATTRS = {"user.\u00e9": "\0\n=\udcff", "user.empty": "", "security.capability": "\1"}


def test_extended_attributes_are_written_for_tarfile_and_read_again():
    archive = written(Entry("a", tarformat.REGULAR, xattrs=XATTRS)) + written(Entry("b", tarformat.REGULAR))
    (entry, _), *_ = read(archive, 7)
    assert entry.xattrs == XATTRS
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8") as tar:
        assert tar.getmembers()[0].pax_headers == {f"SCHILY.xattr.{name}": value for name, value in XATTRS.items()}


def test_extended_attributes_are_those_of_their_member_and_of_users():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, attributes in (("a", ("user.a", "trusted.overlay.opaque", "security.selinux", "userx")), ("b", ())):
            member = tarfile.TarInfo(name)
            member.pax_headers = {f"SCHILY.xattr.{attribute}": "v" for attribute in attributes}
            tar.addfile(member)
    assert [entry.xattrs for entry, _ in read(out.getvalue())] == [{"user.a": "v"}, {}]


@given(st.binary(max_size=3000), st.integers(1, 600))
def test_nonsense_is_refused_or_nothing_but_never_anything_else(data, step):
    try:
        read(data, step)
    except BadArchive:
        return
    assert not any(data[:512])


@pytest.mark.parametrize("at", [0, 124, 130, 148, 156, 257])
def test_a_changed_byte_of_a_header_is_noticed(at):
    archive = bytearray(written(Entry("a", tarformat.REGULAR, size=3), b"abc"))
    archive[at] ^= 1
    with pytest.raises(BadArchive):
        read(bytes(archive))


FORM = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n21 GNU.sparse.name=x\n"


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (b"", "as its map says, got less"),
        (b"1\n0\n4\n", "as its map says, got less"),
        (b"1\n0\n4\n".ljust(512, b"\0") + b"abc", "as its map says, got less"),
        (b"1\n0\n4\n".ljust(512, b"\0") + b"abcde", "as its map says, got more"),
        (b"2\n8\n4\n0\n4\n", "expected pieces in order within 64 bytes, got 4 bytes at 0"),
        (b"1\n62\n4\n", "expected pieces in order within 64 bytes, got 4 bytes at 62"),
        (b"1\n65\n0\n", "expected a number of at most 64, got b'65'"),
        (b"1\n-1\n4\n", "expected a number of at most 64, got b'-1'"),
        (b"65537\n", "expected a number of at most 65536"),
        (b"9" * 600, "expected a number of at most 65536"),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_map_that_does_not_fit_its_file_is_named(stored, words, step):
    entry = Entry(tarsparse.NAME, tarformat.REGULAR, size=len(stored))
    entry.more = tarsparse.records("x", 64)
    with pytest.raises(BadArchive, match=words):
        read(written(entry, stored), step)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (b"999 path=x\n", "a record's length"),
        (b"x", "a record's length"),
        (b"7 path\n", "expected key=value"),
        (b"9 path=xy", "expected key=value"),
        (b"11 size=-1\n", "expected a number as size"),
        (b"22 GNU.sparse.major=1\n", "expected one of GNU's form 1.0, got 1.None"),
        (b"22 GNU.sparse.size=64\n", "expected one of GNU's form 1.0, got None.None"),
        (b"%s24 GNU.sparse.realsize=\n" % FORM, "expected a number of at most 9223372036854775807, got b''"),
        (b"%s43 GNU.sparse.realsize=9223372036854775808\n" % FORM, "expected a number of at most"),
    ],
)
def test_broken_pax_headers_are_named(records, words):
    head = Entry("pax", tarformat.PAX, size=len(records))
    archive = tarformat.encode(head) + records + bytes(tarformat.padding(len(records))) + written(Entry("a", b"0"))
    with pytest.raises(BadArchive, match=words):
        read(archive)


def test_extended_headers_without_end_fill_no_memory():
    reader = Reader(print, print, print)
    for number in range(40):
        record = tarformat._record(b"comment.%d" % number, bytes(30000))
        head = Entry("pax", tarformat.PAX, size=len(record))
        reader.feed(tarformat.encode(head) + record + bytes(tarformat.padding(len(record))))
    assert sum(map(len, reader._keys.values())) < 1 << 18


def test_attributes_without_end_fill_no_memory():
    reader = Reader(print, print, print)
    with pytest.raises(BadArchive, match="attributes of at most 65536 bytes"):
        for number in range(4):
            record = tarformat._record(b"SCHILY.xattr.user.%d" % number, bytes(30000))
            head = Entry("pax", tarformat.PAX, size=len(record))
            reader.feed(tarformat.encode(head) + record + bytes(tarformat.padding(len(record))))


def test_a_huge_extended_header_is_not_kept():
    with pytest.raises(BadArchive, match="at most 131072"):
        Reader(print, print, print).feed(tarformat.encode(Entry("pax", tarformat.PAX, size=1 << 30)))
