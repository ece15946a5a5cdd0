"""A process of this project's beside its starter: it has what it is given, and is told by one line what to do.

It gets no environment, no current directory on its path and no site-packages, of which none of them needs any.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
_ENDED_S = 5.0


def code_of(entry: str, before: str = "") -> str:
    """The program of such a process: `entry` imports its main(), `before` is run before that."""
    return f"import sys; sys.path.insert(0, sys.argv[1])\n{before}\n{entry}; main()"


def start(code: str, inherited: Sequence[int], stderr: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start one; it waits for its line. inherited: the descriptors that it keeps. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=tuple(inherited),
        start_new_session=True,
        cwd="/",
        env={"LC_ALL": "C.UTF-8"},
    )


def tell(child: subprocess.Popen[bytes], line: str) -> None:
    """Say what it is to do, once. One that has ended already is found out by whoever waits for it."""
    assert child.stdin is not None
    try:
        with child.stdin as told:
            told.write(line.encode() + b"\n")
    except BrokenPipeError:
        pass


def last_words(started: subprocess.Popen[bytes] | None, log_file: Path) -> str:
    """What one that ended said last, or what it was killed for. started: None where another process started it."""
    if started is not None and _outcome(started) == -signal.SIGSYS:
        return "killed for a system call it may not make (the kernel's log says which: audit, type=1326)"
    try:
        lines = log_file.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "no message"


def _outcome(ended: subprocess.Popen[bytes]) -> int | None:
    """How it ended; it has, but the last of its threads may be a moment behind its descriptors and the first thread."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return ended.wait(_ENDED_S)
    return None
