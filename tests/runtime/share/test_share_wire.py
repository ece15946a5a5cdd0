"""Fields of 9P messages, and the layouts as the protocol's documents give them."""

from __future__ import annotations

import struct

import pytest

from runtime.share import abi, wire
from runtime.share.wire import BadMessage, Reader


def reader(data: bytes) -> Reader:
    return Reader(memoryview(data))


def test_fields_are_taken_in_their_order() -> None:
    taken = reader(b"\x01\x02\x00\x03\0\0\0" + b"\x03\x00abc" + b"\0\0" + b"data" + bytes(8))
    assert taken.take(struct.Struct("<BHI")) == (1, 2, 3)
    assert taken.string() == b"abc"
    assert taken.string() == b""
    assert taken.data(4) == b"data"
    assert taken.last(abi.U64) == (0,)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x04\0abc", b"\xff\xffabc", b"\x02\0a\0", b"\x00\x01" + b"a" * 256])
def test_string_that_is_short_or_long_or_has_a_nul_is_none(data: bytes) -> None:
    with pytest.raises(BadMessage):
        reader(data).string()


def test_names_are_bytes_of_any_kind_but_nul() -> None:
    name = bytes(range(1, 256))
    assert reader(wire.string(name)).string() == name


def test_limit_of_a_string_is_the_readers() -> None:
    assert len(reader(wire.string(b"a" * 4095)).string(abi.TARGET_MAX)) == 4095
    with pytest.raises(BadMessage):
        reader(wire.string(b"a" * 4096)).string(abi.TARGET_MAX)


@pytest.mark.parametrize("size", range(8))
def test_short_field_is_none(size: int) -> None:
    with pytest.raises(BadMessage):
        reader(bytes(size)).take(abi.U64)
    with pytest.raises(BadMessage):
        reader(bytes(size)).data(8)


def test_nothing_may_follow_the_last_field() -> None:
    with pytest.raises(BadMessage):
        reader(bytes(5)).last(abi.U32)
    reader(bytes(4)).last(abi.U32)


def test_message_holds_its_own_size() -> None:
    assert wire.message(121, 0x0102, b"x") == b"\x08\0\0\0\x79\x02\x01x"
    assert wire.error(3, 2) == b"\x0b\0\0\0\x07\x03\0\x02\0\0\0"


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (abi.HEADER, 7),
        (abi.QID, 13),
        (abi.ENTRY, 9),
        (abi.STATFS, 60),
        (abi.ATTRIBUTES, 132),
        (abi.SETATTR, 60),
        (abi.TRANSFER, 16),
        (abi.LOCK, 29),
        (abi.GETLOCK, 25),
        (abi.LOCKED, 21),
        (abi.WALK, 10),
    ],
)
def test_layouts_are_packed(layout: struct.Struct, size: int) -> None:
    assert layout.size == size
