"""Makes the checkout and tests/support importable, whatever directory pytest was started from."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
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
# So does nohup with this one, which must not end us either: what has a handler has none in what is executed.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


LAB = "tests/lab/"
PYCACHE = HERE.parent / "build/pycache"
BESIDE_THE_LAB = 5  # of Linux's nice values
AUTOGROUP = Path("/proc/self/autogroup")
LONG_BYTES = 400  # of these a comparison shows where they part, of shorter ones everything
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


def pytest_configure(config: pytest.Config) -> None:
    """A worker has a session of its own: the scheduler weighs sessions (autogroup), and no single processes in them.

    The tests start our programs many hundred times: what those import is compiled once, also where the environment says
    that nothing be written. What `zone ps` imports takes 0.3 s of a processor so, else 1.3 s.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(PYCACHE)
    if hasattr(config, "workerinput"):
        os.setsid()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whatever another worker does goes after the lab, one of whose processors spins while the other has to wait.

    Beside one busy process a zone's boot took 149 s, and 27 to 32 s beside the same in a session of this nice value,
    which still had 0.7 of a processor; 22 s alone (a lab of two processors on a machine of two). What a test starts in
    a session of its own does not have the value: so the lab has one that is better than theirs, where root runs this.
    """
    wanted = 0 if item.nodeid.startswith(LAB) else BESIDE_THE_LAB
    if not hasattr(item.config, "workerinput") or not AUTOGROUP.exists():
        return
    if not AUTOGROUP.read_text().endswith(f" nice {wanted}\n"):
        with contextlib.suppress(BlockingIOError):  # who is not root may set it ten times a second: the next test will
            AUTOGROUP.write_text(str(wanted))


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Long bytes: their sizes and where they part. A megabyte of them shown whole is all that is left of a CI's log."""
    if op != "==" or not isinstance(left, bytes | bytearray) or not isinstance(right, bytes | bytearray):
        return None
    if max(len(left), len(right)) < LONG_BYTES:
        return None
    parts = (at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1])
    at = next(parts, min(len(left), len(right)))
    return [
        f"{len(left)} bytes == {len(right)} bytes",
        f"they part at byte {at}:",
        f"{bytes(left[at : at + 32])!r} is there on the left, and",
        f"{bytes(right[at : at + 32])!r} on the right",
    ]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> Generator[None]:
    """What failed, by name and last, however long the messages before it are."""
    yield
    for outcome in ("error", "failed"):
        for report in terminalreporter.getreports(outcome):
            when = f" (at its {report.when})" if report.when in ("setup", "teardown") else ""
            terminalreporter.write_line(f"{outcome}: {report.nodeid}{when}")


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
