"""Documents, references, archives and compressed bytes at random: what they mean, or a typed error.

How many examples, and how to take more: support/fuzz.py.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import zstandard
from hypothesis import example, given
from support.fuzz import ends, fuzz
from support.tars import image_of

from pipeline import newc
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.fetch.errors import BadReference
from pipeline.fetch.manifest import Platform, diff_ids, parse_document
from pipeline.fetch.model import FetchResult
from pipeline.fetch.reference import parse
from pipeline.inflate import inflated
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import BadDigest, Descriptor, Digest, canonical_json, parse_json
from pipeline.store import Store
from pipeline.tree import Entry, Kind, read_tree, write_tree

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


# -- JSON --------------------------------------------------------------------------------------------------------------


@fuzz(200)
@given(json_values, st.randoms(use_true_random=False))
@example("\ud800", random.Random(0))
def test_fuzz_canonical_json_round_trips_and_has_one_form(value: Any, order: random.Random) -> None:
    def shuffled(item: Any) -> Any:
        if isinstance(item, dict):
            pairs = [(key, shuffled(inner)) for key, inner in item.items()]
            order.shuffle(pairs)
            return dict(pairs)
        return [shuffled(inner) for inner in item] if isinstance(item, list) else item

    data = canonical_json(value)
    assert data.isascii()
    assert parse_json(data, subject="document") == value
    assert canonical_json(shuffled(value)) == data


@fuzz(300)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789eE.-ntfaulrs \\u\n').map(str.encode))
@example(b'{"a": 1, "a": 2}')
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b"1e999")
@example(b"\xef\xbb\xbf{}")
def test_fuzz_json_text_is_a_document_or_a_typed_error(data: bytes) -> None:
    with ends():
        try:
            value = parse_json(data, subject="document")
        except PipelineError as error:
            assert str(error).startswith("document: expected")
            return
    with contextlib.suppress(ValueError):  # 1e999 is a number to JSON, and infinity to Python
        assert parse_json(canonical_json(value), subject="again") == value


@fuzz(200)
@given(
    json_values | st.dictionaries(st.sampled_from(["registries", "cache", "limits", "store", "reference"]), json_values)
)
def test_fuzz_models_take_a_document_or_refuse_it_by_its_key(document: Any) -> None:
    for cls in (Config, FetchResult, Descriptor, Digest):
        with contextlib.suppress(PipelineError):
            model: Any = from_json(cls, document, subject="file")
            assert from_json(cls, to_json(model)) == model


manifest = json.loads(image_of(b"one", b"two").manifest)
CONFIG = image_of(b"one", b"two").config


@fuzz(300)
@given(st.sampled_from(sorted(manifest)), json_values, st.sampled_from(["config", "layers", ""]), json_values)
def test_fuzz_manifests_are_manifests_or_typed_errors(key: str, value: Any, part: str, inner: Any) -> None:
    document = {**manifest, key: value}
    if part and isinstance(document.get(part), dict):
        document[part] = {**document[part], "size": inner}
    elif part:
        document[part] = [{**manifest["layers"][0], "digest": inner}]
    with ends(), contextlib.suppress(PipelineError):
        parse_document(json.dumps(document).encode(), media_type="", subject="manifest")


@fuzz(300)
@given(st.sampled_from(["rootfs", "history", "os", "architecture", "config"]), json_values)
def test_fuzz_configs_are_configs_or_typed_errors(key: str, value: Any) -> None:
    parsed = parse_document(json.dumps(manifest).encode(), media_type="", subject="manifest")
    document = {**json.loads(CONFIG), key: value}
    with ends(), contextlib.suppress(PipelineError):
        diff_ids(json.dumps(document).encode(), parsed, Platform("linux", "amd64"), subject="image")  # type: ignore[arg-type]


# -- tree documents ----------------------------------------------------------------------------------------------------

small = st.integers(0, 2**32)
tree_entries = st.builds(
    Entry,
    path=st.binary(max_size=20),
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=small,
    gid=small,
    mtime_ns=st.integers(-(2**63), 2**63),
    target=st.binary(max_size=20),
    xattrs=st.dictionaries(st.binary(max_size=10), st.binary(max_size=10), max_size=2),
    major=st.integers(0, 4095),
    minor=st.integers(0, 1 << 20),
    layer=st.integers(0, 500),
    offset=small,
    size_bytes=small,
    extents=st.none() | st.lists(st.tuples(small, small), max_size=3).map(tuple),
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as directory:
        yield Store(Path(directory))


@fuzz(60)
@given(st.lists(tree_entries, max_size=4), st.integers(1, 300))
def test_fuzz_tree_documents_round_trip(store: Store, entries: list[Entry], times: int) -> None:
    many = entries * times
    document = write_tree(store, many)
    assert list(read_tree(store, document)) == many
    assert write_tree(store, many) == document


# -- archives for the kernel -------------------------------------------------------------------------------------------

safe = st.text(alphabet="abc.\udcff é!", min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))
newc_paths = st.lists(safe, min_size=1, max_size=3).map("/".join)
kinds = st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])


@st.composite
def newc_entries(draw: st.DrawFn) -> newc.Entry:
    kind = draw(kinds)
    data = draw(st.binary(min_size=kind == stat.S_IFLNK, max_size=40)) if kind in (stat.S_IFREG, stat.S_IFLNK) else b""
    numbers = st.integers(0, 2**32 - 1)
    device = (draw(numbers), draw(numbers)) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)
    return newc.Entry(draw(newc_paths), kind | draw(st.integers(0, 0o7777)), data, draw(numbers), draw(numbers), device)


@fuzz(200)
@given(st.lists(newc_entries(), max_size=5, unique_by=lambda entry: entry.path))
def test_fuzz_newc_round_trips(entries: list[newc.Entry]) -> None:
    try:
        data = newc.archive(entries)
    except PipelineError:
        return
    assert len(data) % 4 == 0
    assert sorted(newc.read(data), key=lambda entry: entry.path) == sorted(entries, key=lambda entry: entry.path)
    assert newc.archive(reversed(entries)) == data


SAMPLE = newc.archive(
    [newc.file("abc", b"z" * 50), newc.directory("d"), newc.symlink("l", "abc"), newc.file("d/x", b"1")]
)
changes = st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=4)


@fuzz(400)
@given(changes, st.integers(0, len(SAMPLE)))
@example([(6, 0x5F)], len(SAMPLE))
@example([(6, 0x2B)], len(SAMPLE))
def test_fuzz_damaged_newc_is_an_archive_or_a_typed_error(changed: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(SAMPLE)
    for at, value in changed:
        damaged[at] = value
    with ends(), contextlib.suppress(newc.BadArchive):
        newc.read(bytes(damaged[:cut]))


@pytest.mark.parametrize("number", [b"+0000001", b" 0000001", b"0000_001", b"0x000001"])
def test_fuzz_found_newc_numbers_that_are_no_hex_digits(number: bytes) -> None:
    with pytest.raises(newc.BadArchive, match="hex digits"):
        newc.read(SAMPLE[:6] + number + SAMPLE[14:])


# -- references --------------------------------------------------------------------------------------------------------

words = st.sampled_from(
    ["docker://", "oci:", "oci-archive:", "docker-archive:", "recipe:", "localhost:5000", "host.io"]
)
words |= st.sampled_from(
    ["/", ":", "@", "nginx", "a/b", "latest", "[::1]:5000", "sha256:", "0" * 64, "..", "A", "_", "-"]
)


@fuzz(600)
@given(st.text(max_size=30) | st.lists(words, max_size=7).map("".join))
@example("a" * 5000)
@example("a-" * 4000 + "!")
@example("docker://host:99999/a")
@example("\u0131mage")
def test_fuzz_reference_means_one_thing_or_is_refused(text: str) -> None:
    with ends():
        try:
            reference = parse(text)
        except (BadReference, BadDigest):
            return
    assert parse(str(reference)) == reference


# -- compressed bytes --------------------------------------------------------------------------------------------------

RAW = bytes(range(256)) * 40 + bytes(5000)
COMPRESSED = [gzip.compress(RAW, mtime=0), zstandard.ZstdCompressor(write_checksum=True).compress(RAW)]


class Source:
    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = data, step

    def read(self, size: int, /) -> bytes:
        out, self._data = self._data[: min(size, self._step)], self._data[min(size, self._step) :]
        return out


@fuzz(400)
@example(COMPRESSED[1], [], 4, 1)  # of a zstd frame's header a part
@example(COMPRESSED[1], [], 6, 300)
@given(
    st.sampled_from(COMPRESSED),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(1, 255)), max_size=2),
    st.integers(0, 1 << 14),
    st.integers(1, 300),
)
def test_fuzz_damaged_compression_never_gives_other_bytes(
    data: bytes, changed: list[tuple[int, int]], cut: int, step: int
) -> None:
    damaged = bytearray(data)
    for at, value in changed:
        damaged[at % len(data)] ^= value
    whole = bytes(damaged[: max(1, cut % (2 * len(data)))])
    with ends(), contextlib.suppress(PipelineError):
        out = b"".join(inflated(Source(whole, step), limit_bytes=1 << 20, subject="layer"))
        # Headers have bits without a check of their own (a time, a name); and what is no longer compressed is plain.
        assert out in (RAW, whole)
