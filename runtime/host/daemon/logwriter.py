"""Writes one output log. What `append` has returned from survives a kill -9.

A full disk costs the output, never the zone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from runtime.host.daemon import logformat
from runtime.host.daemon.logformat import MARK, Position, Record
from runtime.host.daemon.signals import Changes

log = logging.getLogger(__name__)

SEGMENT_BYTES = 2 << 20
SEGMENTS = 8


class LogWriter:
    """The end of a log. One writer at a time; readers follow by `changes`."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, nr_segments: int = SEGMENTS) -> None:
        """Go on where the log ends, whatever a crash left there."""
        self.directory = directory
        self.changes = Changes()
        self._segment_bytes, self._nr_segments = segment_bytes, nr_segments
        self._position = Position()
        self._number, self._size, self._fd = 0, 0, -1
        self._failing = False
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._recover()

    @property
    def offsets(self) -> dict[int, int]:
        """Bytes of each stream of this run that are stored, or lost for good."""
        return dict(self._position.offsets)

    @property
    def end(self) -> tuple[int, int]:
        """Where what comes next is written: segment and byte."""
        return self._number, self._size

    def begin(self, run: str) -> None:
        """Output of `run` follows; a run that is begun already goes on."""
        if self._position.run != run:
            self._position = Position(run)
            self._put(Record(MARK, 0.0, 0, self._position.mark()))

    def append(self, stream: int, offset: int, data: bytes, unix_s: float) -> None:
        """Store bytes of a stream; those that are stored already are passed over."""
        have = self._position.offsets.get(stream, 0)
        if offset < have:
            data, offset = data[have - offset :], have
        if not data:
            return
        for start in range(0, len(data), logformat.MAX_DATA_BYTES):
            piece = Record(stream, unix_s, offset + start, data[start : start + logformat.MAX_DATA_BYTES])
            self._put(piece)
            self._position.take(piece)
        self.changes.tell()

    def close(self) -> None:
        """Let go of the file; `append` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _recover(self) -> None:
        for number, path in reversed(logformat.segments(self.directory)):
            self._number = max(self._number, number)
            data = path.read_bytes()
            end, position = 0, Position()
            for record, end in logformat.decode(data):  # noqa: B007
                position.take(record)
            if not end:
                path.unlink()  # torn before its first mark
                continue
            if end < len(data):
                os.truncate(path, end)
            self._number, self._size, self._position = number, end, position
            return

    def _put(self, record: Record) -> None:
        data = logformat.encode(record)
        try:
            if self._size + len(data) > self._segment_bytes or not self._number:
                self._next_segment()
            if self._fd < 0:
                path = logformat.segment_path(self.directory, self._number)
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._write(data)
            self._failing = False
        except OSError as problem:
            if not self._failing:  # once, not for each line of a zone that talks on
                log.warning("log %s: %s; output is lost", self.directory, problem)
            self._failing = True

    def _next_segment(self) -> None:
        self.close()
        self._number, self._size = self._number + 1, 0
        path = logformat.segment_path(self.directory, self._number)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._write(logformat.encode(Record(MARK, 0.0, 0, self._position.mark())))
        for _, old in logformat.segments(self.directory)[: -self._nr_segments]:
            old.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        if written < len(data):  # a disk that is just full: what follows must not stand behind a torn record
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise OSError(f"{written} of {len(data)} bytes written")
        self._size += len(data)
