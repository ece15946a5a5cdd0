"""Makes the checkout and tests/support importable, whatever directory pytest was started from."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


LAB = "tests/lab/"
FEW_FDS = 16  # what the whole run keeps, such as the lab's connections, may begin in any module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With workers (-n): a module's tests go to one of them, and so do all of the lab's, which share one lab.

    Two labs at once are no way to be done sooner: of a lab's two virtual processors the one spins while the other waits
    for one of this machine's, and a zone's kernel took 50 to 100 s to its init instead of 4 (two processors, two labs).
    """
    from xdist.scheduler import LoadFileScheduling

    class LabIsOne(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return LAB if nodeid.startswith(LAB) else super()._split_scope(nodeid)

    return LabIsOne(config, log)


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
