"""Programs that are fed a tar on their standard input, and end with whoever feeds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from pipeline import tool
from pipeline.errors import PipelineError

TIMEOUT_S = 3600.0
PIPE_BYTES = 1 << 20
BUFFER_BYTES = 256 << 10


class FeedFailed(PipelineError):
    """What was to be fed ended too early."""


class Pipe:
    """The writing end of tar2sqfs's standard input: small writes gathered, large files spliced."""

    def __init__(self, fd: int) -> None:
        self._fd, self._buffer = fd, bytearray()
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what was gathered."""
        view = memoryview(self._buffer)
        while view:
            view = view[os.write(self._fd, view) :]
        self._buffer = bytearray()

    def splice(self, source: int, offset: int, size: int) -> None:
        """Append `size` bytes of a file without copying them through this process."""
        self.flush()
        while size:
            moved = os.splice(source, self._fd, min(size, PIPE_BYTES), offset_src=offset)
            if not moved:
                raise FeedFailed("inflated layer", expected=f"{size} more bytes", got="its end")
            offset, size = offset + moved, size - moved


def run_fed(
    words: list[str],
    feed: Callable[[Pipe], None],
    stderr: IO[bytes],
    *,
    subject: str,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a writer on what `feed` writes. A child whose parent dies reads the end of its input and ends by itself."""
    # The environment is fixed: SOURCE_DATE_EPOCH and TZ would reach the image. umask too, by way of the output's mode.
    process = subprocess.Popen(
        words,
        env={**tool.BASE_ENV, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
    )
    assert process.stdin is not None
    with _ended(process, TIMEOUT_S) as late:
        try:
            pipe = Pipe(process.stdin.fileno())
            feed(pipe)
            pipe.flush()
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: its exit code and stderr say why
        returncode = process.wait()
    if returncode != 0:
        stderr.seek(0)
        if late.is_set():
            raise tool.ToolFailed(subject, expected=f"an end within {TIMEOUT_S:.0f} s", got="none")
        raise tool.failure(words, returncode, stderr.read()[-4096:], subject=subject)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> Iterator[threading.Event]:
    """Whatever happens inside, the process has ended afterwards; after `timeout_s` it is made to, and the event set."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        if process.poll() is None:
            tool.kill_group(process)
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
