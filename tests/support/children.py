"""The processes that this one has begun and not waited for."""

from __future__ import annotations

import contextlib
from pathlib import Path


def children() -> set[int]:
    """Their pids."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread that was joined has let go of the interpreter, but may still be ending.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= set(map(int, (task / "children").read_text().split()))
    return found
