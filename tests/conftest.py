"""Makes the checkout and tests/support importable, whatever directory pytest was started from."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for path in (HERE, HERE.parent):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

# A shell starts what it puts in the background with these ignored, which all children inherit; tests of Ctrl-C and of
# signals need them as a terminal has them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


FEW_FDS = 16  # what the whole run keeps, such as the lab's connections, may begin in any module


@pytest.fixture(scope="module", autouse=True)
def few_descriptors_stay_open() -> Iterator[None]:
    """A module that leaves files open fails, and not the one that cannot open another, or select it, much later."""
    before = _open_files()
    yield
    gc.collect()
    left = {number: name for number, name in _open_files().items() if before.get(number) != name}
    assert len(_open_files()) <= len(before) + FEW_FDS, f"left open: {left}"


def _open_files() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
