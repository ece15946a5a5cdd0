"""Locks that hold between zones, and against programs of the host."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ninep import Client, Refused
from support.sharing import client_of

from runtime.share import abi, locks
from runtime.share.locks import Range
from runtime.share.server import Server

BOTH = 2
SHARED, EXCLUSIVE, UNLOCK = 0, 1, 2
SUCCESS, BLOCKED, ERROR = 0, 1, 2


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Client, Client]]:
    """Two zones that share one directory."""
    (tmp_path / "file").write_bytes(bytes(100))
    with client_of(tmp_path) as one:
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        server = Server(fd, readonly=False)
        os.close(fd)
        other = Client(server.handle)
        other.start(uid=os.geteuid())
        try:
            yield one, other
        finally:
            server.close()


def test_exclusive_lock_of_one_zone_blocks_the_other(pair: tuple[Client, Client]) -> None:
    one, other = pair
    mine, theirs = one.open(b"file", flags=BOTH), other.open(b"file", flags=BOTH)
    assert one.lock(mine, EXCLUSIVE, 10, 10) == SUCCESS
    assert other.lock(theirs, EXCLUSIVE) == BLOCKED
    assert other.lock(theirs, SHARED, 19, 1) == BLOCKED
    assert other.lock(theirs, EXCLUSIVE, 20) == SUCCESS
    assert one.lock(mine, UNLOCK, 10, 10) == SUCCESS
    assert other.lock(theirs, EXCLUSIVE) == SUCCESS


def test_shared_locks_go_together(pair: tuple[Client, Client]) -> None:
    one, other = pair
    mine, theirs = one.open(b"file", flags=BOTH), other.open(b"file", flags=BOTH)
    assert one.lock(mine, SHARED) == other.lock(theirs, SHARED) == SUCCESS
    assert one.lock(mine, EXCLUSIVE) == BLOCKED


def test_lock_ends_with_its_fid(pair: tuple[Client, Client]) -> None:
    one, other = pair
    mine, theirs = one.open(b"file", flags=BOTH), other.open(b"file", flags=BOTH)
    one.lock(mine, EXCLUSIVE)
    assert other.lock(theirs, EXCLUSIVE) == BLOCKED
    one.ask("clunk", mine)
    assert other.lock(theirs, EXCLUSIVE) == SUCCESS


def test_getlock_says_what_is_in_the_way_and_not_whose(pair: tuple[Client, Client]) -> None:
    one, other = pair
    mine, theirs = one.open(b"file", flags=BOTH), other.open(b"file", flags=BOTH)
    one.lock(mine, EXCLUSIVE, 10, 10)
    assert other.getlock(theirs, SHARED) == (EXCLUSIVE, 10, 10, 0, b"zone")
    assert other.getlock(theirs, EXCLUSIVE, 50, 5) == (UNLOCK, 50, 5, 77, b"zone")
    with pytest.raises(Refused):
        other.getlock(theirs, UNLOCK)


def test_host_sees_a_zones_lock(pair: tuple[Client, Client], tmp_path: Path) -> None:
    client, _ = pair
    number = client.open(b"file", flags=BOTH)
    with (tmp_path / "file").open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        assert client.lock(number, SHARED) == BLOCKED
        assert client.getlock(number, SHARED)[3] == 0
        fcntl.lockf(held, fcntl.LOCK_UN)
        assert client.lock(number, SHARED) == SUCCESS
        with pytest.raises(BlockingIOError):
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_exclusive_lock_of_what_is_open_for_reading_is_said_to_be_a_bad_file(pair: tuple[Client, Client]) -> None:
    client, _ = pair
    with pytest.raises(Refused) as caught:
        client.lock(client.open(b"file"), EXCLUSIVE)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("kind", "start", "length"), [(3, 0, 0), (255, 0, 0), (1, 2**63, 0), (1, 2**62, 2**63 - 1), (1, 0, 2**64 - 1)]
)
def test_impossible_locks_are_refused(pair: tuple[Client, Client], kind: int, start: int, length: int) -> None:
    client, _ = pair
    number = client.open(b"file", flags=BOTH)
    for ask in (client.lock, client.getlock):
        with pytest.raises(Refused) as caught:
            ask(number, kind, start, length)
        assert caught.value.errno == errno.EINVAL


def test_ranges_are_those_of_a_table_of_bytes() -> None:
    dice = random.Random(5)
    size = 24
    for _ in range(300):
        table = [abi.LOCK_UNLCK] * size
        ranges: list[Range] = []
        for _ in range(20):
            start, end = sorted((dice.randrange(size), dice.randrange(size)))
            kind = dice.choice((SHARED, EXCLUSIVE, UNLOCK))
            ranges = locks.ranges_after(ranges, Range(start, end, kind))
            table[start : end + 1] = [kind] * (end + 1 - start)
            expected: list[Range] = []
            for place, what in enumerate(table):
                if what == UNLOCK:
                    continue
                if expected and expected[-1].end == place - 1 and expected[-1].kind == what:
                    expected[-1] = expected[-1]._replace(end=place)
                else:
                    expected.append(Range(place, place, what))
            assert ranges == expected


def test_count_of_ranges_is_the_kernels(tmp_path: Path) -> None:
    """Otherwise the limit would bound something else than the kernel's memory."""
    dice = random.Random(6)
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    fd = os.open(path, os.O_RDWR)
    try:
        held = locks.Locks(fd, 100)
        for _ in range(60):
            assert held.set(dice.choice((0, 0, 1, 1, 2)), dice.randrange(64), dice.randrange(1, 9)) == SUCCESS
        # The descriptor's own: of /proc/locks a part is missing, or there twice, where others lock as it is read.
        kept = [line.split() for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "lock:" in line]
        kinds = {"READ": SHARED, "WRITE": EXCLUSIVE}
        found = sorted(Range(int(line[-2]), int(line[-1]), kinds[line[4]]) for line in kept)
        assert found == held.ranges and len(found) > 3
    finally:
        os.close(fd)
