"""Frames as bytes, whole and in pieces, and what a parser makes of what is no frame."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fuzz import fuzz

from runtime.init.channel import frames
from runtime.init.channel.frames import LOST, Parser

Frame = tuple[int, int, int, bytes]
HELLO = frames.host_greeting(b'{"version":1,"session":"00112233445566aa"}')
HELLO_FRAME: Frame = (frames.HELLO, 0, 0, b'{"version":1,"session":"00112233445566aa"}')


def whole(data: bytes, *, hunting: bool = False) -> list[Frame]:
    return Parser(hunting=hunting).feed(data)


def piecewise(parser: Parser, data: bytes, size: int) -> list[Frame]:
    return [found for at in range(0, len(data), size) for found in parser.feed(data[at : at + size])]


@pytest.mark.parametrize(
    ("made", "golden", "parsed"),
    [
        (frames.message(frames.HELLO, 0, b"{}"), "0100020000000000 7b7d a5", (1, 0, 0, b"{}")),
        (frames.message(frames.OPEN, 7, b"{}"), "0200020007000000 7b7d a5", (2, 0, 7, b"{}")),
        (frames.data(0x01020304, 2, b"abc"), "0302030004030201 616263 a5", (3, 2, 0x01020304, b"abc")),
        (frames.frame(frames.EOF, 7, fd=1), "0401000007000000 a5", (4, 1, 7, b"")),
        (frames.message(frames.EVENT, 7, b"{}"), "0500020007000000 7b7d a5", (5, 0, 7, b"{}")),
        (frames.message(frames.RESULT, 7, b"{}"), "0600020007000000 7b7d a5", (6, 0, 7, b"{}")),
        (frames.credit(7, 1, 0x10000), "0701040007000000 00000100 a5", (7, 1, 7, b"\0\0\1\0")),
        (frames.credit(0, 0, 2048), "0700040000000000 00080000 a5", (7, 0, 0, b"\0\x08\0\0")),
        (frames.frame(frames.CANCEL, 0xFFFFFFFF), "08000000ffffffff a5", (8, 0, 0xFFFFFFFF, b"")),
        (frames.message(frames.NOTE, 0, b"{}"), "0900020000000000 7b7d a5", (9, 0, 0, b"{}")),
    ],
)
def test_golden_bytes_of_each_kind(made: bytes, golden: str, parsed: Frame) -> None:
    assert made == bytes.fromhex(golden)
    assert whole(made) == [parsed]


def test_nuls_between_frames_are_skipped() -> None:
    one = frames.data(1, 1, b"one")
    assert whole(bytes(3) + one + bytes(5000) + one + b"\0") == [(3, 1, 1, b"one")] * 2


def test_data_is_cut_into_frames_and_nothing_makes_none() -> None:
    payload = bytes(range(256)) * 40
    parts = whole(frames.data(5, 1, payload))
    assert [len(part[3]) for part in parts] == [4096, 4096, 2048]
    assert b"".join(part[3] for part in parts) == payload
    assert frames.data(5, 1, b"") == b""


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 8193, 1 << 20])
@pytest.mark.parametrize("step", [1 << 21, 2048])
def test_messages_of_any_length_come_whole(size: int, step: int) -> None:
    text = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    sent = frames.message(frames.RESULT, 3, text)
    assert len(sent) == size + 9 * max(1, -(-size // 4096))
    assert piecewise(Parser(), sent + frames.data(3, 1, b"x"), step) == [(frames.RESULT, 0, 3, text), (3, 1, 3, b"x")]


def test_message_too_long_is_refused_by_the_sender_and_comes_empty_to_the_receiver() -> None:
    with pytest.raises(ValueError, match="message: expected at most 1048576 bytes, got 1048577"):
        frames.message(frames.NOTE, 0, bytes((1 << 20) + 1))
    part = frames.frame(frames.EVENT | frames.MORE, 4, b"x" * 4096)
    parser = Parser()
    assert piecewise(parser, part * 1000, 4096) == []
    assert piecewise(parser, frames.frame(frames.EVENT, 4, b"x"), 4096) == [(frames.EVENT, 0, 4, b"")]
    assert piecewise(parser, frames.message(frames.EVENT, 4, b"y"), 4096) == [(frames.EVENT, 0, 4, b"y")]


def test_the_parser_holds_no_more_than_a_message() -> None:
    parser = Parser()
    part = frames.frame(frames.EVENT | frames.MORE, 4, b"x" * 4096)
    for _ in range(2000):
        parser.feed(part)
        assert sum(map(len, parser._parts)) + len(parser._rest) <= frames.MAX_MESSAGE_BYTES


def header(kind: int, fd: int = 0, length: int = 0, stream: int = 0) -> bytes:
    return frames.HEADER.pack(kind, fd, length, stream)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (header(10, 0, 0, 1), "a frame of kind 0x0a"),
        (header(0x80), "a frame of kind 0x80"),
        (header(frames.DATA | frames.MORE, 1, 0, 1), "a frame of kind 0x83"),
        (header(frames.DATA, 1, 4097, 1), "a frame of 4097 bytes"),
        (header(frames.DATA, 3, 0, 1), "a DATA of descriptor 3"),
        (header(frames.EVENT, 1, 0, 1), "a EVENT of descriptor 1"),
        (header(frames.CREDIT, 1, 3, 1), "a CREDIT of 3 bytes"),
        (header(frames.EOF, 1, 1, 1), "a EOF of 1 bytes"),
        (header(frames.CANCEL, 0, 1, 1), "a CANCEL of 1 bytes"),
        (header(frames.NOTE, 0, 0, 1), "a NOTE of stream 1"),
        (header(frames.DATA, 1, 0, 0), "a DATA of no stream"),
        (header(frames.EOF, 1, 0, 1) + b"\xa4", "a frame that ends in 0xa4"),
        (
            header(frames.EVENT | frames.MORE, 0, 0, 1) + b"\xa5" + header(frames.EOF, 1, 0, 1) + b"\xa5",
            "a frame within",
        ),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_what_is_no_frame_loses_the_framing_once_until_the_next_hello(bad: bytes, why: str, step: int) -> None:
    good = frames.data(1, 1, b"good")
    parser = Parser()
    found = piecewise(parser, good + bad + good * 3 + HELLO + good, step)
    assert found[0] == (3, 1, 1, b"good")
    assert found[1][:3] == (LOST, 0, 0)
    assert found[1][3].decode().startswith(why)
    assert found[2:] == [HELLO_FRAME, (3, 1, 1, b"good")]
    assert len(parser.lost) <= 2 * frames.MAX_FRAME_BYTES and Parser().feed(parser.lost)[0] == found[1]


@pytest.mark.parametrize(
    "last",
    [frames.data(9, 1, b"\xa5" * 4096), frames.data(9, 1, bytes(4096)), frames.frame(frames.EOF, 9), HELLO[4100:]],
    ids=["full", "nuls", "short", "hello"],
)
def test_a_new_session_is_heard_wherever_the_last_one_was_cut(last: bytes) -> None:
    good = frames.data(1, 1, b"good")
    for cut in range(len(last) + 1):
        found = piecewise(Parser(), good + last[:cut] + HELLO + good, 4096)
        assert found[-2:] == [HELLO_FRAME, (3, 1, 1, b"good")], cut


def test_a_hunt_drops_everything_before_the_hello_and_says_nothing() -> None:
    answer = frames.guest_greeting(b'{"version":1}')
    good = frames.data(1, 1, b"good")
    for noise in (b"", b"login: ", good * 50, bytes(5000), bytes(16) + good, b"\1" * 5000, HELLO[-20:]):
        for step in (1, 13, 10_000):
            found = piecewise(Parser(hunting=True), noise + answer + good, step)
            assert found == [(frames.HELLO, 0, 0, b'{"version":1}'), (3, 1, 1, b"good")]


def test_a_hello_without_its_nuls_ends_no_hunt() -> None:
    bare = frames.message(frames.HELLO, 0, b"{}")
    assert whole(b"x" + bytes(15) + bare, hunting=True) == []
    assert whole(b"x" + bytes(16) + bare, hunting=True) == [(frames.HELLO, 0, 0, b"{}")]


def test_a_hunting_parser_keeps_little_of_what_it_drops() -> None:
    for noise in (b"x", b"\0", bytes(16) + b"\1\0\0\x10\0\0\0\0"):
        parser = Parser(hunting=True)
        for _ in range(300):
            assert parser.feed(noise * (4096 // len(noise))) == []
            assert len(parser._rest) <= frames.MAX_FRAME_BYTES + frames.HUNT_NULS


def test_taken_bytes_are_those_behind_the_hello() -> None:
    parser = Parser()
    piecewise(parser, b"noise" + HELLO, 100)
    assert parser.taken_bytes == 0
    later = frames.data(1, 1, b"x" * 1000)
    piecewise(parser, later[:700], 64)
    assert parser.taken_bytes == 700
    piecewise(parser, later[700:] + b"\0\0", 64)
    assert parser.taken_bytes == len(later) + 2
    parser.feed(HELLO + b"\0\0\0")
    assert parser.taken_bytes == 3


def test_a_guests_greeting_fits_the_ring() -> None:
    room = frames.LINK_WINDOW_BYTES - 16 - 9
    assert len(frames.guest_greeting(b"x" * room)) == frames.LINK_WINDOW_BYTES
    with pytest.raises(ValueError, match=f"HELLO: expected at most {room} bytes, got {room + 1}"):
        frames.guest_greeting(b"x" * (room + 1))


json_kinds = st.sampled_from([frames.OPEN, frames.EVENT, frames.RESULT])
streams = st.integers(1, frames.MAX_STREAM)
one_frame = st.one_of(
    st.builds(
        lambda kind, stream, text: (frames.message(kind, stream, text), (kind, 0, stream, text)),
        json_kinds,
        streams,
        st.binary(max_size=9000),
    ),
    st.builds(
        lambda stream, fd, text: (frames.data(stream, fd, text), (frames.DATA, fd, stream, text)),
        streams,
        st.sampled_from(frames.FDS),
        st.binary(min_size=1, max_size=4096),
    ),
    st.builds(
        lambda stream, fd, count: (
            frames.credit(stream, fd, count),
            (frames.CREDIT, fd, stream, count.to_bytes(4, "little")),
        ),
        streams,
        st.sampled_from(frames.FDS),
        st.integers(0, 0xFFFFFFFF),
    ),
    st.integers(1, 40).map(lambda count: (bytes(count), None)),
)
sequences = st.lists(one_frame, max_size=8)
cuts = st.lists(st.integers(1, 5000), min_size=1, max_size=20)


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@fuzz(300)
@given(sequences, cuts)
def test_fuzz_frames_survive_any_cutting(sequence: list[tuple[bytes, Frame | None]], sizes: list[int]) -> None:
    parser = Parser()
    data = b"".join(sent for sent, _ in sequence)
    found = [frame for piece in in_pieces(data, sizes) for frame in parser.feed(piece)]
    assert found == [expected for _, expected in sequence if expected]
    assert not parser.hunting


@fuzz(500)
@given(sequences, st.integers(0), st.binary(max_size=200), st.booleans(), cuts, sequences)
@example([(frames.data(1, 0, b"\0" * 4096), None)], 4104, b"", False, [4096], [])
@example([], 0, bytes(16) + b"\1\0\xff\x0f\0\0\0\0", False, [1], [])
def test_fuzz_garbage_or_a_cut_anywhere_ends_with_the_next_session(
    before: list[tuple[bytes, Frame | None]],
    where: int,
    garbage: bytes,
    replaces: bool,
    sizes: list[int],
    after: list[tuple[bytes, Frame | None]],
) -> None:
    data = b"".join(sent for sent, _ in before)
    at = where % (len(data) + 1)
    # A garbled length may swallow what comes behind, but never the NULs and the HELLO of a new session.
    data = data[:at] + garbage + (data[at + len(garbage) :] if replaces else b"")
    rest = b"".join(sent for sent, _ in after)
    parser = Parser()
    found = [frame for piece in in_pieces(data + HELLO + rest, sizes) for frame in parser.feed(piece)]
    expected = [HELLO_FRAME, *(frame for _, frame in after if frame)]
    assert found[len(found) - len(expected) :] == expected
    assert not parser.hunting


@fuzz(300)
@given(st.binary(max_size=6000), cuts, st.booleans())
def test_fuzz_noise_raises_nothing_and_is_the_same_in_any_cutting(
    noise: bytes, sizes: list[int], hunting: bool
) -> None:
    parser = Parser(hunting=hunting)
    found = [frame for piece in in_pieces(noise, sizes) for frame in parser.feed(piece)]
    assert found == whole(noise, hunting=hunting)
    assert len(parser._rest) <= frames.MAX_FRAME_BYTES + frames.HUNT_NULS
