"""Scratch disks this host makes for zones: a sparse file with an ext4 on it, which takes what a zone writes.

A file is there whole and formatted, or not at all. Once a zone has had it, nothing here reads what is in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from runtime.errors import RuntimeFault

FILESYSTEM = "ext4"
NAME = "disk"  # in a directory of the zone's own
TOOL, PACKAGE = "mke2fs", "e2fsprogs"
SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT_S = 120.0
# The file is sparse, so that nothing has to be discarded or zeroed; blocks of a page, whatever the size.
FORMAT = ("-q", "-F", "-t", FILESYSTEM, "-b", "4096", "-m", "0", "-L", "scratch", "-E",
          "nodiscard,lazy_itable_init=1,lazy_journal_init=1")  # fmt: skip


class ScratchUnfit(RuntimeFault):
    """A scratch disk that cannot be made here."""


def check(directory: Path, size_mib: int, subject: str) -> str:
    """Could one be made below a directory that is there? The path of the program for it. Raises ScratchUnfit."""
    program = shutil.which(TOOL, path=SEARCHED)
    if program is None:
        expected = f"{TOOL} on the zone's host, to format it"
        raise ScratchUnfit(subject, expected=expected, got=f"none in {SEARCHED}", hint=f"package {PACKAGE}")
    found = os.statvfs(directory)
    free_mib = found.f_bavail * found.f_frsize >> 20
    if free_mib < size_mib:
        raise ScratchUnfit(subject, expected=f"{size_mib} MiB free in {directory}", got=f"{free_mib} MiB")
    return program


def make(path: Path, size_mib: int, subject: str) -> None:
    """Make the disk, unless it is there from an earlier run of its zone. Raises ScratchUnfit."""
    if path.exists():
        return
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        program = check(path.parent, size_mib, subject)
        # The program of a zoned that was killed may still be formatting: what it writes is no part of this file.
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.truncate(size_mib << 20)
            _format(program, new, subject)
            os.fsync(file.fileno())
        os.rename(new, path)
    except OSError as error:
        got = f"{path}: {os.strerror(error.errno or 0)}"
        raise ScratchUnfit(subject, expected=f"a file of {size_mib} MiB", got=got) from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


def _format(program: str, path: Path, subject: str) -> None:
    argv = [program, *FORMAT, str(path)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL, env={"PATH": SEARCHED, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ScratchUnfit(subject, expected=f"{TOOL} to end", got=f"it runs after {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise ScratchUnfit(subject, expected=f"{TOOL} to succeed", got=f"code {done.returncode}: {said}"[:400])
