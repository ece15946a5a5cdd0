"""Budgets: a sender that keeps its credit is never refused, one that does not always is; nothing stands still."""

from __future__ import annotations

import random

import pytest

from runtime.init.channel import frames
from runtime.init.channel.credit import GIVE_BYTES, MAX_BYTES, WINDOW_BYTES, CreditError, Credits
from runtime.init.channel.outbox import FULL_BYTES, Outbox


def test_each_descriptor_starts_with_a_window_of_its_own_in_each_direction() -> None:
    credits = Credits()
    for fd in frames.FDS:
        assert credits.may_send(fd) == WINDOW_BYTES
        credits.received(fd, WINDOW_BYTES)
        credits.sent(fd, WINDOW_BYTES)
        assert credits.may_send(fd) == 0


def test_beyond_the_credit_is_an_error_at_both_ends() -> None:
    credits = Credits()
    credits.received(1, WINDOW_BYTES - 1)
    with pytest.raises(CreditError, match="descriptor 1: expected at most 1 bytes, got 2"):
        credits.received(1, 2)
    with pytest.raises(CreditError):
        credits.sent(0, WINDOW_BYTES + 1)


def test_a_peer_that_gives_for_ever_is_refused() -> None:
    credits = Credits()
    credits.given(1, MAX_BYTES - WINDOW_BYTES)
    with pytest.raises(CreditError, match="credit of descriptor 1"):
        credits.given(1, 1)


def test_credit_is_given_in_pieces_unless_it_acknowledges() -> None:
    credits = Credits()
    credits.received(1, GIVE_BYTES + 10)
    assert credits.consumed(1, GIVE_BYTES - 1) == 0
    assert credits.consumed(1, 11) == GIVE_BYTES + 10
    credits.received(2, 3)
    assert credits.consumed(2, 1, at_once=True) == 1
    assert credits.consumed(2, 1) == 0
    assert credits.consumed(2, 1, at_once=True) == 2


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_consumed_can_be_sent_again(seed: int) -> None:
    """Ten windows go from one end to the other, in any steps: neither end runs dry, and the sum stays the window."""
    chance = random.Random(seed)
    here, there = Credits(), Credits()
    on_the_way = unread = moved = 0
    while moved < 10 * WINDOW_BYTES:
        step = min(here.may_send(1), chance.randrange(1, 9000))
        here.sent(1, step)
        on_the_way += step
        step = chance.randrange(0, on_the_way + 1)
        there.received(1, step)
        on_the_way, unread = on_the_way - step, unread + step
        step = unread if not here.may_send(1) and not on_the_way else chance.randrange(0, unread + 1)
        unread, moved = unread - step, moved + step
        if give := there.consumed(1, step):
            here.given(1, give)
        assert here.may_send(1) + on_the_way + unread <= WINDOW_BYTES
        assert here.may_send(1) or on_the_way or unread


def test_the_outbox_of_a_zone_writes_its_greeting_and_waits_for_credit() -> None:
    outbox = Outbox(link_credit=True)
    outbox.greet(b"greeting")
    outbox.put(b"f" * 5000)
    assert outbox.take() == b"greeting"
    outbox.wrote(3)
    assert outbox.take() == b"eting"
    assert not outbox.unanswered
    outbox.wrote(5)
    assert outbox.take() == b""
    assert outbox.unanswered
    outbox.credit(2048)
    assert len(outbox.take()) == 2048
    outbox.wrote(2000)
    assert outbox.take() == b"f" * 48
    outbox.wrote(48)
    assert outbox.unanswered
    outbox.credit(0xFFFFFFFF)
    assert len(outbox.take(10_000)) == frames.LINK_WINDOW_BYTES


def test_a_new_session_takes_credit_and_queue_of_the_old_one() -> None:
    outbox = Outbox(link_credit=True)
    outbox.greet(b"one")
    outbox.wrote(3)
    outbox.credit(2048)
    outbox.put(b"old")
    outbox.greet(b"two")
    assert outbox.take() == b"two"
    outbox.wrote(3)
    outbox.put(b"new")
    assert outbox.take() == b""


def test_the_outbox_of_the_host_needs_no_credit() -> None:
    outbox = Outbox(link_credit=False)
    outbox.put(b"x" * (FULL_BYTES - 1))
    assert not outbox.full
    outbox.put(b"x")
    assert outbox.full
    for _ in range(8):
        outbox.wrote(len(outbox.take(1024)))
    assert outbox.waiting_bytes == 0
    assert not outbox.unanswered
