"""The rings of a share, with a guest of Python's at the other end: whole messages, wrapping, and nonsense."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from support.ninep import Client
from support.sharing import served

from runtime.share.fids import Limits
from runtime.share.main import limits_of
from runtime.share.rings import IN_CONS, IN_PROD, OUT_CONS, OUT_PROD, REFS, RING_ORDER, BrokenRing, Ring, read_grants
from runtime.share.transport import Line, Transport

HALF = 4096


class Guest:
    """The other end, as Linux's driver is: it counts on, and copies in two pieces where a ring wraps."""

    def __init__(self, half: int = HALF, start: int = 0) -> None:
        self.half = half
        self.page, self.data = bytearray(4096), bytearray(2 * half)
        for index in (IN_CONS, IN_PROD, OUT_CONS, OUT_PROD):
            self.set(index, start)

    def get(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.page, offset)[0])

    def set(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.page, offset, value & 0xFFFFFFFF)

    def ring(self, most_bytes: int = HALF) -> Ring:
        return Ring(memoryview(self.page), memoryview(self.data), most_bytes=most_bytes)

    def ask(self, text: bytes, size: int | None = None) -> None:
        message = struct.pack("<IBH", 7 + len(text) if size is None else size, 1, 2) + text
        produced = self.get(OUT_PROD)
        for at, byte in enumerate(message):
            self.data[self.half + (produced + at) % self.half] = byte
        self.set(OUT_PROD, produced + len(message))

    def replies(self) -> bytes:
        consumed, produced = self.get(IN_CONS), self.get(IN_PROD)
        count = produced - consumed & 0xFFFFFFFF
        text = bytes(self.data[(consumed + at) % self.half] for at in range(count))
        self.set(IN_CONS, produced)
        return text


def test_requests_come_whole_and_in_order() -> None:
    guest = Guest()
    ring = guest.ring()
    assert ring.take() is None
    guest.ask(b"one")
    guest.ask(b"")
    assert ring.take() == struct.pack("<IBH", 10, 1, 2) + b"one"
    assert ring.take() == struct.pack("<IBH", 7, 1, 2)
    assert ring.take() is None
    assert guest.get(OUT_CONS) == guest.get(OUT_PROD)


def test_request_that_is_not_all_there_is_waited_for() -> None:
    guest = Guest()
    ring = guest.ring()
    guest.ask(b"whole")
    whole = guest.get(OUT_PROD)
    for shown in range(whole):
        guest.set(OUT_PROD, shown)
        assert ring.take() is None
    guest.set(OUT_PROD, whole)
    assert ring.take() is not None


@pytest.mark.parametrize("start", [0, HALF - 1, 0xFFFFFFFF - 5])
def test_messages_wrap_around_halves_and_indices(start: int) -> None:
    guest = Guest(start=start)
    ring = guest.ring()
    chance = random.Random(start)
    for _ in range(300):
        text = chance.randbytes(chance.randrange(1500))
        guest.ask(text)
        request = ring.take()
        assert request is not None and request[7:] == text
        assert ring.put(request)
        assert guest.replies() == request


def test_reply_without_room_is_not_begun() -> None:
    guest = Guest()
    ring = guest.ring()
    assert ring.put(bytes(HALF - 3))
    assert not ring.put(b"four")
    assert ring.put(b"thr")
    assert guest.replies() == bytes(HALF - 3) + b"thr"
    assert ring.put(b"four")


def test_reply_that_never_has_room_breaks_the_ring() -> None:
    """Held, it would be tried again for ever."""
    with pytest.raises(BrokenRing, match="at most 4096 bytes, got one of 4097"):
        Guest().ring().put(bytes(HALF + 1))


@pytest.mark.parametrize("size", [0, 6, HALF + 1, 0xFFFFFFFF])
def test_request_of_an_impossible_size_breaks_the_ring(size: int) -> None:
    guest = Guest()
    ring = guest.ring()
    guest.ask(b"text", size)
    with pytest.raises(BrokenRing, match=f"got {size}"):
        ring.take()


def test_request_above_what_was_agreed_on_breaks_the_ring() -> None:
    guest = Guest()
    guest.ask(bytes(100))
    with pytest.raises(BrokenRing, match="7 to 64 bytes, got 107"):
        guest.ring(most_bytes=64).take()


def test_indices_without_sense_break_the_ring() -> None:
    guest = Guest()
    ring = guest.ring()
    guest.set(OUT_PROD, HALF + 1)
    with pytest.raises(BrokenRing, match="requests, got 4097"):
        ring.take()
    guest.set(IN_CONS, 1)
    with pytest.raises(BrokenRing, match="replies"):
        ring.put(b"reply")


def test_indices_that_are_ours_cannot_be_changed_by_the_guest() -> None:
    guest = Guest()
    ring = guest.ring()
    guest.ask(b"one")
    ring.take()
    guest.set(OUT_CONS, 0)
    guest.set(IN_PROD, 99)
    assert ring.take() is None
    assert ring.put(b"reply") and guest.get(IN_PROD) == 5


@pytest.mark.parametrize("order", [0, 6, 0xFFFFFFFF])
def test_ring_of_an_order_that_was_not_offered_is_refused(order: int) -> None:
    guest = Guest()
    guest.set(RING_ORDER, order)
    with pytest.raises(BrokenRing, match="2\\^1 to 2\\^5"):
        read_grants(memoryview(guest.page), most_order=5)


def test_grants_are_as_many_as_the_order_says() -> None:
    guest = Guest()
    guest.set(RING_ORDER, 2)
    for number in range(5):
        guest.set(REFS + 4 * number, 100 + number)
    assert read_grants(memoryview(guest.page), most_order=5) == (2, [100, 101, 102, 103])


# -- several rings -----------------------------------------------------------------------------------------------------


class Bell:
    """An event channel of a pipe: the guest writes to it, and counts how often it was rung."""

    def __init__(self) -> None:
        self.end, self.guests = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.rung = 0

    def fileno(self) -> int:
        return self.end

    def acknowledge(self) -> None:
        os.read(self.end, 64)

    def notify(self) -> None:
        self.rung += 1

    def ring(self) -> None:
        os.write(self.guests, b"r")

    def close(self) -> None:
        os.close(self.end)
        os.close(self.guests)


@pytest.fixture
def two():
    guests, bells = [Guest(), Guest()], [Bell(), Bell()]
    lines = [Line(guest.ring(), bell) for guest, bell in zip(guests, bells, strict=True)]
    yield guests, bells, Transport(lines, lambda request: request[::-1])
    for bell in bells:
        bell.close()


def test_what_waits_at_the_start_is_served_without_a_ring(two) -> None:
    guests, bells, transport = two
    guests[1].ask(b"early")
    transport.turn(0)
    assert guests[1].replies().startswith(b"ylrae")
    assert [bell.rung for bell in bells] == [0, 1]


def test_a_guest_is_rung_once_for_all_its_replies(two) -> None:
    guests, bells, transport = two
    transport.turn(0)
    for _ in range(10):
        guests[0].ask(b"x")
    bells[0].ring()
    transport.turn(1000)
    assert guests[0].replies().count(b"x") == 10
    assert bells[0].rung == 1


def test_ring_that_never_is_empty_leaves_the_other_its_turn(two) -> None:
    guests, bells, transport = two
    transport.turn(0)
    for _ in range(200):
        guests[0].ask(b"x")
    guests[1].ask(b"y")
    bells[0].ring()
    bells[1].ring()
    transport.turn(1000)
    assert guests[1].replies().startswith(b"y")
    assert 0 < guests[0].replies().count(b"x") < 200
    transport.turn(0)
    assert guests[0].replies().count(b"x") > 0, "the rest needs no further ring"


def test_messages_are_no_longer_than_the_smallest_ring_has_room_for(tmp_path: Path, two) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    _, bells, _ = two
    lines = [Line(Guest(half).ring(1 << 20), bell) for half, bell in zip((8192, HALF), bells, strict=True)]
    limits = limits_of(lines)
    assert limits == Limits(message_bytes=HALF)
    longest = 0

    def handle(request: bytes) -> bytes:
        nonlocal longest
        reply = server.handle(request)
        longest = max(longest, len(reply))
        return reply

    with served(tmp_path, limits=limits) as server:
        client = Client(handle)
        client.start(uid=os.geteuid())
        assert 0 < len(client.read(client.open(b"file"))) < HALF
    assert longest == HALF


def test_reply_that_has_no_room_is_given_when_there_is(two) -> None:
    guests, bells, transport = two
    transport.turn(0)
    for _ in range(3):
        guests[0].ask(bytes(1300))
    bells[0].ring()
    transport.turn(1000)
    guests[0].set(IN_CONS, guests[0].get(IN_PROD) - HALF)  # as if none had been read
    guests[0].ask(b"last")
    bells[0].ring()
    transport.turn(1000)
    guests[0].replies()
    transport.turn(5)
    assert guests[0].replies().startswith(b"tsal")
