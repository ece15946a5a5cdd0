"""Layers made at random: the tar reader, its PAX and sparse syntax, against other readers and against models.

How many examples, and how to take more: support/fuzz.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import assume, example, given
from support.fuzz import ends, fuzz
from support.sparse import sparse_0_0, sparse_0_1, sparse_1_0, sparse_old
from support.tarreaders import ours_alone
from support.tars import BLOCK, Member, extra, record, tar_bytes

from pipeline.errors import PipelineError
from pipeline.limits import Limits
from pipeline.rootfs import pieces
from pipeline.tarstream import pax_record
from pipeline.tree import Entry, Kind
from pipeline.unpack.merge import Merge
from pipeline.unpack.numbers import Malformed, decimal, number, pax_records, time_ns
from pipeline.unpack.tar import TarReader

LIMITS = Limits(entries=1000, file_bytes=1 << 30, extents=1000)
FLAGS = [bytes([flag]) for flag in b"01234567SxgLKZ\0"]
KEYS = ["path", "linkpath", "size", "uid", "gid", "mtime", "hdrcharset", "comment", "SCHILY.xattr.user.a"]
KEYS += ["SCHILY.xattr.security.capability", "LIBARCHIVE.xattr.user.a", "GNU.sparse.major", "GNU.sparse.minor"]
KEYS += ["GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.numblocks", "GNU.sparse.offset", "GNU.sparse.numbytes"]
KEYS += ["GNU.sparse.name", "GNU.sparse.realsize"]

part = st.sampled_from([b"a", b"b", b"..", b".", b"", b".wh.a", b".wh..wh..opq", b"\xff", b"n" * 99, b" ", b"\n"])
names = st.lists(part, min_size=1, max_size=4).map(b"/".join) | st.binary(max_size=20)
numerals = st.sampled_from([b"0", b"1", b"-1", b"07", b"5", b"512", b"", b"x", b"9" * 19, b"1.5", b"4294967295"])
values = numerals | names
field = st.binary(max_size=12) | numerals.map(lambda text: text.rjust(11, b"0") + b"\0")
raw_fields = st.dictionaries(
    st.sampled_from(["size", "mode", "uid", "mtime", "magic", "prefix", "major", "checksum"]), field, max_size=2
)
members = st.builds(
    Member,
    name=names,
    data=st.binary(max_size=600) | st.just(b""),
    kind=st.sampled_from(FLAGS),
    link=names,
    pax=st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=3),
    raw=raw_fields | st.just({}),
)
metas = st.builds(
    extra, st.sampled_from([b"x", b"g", b"L", b"K"]), st.binary(max_size=60) | names.map(lambda n: n + b"\0")
)
likely_names = st.lists(part.filter(bool), min_size=1, max_size=4).map(b"/".join)
likely_pax = st.fixed_dictionaries(
    {},
    optional={
        "path": likely_names,
        "linkpath": likely_names,
        "uid": st.sampled_from(["0", "70000"]),
        "mtime": st.sampled_from(["-1.5", "1600000000.000000001"]),
        "size": st.just("0"),
        "comment": values,
        "hdrcharset": st.just("BINARY"),
        "SCHILY.xattr.user.a": values,
    },
).map(lambda pax: list(pax.items()))
likely = st.builds(
    lambda kind, data, pax, **more: Member(
        kind=kind, data=data if kind in b"07" and "size" not in dict(pax) else b"", pax=pax, **more
    ),
    kind=st.sampled_from([b"0", b"0", b"5", b"2", b"1", b"3", b"6", b"7"]),
    name=likely_names,
    link=likely_names,
    data=st.binary(max_size=600),
    pax=likely_pax,
)
gnu = st.builds(extra, st.sampled_from([b"L", b"K"]), likely_names.map(lambda name: name + b"\0"))
likely_with_gnu = st.builds(
    lambda meta, member: meta + tar_bytes([member], end=b""), gnu, likely.filter(lambda m: not m.pax)
)
archives = st.builds(
    tar_bytes,
    st.lists(likely | likely_with_gnu, max_size=5)
    | st.lists(likely | likely_with_gnu | members, max_size=3)
    | st.lists(members | metas, max_size=4),
    end=st.sampled_from([bytes(2 * BLOCK), b"", bytes(BLOCK), bytes(3 * BLOCK), bytes(2 * BLOCK) + b"x"]),
)
changes = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)


def read(tar: bytes, *, step: int = 1 << 16) -> list[Entry]:
    reader = TarReader(LIMITS, subject="layer")
    for at in range(0, len(tar), step):
        reader.feed(tar[at : at + step])
    reader.finish()
    return reader.entries


def summed_again(tar: bytearray, at: int) -> None:
    """Make the checksum of the block around `at` right, so that what was changed is looked at."""
    block = at // BLOCK * BLOCK
    header = tar[block : block + BLOCK]
    if header[257:262] == b"ustar":
        header[148:156] = b" " * 8
        tar[block + 148 : block + 156] = b"%06o\0 " % sum(header)


@fuzz(300)
@given(archives, changes, st.integers(1, 1500), st.booleans())
@example(b"", [], 1, False)
@example(tar_bytes([Member("d/", kind=b"S", raw={"magic": b"ustar  \0"})]), [], 512, False)
def test_fuzz_any_archive_is_entries_or_a_typed_error(
    tar: bytes, changed: list[tuple[int, int]], step: int, strict: bool
) -> None:
    damaged = bytearray(tar)
    for at, value in changed:
        if damaged:
            damaged[at % len(damaged)] = value
            summed_again(damaged, at % len(damaged))
    with ends():
        try:
            entries = read(bytes(damaged), step=step)
        except PipelineError as error:
            assert str(error).startswith("layer")
            return
        assert entries == read(bytes(damaged)), "however the bytes are cut"
        try:
            merge = Merge(LIMITS, strict=strict)
            merge.add(entries, subject="layer")
            merged = list(merge.entries())
        except PipelineError:
            return
    paths = [entry.path for entry in merged]
    assert len(paths) == len(set(paths))
    assert all(not path.startswith(b"/") and b".." not in path.split(b"/") for path in paths)
    # Whatever came in: parents stand before their children, and links after what they link to.
    for index, entry in enumerate(merged):
        assert entry.path == b"" or entry.path.rpartition(b"/")[0] in paths[:index]
        assert entry.kind is not Kind.HARDLINK or entry.target in paths[:index]


# -- other readers -----------------------------------------------------------------------------------------------------


@fuzz(150)
@given(archives)
@example(tar_bytes([Member("a", b"1", pax=[("path", "b")]), Member("c", b"2")]))
@example(tar_bytes([Member("a", kind=b"3", pax=[("GNU.sparse.name", "b")])]))
def test_fuzz_no_name_is_ours_alone(tar: bytes) -> None:
    """What we accept, at least one of tarfile, GNU tar and libarchive lists under the same name."""
    try:
        entries = read(tar)
        Merge(LIMITS).add(entries, subject="layer")
    except PipelineError:
        return
    assume(entries)
    assert ours_alone(tar, [entry.path for entry in entries]) == set()


# -- syntax ------------------------------------------------------------------------------------------------------------

keys = st.binary(min_size=1, max_size=20).filter(lambda key: b"=" not in key and b"\0" not in key)


@fuzz(200)
@given(st.lists(st.tuples(keys, st.binary(max_size=200))))
def test_fuzz_pax_records_round_trip(records: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(pax_record(key, value) for key, value in records)
    assert data == b"".join(record(key, value) for key, value in records)
    assert pax_records(data) == records


@fuzz(300)
@given(
    st.binary(max_size=60) | st.lists(st.sampled_from([b"9 ", b"path", b"=", b"\n", b"0", b"5 a=b\n"])).map(b"".join)
)
@example(b"6 a=b\n")
@example(b"99999999 a=b\n")
def test_fuzz_pax_text_is_records_or_malformed(data: bytes) -> None:
    with ends():
        try:
            found = pax_records(data)
        except Malformed:
            return
    assert b"".join(pax_record(key, value) for key, value in found) == data, "one text for one meaning"


@fuzz(300)
@given(st.binary(min_size=8, max_size=12), st.binary(max_size=25) | numerals)
def test_fuzz_numbers_are_numbers_or_malformed(header: bytes, text: bytes) -> None:
    for call in (lambda: number(header, "n"), lambda: decimal(text, "n"), lambda: time_ns(text, "n")):
        try:
            assert isinstance(call(), int)
        except Malformed:
            pass


# -- sparse files ------------------------------------------------------------------------------------------------------

gaps = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 700)), max_size=4)


@fuzz(150)
@given(gaps, st.integers(0, 3000), st.sampled_from(["0.0", "0.1", "1.0", "old"]))
def test_fuzz_sparse_files_expand_to_what_was_stored(gaps: Sequence[tuple[int, int]], tail: int, form: str) -> None:
    content, stored, found = bytearray(), bytearray(), []
    for number_, (hole, length) in enumerate(gaps):
        content += bytes(hole)
        found.append((len(content), length))
        content += bytes([number_ + 1]) * length
        stored += bytes([number_ + 1]) * length
    content += bytes(tail)
    tar = {
        "0.0": lambda: sparse_0_0(found, len(content), bytes(stored)),
        "0.1": lambda: sparse_0_1(found, len(content), bytes(stored)),
        "1.0": lambda: sparse_1_0(pieces=found, real=len(content), data=bytes(stored)),
        "old": lambda: sparse_old(found, len(content), bytes(stored)),
    }[form]()
    (entry,) = read(tar)
    expanded = bytearray(entry.size_bytes)
    for offset, length, source in pieces(entry):
        expanded[offset : offset + length] = tar[source : source + length]
    assert expanded == content


@fuzz(200)
@given(
    st.lists(st.tuples(st.integers(-5, 2000), st.integers(-5, 1000)), max_size=4),
    st.integers(-1, 1 << 64),
    st.binary(max_size=1200),
    st.sampled_from(["0.0", "0.1", "1.0", "old"]),
    st.binary(max_size=600) | st.none(),
)
def test_fuzz_any_sparse_map_is_a_file_or_a_typed_error(
    found: list[tuple[int, int]], real: int, data: bytes, form: str, text: bytes | None
) -> None:
    tar = {
        "0.0": lambda: sparse_0_0(found, real, data),
        "0.1": lambda: sparse_0_1(found, real, data),
        "1.0": lambda: sparse_1_0(pieces=found, real=real, data=data, text=text),
        "old": lambda: sparse_old(found, real % (1 << 63), data),
    }[form]()
    with ends():
        try:
            (entry,) = read(tar)
        except PipelineError:
            return
    ends_at = 0
    for offset, length, source in pieces(entry):
        assert ends_at <= offset and offset + length <= entry.size_bytes and source + length <= len(tar)
        ends_at = offset + length
