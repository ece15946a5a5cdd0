"""Run other programs: argument lists, a minimal fixed environment, a deadline, and errors a person can paste."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError

# LC_ALL and TZ decide the output of many tools; HOME keeps them from reading a user's configuration.
BASE_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent"}


class ToolMissing(PipelineError):
    """A program this step needs is not installed."""


class ToolFailed(PipelineError):
    """A program ended with an error."""


def find(name: str, *, package: str = "") -> str:
    """The path of a program; raises ToolMissing with the package that has it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        hint = f"apt-get install {package}" if package else ""
        raise ToolMissing(f"program {name}", expected="it installed", got="not found in PATH", hint=hint)
    return path


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = None,
    input: bytes | None = None,
    cwd: Path | None = None,
    subject: str = "",
) -> bytes:
    """Run a program to its end and return its standard output.

    Raises:  ToolFailed with the command and the end of stderr; ToolMissing.
    Effects: on a timeout or an interrupt the whole process group of the program is killed.
    """
    words = [str(word) for word in argv]
    if input is not None:
        stdin = subprocess.PIPE
    elif stdin is None:
        stdin = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            words,
            env={**BASE_ENV, **(env or {})},
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ToolMissing(f"program {words[0]}", expected="it installed", got="not found in PATH") from None
    try:
        out, err = process.communicate(input, timeout=timeout_s)
    except BaseException as error:
        kill_group(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise ToolFailed(
                subject or words[0], expected=f"an end within {timeout_s:.0f} s", got="none", hint=shlex.join(words)
            ) from None
        raise
    if process.returncode != 0:
        raise failure(words, process.returncode, err, subject=subject)
    return out


def failure(words: Sequence[str], returncode: int, stderr: bytes, *, subject: str = "") -> ToolFailed:
    """The error for a program that ended badly: its command, how it ended, the last lines it said."""
    how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"
    tail = " | ".join(stderr.decode(errors="replace").strip().splitlines()[-4:])
    return ToolFailed(
        subject or words[0], expected="success", got=f"{how}: {tail}"[:1200], hint=f"command: {shlex.join(words)}"[:600]
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a program started in its own session, with its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
