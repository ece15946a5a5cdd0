"""Output logs: the form on disk, after a crash at any byte, and what readers see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run

from runtime.host.daemon import logformat
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.logreader import read_console, read_log
from runtime.host.daemon.logwriter import LogWriter
from runtime.host.daemon.model import LogEntry

OpenLog = Callable[..., LogWriter]


@pytest.fixture
def open_log() -> Iterator[OpenLog]:
    """LogWriter, closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **keywords: stack.enter_context(contextlib.closing(LogWriter(*arguments, **keywords)))


async def collect(entries: Any) -> list[LogEntry]:
    return [entry async for entry in entries]


def read(directory: Path, **keywords: Any) -> list[LogEntry]:
    return list(asyncio.run(collect(read_log(directory, **keywords))))


def text(entries: list[LogEntry], stream: str = "") -> bytes:
    return b"".join(entry.data for entry in entries if not stream or entry.stream == stream)


def test_lines_of_both_streams_come_back_with_their_times(open_log: OpenLog, tmp_path: Path) -> None:
    writer = open_log(tmp_path)
    writer.begin("run")
    writer.append(1, 0, b"one\ntw", 10.0)
    writer.append(2, 0, b"err\n", 11.0)
    writer.append(1, 6, b"o\nthree", 12.0)
    assert read(tmp_path) == [
        LogEntry(10.0, "stdout", b"one\n"),
        LogEntry(10.0, "stdout", b"tw"),
        LogEntry(11.0, "stderr", b"err\n"),
        LogEntry(12.0, "stdout", b"o\n"),
        LogEntry(12.0, "stdout", b"three"),
    ]
    assert writer.offsets == {1: 13, 2: 4}


def test_any_bytes_come_back_as_they_were(open_log: OpenLog, tmp_path: Path) -> None:
    data = random.Random(7).randbytes(300_000)
    writer = open_log(tmp_path, segment_bytes=64 << 10, nr_segments=100)
    writer.begin("run")
    for at in range(0, len(data), 4001):
        writer.append(1, at, data[at : at + 4001], 1.0)
    assert text(read(tmp_path)) == data and len(logformat.segments(tmp_path)) > 3


def test_bytes_that_are_stored_are_not_stored_again(open_log: OpenLog, tmp_path: Path) -> None:
    writer = open_log(tmp_path)
    writer.begin("run")
    writer.append(1, 0, b"abcdef", 1.0)
    writer.append(1, 2, b"cdefgh", 1.0)
    writer.append(1, 0, b"abc", 1.0)
    assert text(read(tmp_path)) == b"abcdefgh"


def test_log_is_bounded_and_its_end_is_kept(open_log: OpenLog, tmp_path: Path) -> None:
    writer = open_log(tmp_path, segment_bytes=4096, nr_segments=3)
    writer.begin("run")
    lines = [b"line %04d %s\n" % (n, b"x" * 80) for n in range(1000)]
    offset = 0
    for line in lines:
        writer.append(1, offset, line, 1.0)
        offset += len(line)
    paths = [path for _, path in logformat.segments(tmp_path)]
    assert len(paths) == 3 and sum(path.stat().st_size for path in paths) <= 3 * 4096
    kept = text(read(tmp_path)).splitlines(keepends=True)
    assert kept == lines[-len(kept) :] and len(kept) > 50
    assert open_log(tmp_path).offsets[1] == offset


@pytest.mark.parametrize("case", ["cut", "garbage"])
def test_crash_at_any_byte_loses_nothing_acknowledged_and_repeats_nothing(
    open_log: OpenLog, tmp_path: Path, case: str
) -> None:
    """The agent is asked to go on from the offsets a recovered log says it has."""
    streams = {1: b"".join(b"out %d\n" % n for n in range(12)), 2: b"".join(b"err %d\n" % n for n in range(8))}
    pieces: list[tuple[int, int, bytes]] = []
    for stream, data in streams.items():
        pieces += [(stream, at, data[at : at + 7]) for at in range(0, len(data), 7)]
    random.Random(3).shuffle(pieces)
    pieces.sort(key=lambda piece: piece[1])
    whole = tmp_path / "whole"
    writer = open_log(whole, segment_bytes=600)
    writer.begin("run")
    acknowledged = []  # (bytes in the last segment, offsets) after each append
    for stream, at, data in pieces:
        writer.append(stream, at, data, 1.0)
        number, path = logformat.segments(whole)[-1]
        acknowledged.append((number, path.stat().st_size, writer.offsets))
    last_number, last = logformat.segments(whole)[-1]
    for cut in range(last.stat().st_size + 1):
        copy = tmp_path / f"cut{cut}"
        copy.mkdir()
        for _, path in logformat.segments(whole):
            (copy / path.name).write_bytes(path.read_bytes())
        torn = copy / last.name
        os.truncate(torn, cut)
        if case == "garbage":
            with open(torn, "ab") as file:
                file.write(b"\xa7\x01" + bytes(40))
        recovered = open_log(copy, segment_bytes=600)
        promised = max(
            (offsets for number, size, offsets in acknowledged if (number, size) <= (last_number, cut)),
            key=lambda offsets: sum(offsets.values()),
        )
        assert all(recovered.offsets[stream] >= promised[stream] for stream in streams), cut
        recovered.begin("run")
        for stream, data in streams.items():  # the agent goes on from there
            recovered.append(stream, recovered.offsets[stream], data[recovered.offsets[stream] :], 2.0)
        recovered.close()
        found = read(copy)
        for stream, data in streams.items():
            assert text(found, logformat.STREAM_NAMES[stream]) == data, cut


def test_new_run_begins_at_zero_and_the_old_one_stays_readable(open_log: OpenLog, tmp_path: Path) -> None:
    writer = open_log(tmp_path)
    writer.begin("first")
    writer.append(1, 0, b"old\n", 1.0)
    writer.begin("second")
    assert writer.offsets == {1: 0, 2: 0}
    writer.append(1, 0, b"new\n", 2.0)
    assert open_log(tmp_path).offsets == {1: 4, 2: 0}
    assert text(read(tmp_path)) == b"old\nnew\n" and text(read(tmp_path, run="second")) == b"new\n"


@pytest.mark.parametrize(("tail", "expected"), [(0, b""), (1, b"five\n"), (3, b"ee\nfour\nfive\n"), (99, None)])
def test_tail_counts_lines_whatever_pieces_they_came_in(
    open_log: OpenLog, tmp_path: Path, tail: int, expected: bytes | None
) -> None:
    writer = open_log(tmp_path)
    writer.begin("run")
    everything = b"one\ntwo\nthree\nfour\nfive\n"
    for at in range(0, len(everything), 3):
        writer.append(1, at, everything[at : at + 3], 1.0)
    found = text(read(tmp_path, tail=tail))
    assert found == (everything if expected is None else expected.replace(b"ee\n", b"three\n"))


def test_since_and_until_bound_the_time(open_log: OpenLog, tmp_path: Path) -> None:
    writer = open_log(tmp_path)
    writer.begin("run")
    for second in range(5):
        writer.append(1, second * 2, b"%d\n" % second, float(second))
    assert text(read(tmp_path, since=1.0, until=3.0)) == b"1\n2\n3\n"
    assert text(read(tmp_path, since=1.0, tail=1)) == b"4\n"


def test_damaged_record_costs_its_segment_at_most(open_log: OpenLog, tmp_path: Path) -> None:
    writer = open_log(tmp_path, segment_bytes=600)
    writer.begin("run")
    for n in range(40):
        writer.append(1, n * 8, b"line %02d\n" % n, 1.0)
    first = logformat.segments(tmp_path)[0][1]
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 0xFF
    first.write_bytes(data)
    kept = text(read(tmp_path))
    assert kept.endswith(b"line 39\n") and b"line 00\n" in kept


def test_full_disk_costs_the_output_and_not_the_zone(
    open_log: OpenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_log(tmp_path)
    writer.begin("run")
    writer.append(1, 0, b"before\n", 1.0)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    writer.append(1, 7, b"lost\n", 1.0)
    monkeypatch.setattr(os, "write", real)
    writer.append(1, 12, b"after\n", 1.0)
    assert text(read(tmp_path)) == b"before\nafter\n"
    assert open_log(tmp_path).offsets[1] == 18


def test_follower_sees_what_comes_until_the_end(open_log: OpenLog, tmp_path: Path) -> None:
    async def work() -> None:
        writer = open_log(tmp_path, segment_bytes=300, nr_segments=50)
        writer.begin("run")
        ended = False
        entries = read_log(tmp_path, changes=writer.changes, ended=lambda: ended)
        reader = asyncio.create_task(collect(entries))
        for n in range(60):
            writer.append(1, n * 8, b"line %02d\n" % n, 1.0)
            await asyncio.sleep(0)
        ended = True
        writer.changes.tell()
        assert text(await reader) == b"".join(b"line %02d\n" % n for n in range(60))

    run(work())


def test_console_is_followed_over_its_rotation(tmp_path: Path) -> None:
    async def work() -> None:
        console, old = tmp_path / "console", tmp_path / "console.1"
        old.write_bytes(b"older\n")
        console.write_bytes(b"first\nsec")
        clock = FakeClock()
        ended = False
        entries = read_console((old, console), clock, tail=2, follow=True, ended=lambda: ended)
        seen = b""

        async def until(mark: bytes) -> None:
            nonlocal seen
            while mark not in seen:
                step = asyncio.ensure_future(anext(entries))
                while not step.done():
                    clock.pass_time(1)
                    await asyncio.sleep(0)
                seen += step.result().data

        await until(b"sec")
        with open(console, "ab") as file:
            file.write(b"ond\n")
        await until(b"ond\n")
        os.replace(console, old)
        console.write_bytes(b"third\n")
        await until(b"third\n")
        ended = True
        assert seen == b"first\nsecond\nthird\n"

    run(work())


def test_no_times_are_told_of_a_console(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True))
        console = host.path / "state" / "logs" / zone.id / "console"
        console.write_bytes(b"Linux\n")
        assert [(entry.unix_s, entry.data) for entry in await collect(manager.logs("web", console=True))] == [
            (0.0, b"Linux\n")
        ]
        for times in ({"since": 1.0}, {"until": 2.0}):
            with pytest.raises(BadRequest, match="what its console says, of which no times are kept"):
                manager.logs("web", console=True, **times)
        await host.stop(end_zones=True)

    run(work())


def test_output_survives_a_kill_of_zoned_without_a_gap_or_a_repetition(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        expected = b""
        for round_number in range(4):
            for n in range(20):
                line = b"round %d line %d\n" % (round_number, n)
                expected += line
                guest.write(line)
                await asyncio.sleep(0)
            await host.kill()
            guest.write(b"nobody looks %d\n" % round_number)
            expected += b"nobody looks %d\n" % round_number
            manager = await host.start()
        guest.exit("code 0")
        await manager.wait("web")
        found = await collect(manager.logs("web"))
        assert text(found) == expected
        await host.stop()

    run(work())


def test_output_that_the_agent_had_to_drop_is_passed_over(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        guest.write(b"first\n")
        while text(await collect(manager.logs("web"))) != b"first\n":
            await asyncio.sleep(0)
        await host.kill()
        guest.write(b"dropped\n")
        box = guest.containers["main"]
        box.kept[1], box.start[1] = b"", box.start[1] + len(box.kept[1])
        guest.write(b"last\n")
        manager = await host.start()
        guest.exit("code 0")
        await manager.wait("web")
        assert text(await collect(manager.logs("web"))) == b"first\nlast\n"
        await host.stop()

    run(work())
