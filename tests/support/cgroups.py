"""Names of cgroups that no other run of the tests has, and the end of what killed runs left.

A name ends in the pid of the run that made it, or in that and a number: `test-4711`, `zonebox-4711-3`.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_OWNED = re.compile(r"(?:test|first|second|third|refused|styrolite-cmd|zonebox)-(\d+)(?:-\d+)?")


def own(name: str) -> str:
    """The name for a group of this run."""
    return f"{name}-{os.getpid()}"


def remove_left_behind(parent: Path) -> None:
    """Remove the groups of runs that are gone; the kernel keeps those that still have processes."""
    with contextlib.suppress(FileNotFoundError):
        for path in parent.iterdir():
            found = _OWNED.fullmatch(path.name)
            if found is not None and not Path("/proc", found[1]).exists():
                _remove(path)


def _remove(path: Path) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
