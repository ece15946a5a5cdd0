"""What this process has open, and has opened since."""

from __future__ import annotations

import contextlib
import os

Opened = set[tuple[int, str]]
"""(number, what it leads to)"""


def descriptors() -> Opened:
    """All there are, but for the listing's own."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    return found


def opened_since(before: Opened) -> Opened:
    """What is open now and was not then.

    That both are equal is too much to ask: what earlier tests left in a cycle is closed whenever that is collected,
    such as between two looks.
    """
    return descriptors() - before
