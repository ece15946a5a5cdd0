"""Reads output logs and console files: from a time on, the last lines, and what comes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from runtime.host.daemon import logformat
from runtime.host.daemon.logformat import MARK, STREAM_NAMES, Record
from runtime.host.daemon.model import LogEntry
from runtime.host.daemon.signals import Clock

_CONSOLE_POLL_S = 0.25  # the thread that writes the file has no way to tell
_READ_BYTES = 256 << 10


class Watched(Protocol):
    """What can be waited on, as `signals.Changes`."""

    @property
    def count(self) -> int: ...

    async def after(self, count: int) -> None: ...


class Lines:
    """Cuts records into lines, and decides which of them are wanted. One object follows one log."""

    def __init__(self, *, since: float = 0.0, until: float = 0.0, skip: int = 0, run: str = "") -> None:
        self._since, self._until, self._skip, self._run = since, until, skip, run
        self._in_run = not run
        self._open: dict[int, bool] = {}  # stream -> is its unfinished line wanted?
        self.lines = 0  # that began in the wanted time

    def entries(self, record: Record) -> Iterator[LogEntry]:
        """The wanted pieces of a record, each at most one line."""
        if record.stream == MARK:
            self._in_run = not self._run or json.loads(record.data).get("run") == self._run
            return
        if not self._in_run:
            return
        in_time = record.unix_s >= self._since and (not self._until or record.unix_s <= self._until)
        for piece in _lines(record.data):
            wanted = self._open.pop(record.stream, None)
            if wanted is None:
                self.lines += in_time
                wanted = in_time and self.lines > self._skip
            if not piece.endswith(b"\n"):
                self._open[record.stream] = wanted
            if wanted:
                yield LogEntry(record.unix_s, STREAM_NAMES[record.stream], piece)


def _lines(data: bytes) -> Iterator[bytes]:
    """Cut behind each newline, and nowhere else."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


async def read_log(
    directory: Path,
    *,
    since: float = 0.0,
    until: float = 0.0,
    tail: int = -1,
    run: str = "",
    behind: tuple[int, int] | None = None,
    changes: Watched | None = None,
    ended: Callable[[], bool] = lambda: True,
) -> AsyncIterator[LogEntry]:
    """The entries of a log. With `changes`, those that come until `ended`, which is asked before the last look.

    tail:   this many of the last lines; 0 begins at the end, in the midst of a line if there is one.
    run:    only what this run printed.
    behind: begin here, which `LogWriter.end` was once, whenever the first entry is asked for.
    """
    lines = Lines(since=since, until=until, run=run)
    number, at = 0, 0
    if behind is not None:
        lines = Lines(since=since, until=until)
        number, at = behind
    elif tail >= 0:
        counted, number, at = await asyncio.to_thread(_count, directory, since, until, run)
        if tail:
            lines = Lines(since=since, until=until, run=run, skip=max(0, counted - tail))
            number, at = 0, 0
        else:
            lines = Lines(since=since, until=until)
    while True:
        count, last = changes.count if changes else 0, ended()
        while True:
            number, at, records = await asyncio.to_thread(_read, directory, number, at)
            if not records:
                break
            for record in records:
                for entry in lines.entries(record):
                    yield entry
        if changes is None or last:
            return
        await changes.after(count)


def _count(directory: Path, since: float, until: float, run: str) -> tuple[int, int, int]:
    """How many lines there are, and where the log ends."""
    lines = Lines(since=since, until=until, run=run)
    number, at = 0, 0
    while True:
        number, at, records = _read(directory, number, at)
        if not records:
            return lines.lines, number, at
        for record in records:
            for _ in lines.entries(record):
                pass


def _read(directory: Path, number: int, at: int) -> tuple[int, int, list[Record]]:
    """The next records after byte `at` of segment `number`; none at the end of the log.

    A record that is not whole ends its segment, unless it is the last one, where it is being written.
    """
    for found, path in logformat.segments(directory):
        if found < number:
            continue
        start = at if found == number else 0
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(_READ_BYTES)
                while True:
                    pairs = list(logformat.decode(data))
                    if pairs or len(data) < logformat.HEADER.size or not (more := file.read(_READ_BYTES)):
                        break
                    data += more
        except FileNotFoundError:
            continue  # rotated away meanwhile
        if pairs:
            return found, start + pairs[-1][1], [record for record, _ in pairs]
        number, at = found, start
    return number, at, []


async def read_console(
    paths: Iterable[Path], clock: Clock, *, tail: int = -1, follow: bool = False, ended: Callable[[], bool]
) -> AsyncIterator[LogEntry]:
    """The kernel's console, oldest file first; the last of them is followed, over its renaming.

    Its files hold what the guest printed and nothing else: when, nobody knows.
    """
    files = list(paths)
    current = files[-1]
    older = await asyncio.to_thread(lambda: b"".join(_bytes(path) for path in files[:-1]))
    at, data = await asyncio.to_thread(_console_news, current, (0, 0), None)
    data = older + data
    pieces = list(_lines(data))
    for piece in pieces[-tail:] if tail > 0 else pieces if tail < 0 else []:
        yield LogEntry(0.0, "console", piece)
    while follow:
        last = ended()
        at, data = await asyncio.to_thread(_console_news, current, at)
        for piece in _lines(data):
            yield LogEntry(0.0, "console", piece)
        if last and not data:
            return
        if not data:
            await clock.sleep(_CONSOLE_POLL_S)


def _console_news(path: Path, at: tuple[int, int], limit: int | None = _READ_BYTES) -> tuple[tuple[int, int], bytes]:
    """What came behind (inode, position), and the position behind that; another inode is read from its start."""
    inode, position = at
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            file.seek(position if status.st_ino == inode else 0)
            data = file.read(limit)
            return (status.st_ino, file.tell()), data
    except FileNotFoundError:
        return at, b""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
