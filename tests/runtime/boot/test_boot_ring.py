"""The shared page: whole output across wraps, and indices without sense."""

from __future__ import annotations

import pytest
from support.rings import IN_CONS, IN_PROD, OUT_CONS, OUT_PROD, Guest

from runtime.boot.ring import Ring


@pytest.mark.parametrize("start", [0, 2000, 2047, 0xFFFFFFF0, 0xFFFFFFFF])
def test_output_is_whole_across_both_wraps(start: int) -> None:
    guest = Guest()
    guest.set(OUT_CONS, start)
    guest.set(OUT_PROD, start)
    ring = Ring(memoryview(guest.page))
    text = bytes(range(256)) * 8
    guest.say(text)
    assert ring.take_output() == (text, False)
    assert guest.get(OUT_CONS) == (start + 2048) & 0xFFFFFFFF
    assert ring.take_output() == (b"", False)


@pytest.mark.parametrize("produced", [2049, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_indices_without_sense_are_reset_and_reading_goes_on(produced: int) -> None:
    guest = Guest()
    guest.set(OUT_PROD, produced)
    ring = Ring(memoryview(guest.page))
    assert ring.take_output() == (b"", True)
    guest.say(b"again")
    assert ring.take_output() == (b"again", False)


@pytest.mark.parametrize("start", [0, 1000, 1023, 0xFFFFFFF0])
def test_input_fills_the_ring_and_no_more(start: int) -> None:
    guest = Guest()
    guest.set(IN_CONS, start)
    guest.set(IN_PROD, start)
    ring = Ring(memoryview(guest.page))
    text = bytes(range(250)) * 5
    assert ring.put_input(text) == 1024
    assert ring.put_input(b"x") == 0
    assert guest.hear() == text[:1024]
    assert ring.put_input(text[1024:]) == 226
    assert guest.hear() == text[1024:]


def test_input_indices_without_sense_take_nothing() -> None:
    guest = Guest()
    guest.set(IN_CONS, 5)
    before = bytes(guest.page)
    assert Ring(memoryview(guest.page)).put_input(b"x") == 0
    assert bytes(guest.page) == before


@pytest.mark.parametrize(("size", "full"), [(1, False), (2047, False), (2048, True)])
def test_only_a_guest_that_saw_a_full_ring_may_wait(size: int, full: bool) -> None:
    guest = Guest()
    ring = Ring(memoryview(guest.page))
    guest.say(b"x" * size)
    ring.take_output()
    assert ring.was_full == full
