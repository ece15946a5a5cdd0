"""Which CPUs an engine keeps away from, and when."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from runtime.net.engine.placement import LOOK_S, REST_S, Placement


class Source:
    """A socket whose packets come in on a CPU."""

    def __init__(self, cpu: int) -> None:
        self.cpu = cpu

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
        if self.cpu < 0:
            raise OSError(errno.EBADF, "closed")
        return self.cpu


class Streaming:
    """A placement, and the CPUs of its thread."""

    def __init__(self) -> None:
        self.placement, self.cpus, self.now = Placement(), {0, 1, 2, 3}, 100.0

    def stream(self, cpu: int) -> set[int]:
        """Where the thread may be after it moved what came in there; time passes."""
        self.now += LOOK_S
        self.placement.streams(cast(socket.socket, Source(cpu)), self.now)
        return self.cpus

    def rest(self, after_s: float) -> set[int]:
        self.placement.rest(self.now + after_s)
        return self.cpus


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streaming]:
    made = Streaming()

    def choose(thread: int, cpus: set[int]) -> None:
        assert thread == 0 and cpus
        made.cpus = set(cpus)

    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: set(made.cpus))
    monkeypatch.setattr(os, "sched_setaffinity", choose)
    return made


def test_engine_keeps_away_from_where_a_stream_comes_in_and_follows_it(streaming: Streaming) -> None:
    assert streaming.stream(1) == {0, 2, 3}
    assert streaming.stream(1) == {0, 2, 3}
    assert streaming.stream(3) == {0, 1, 2}


def test_it_looks_now_and_then_only(streaming: Streaming) -> None:
    streaming.stream(1)
    streaming.now -= LOOK_S / 2
    assert streaming.stream(2) == {0, 2, 3}


def test_it_may_be_anywhere_again_once_nothing_streams(streaming: Streaming) -> None:
    streaming.stream(1)
    assert streaming.rest(REST_S / 2) == {0, 2, 3}
    assert streaming.rest(2 * REST_S) == {0, 1, 2, 3}
    assert streaming.stream(2) == {0, 1, 3}


@pytest.mark.parametrize("usual", [{2}, {2, 3}], ids=str)
def test_cpus_that_somebody_has_chosen_for_it_stay_the_only_ones(streaming: Streaming, usual: set[int]) -> None:
    streaming.cpus = usual
    assert streaming.stream(0) == usual, "it does not come in there"
    assert streaming.stream(2) == (usual - {2} or usual)
    assert streaming.rest(2 * REST_S) == usual


def test_source_that_is_gone_and_cpus_that_were_taken_out_change_nothing(
    streaming: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert streaming.stream(-1) == {0, 1, 2, 3}

    def refuse(thread: int, cpus: set[int]) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with monkeypatch.context() as refused:
        refused.setattr(os, "sched_setaffinity", refuse)
        assert streaming.stream(1) == {0, 1, 2, 3}
    assert streaming.stream(1) == {0, 2, 3}
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert streaming.rest(2 * REST_S) == {0, 2, 3}, "where it may be is the kernel's choice then"
