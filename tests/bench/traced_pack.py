"""Where the time of one packing goes: what its progress bars said, and which process had how much of the processors.

As a program, `traced_pack.py REFERENCE FILE`, it packs once and prints the bars as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INTERVAL_S = 0.02

Bar = tuple[str, float, float]


@dataclass(frozen=True)
class Trace:
    """One packing, in seconds from the start of the process.

    bars:    (title, start, end).
    cpu:     program -> samples (time, processors in use since the sample before).
    """

    wall_s: float
    bars: list[Bar]
    cpu: dict[str, list[tuple[float, float]]]


def trace(reference: str, scratch: Path) -> Trace:
    """Pack with an empty store, sampling."""
    with tempfile.TemporaryDirectory(prefix="trace-", dir=scratch) as work:
        env = {"PATH": os.environ["PATH"], "HOME": work, "ZONEWRIGHT_STORE": f"{work}/store", "BEGUN": ""}
        start = time.monotonic()
        env["BEGUN"] = repr(start)  # the clock is the machine's, so the child's times need no translation
        words = [sys.executable, __file__, reference, f"{work}/out"]
        process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)
        sampler = Sampler(process.pid, start)
        sampler.start()
        said, _ = process.communicate(timeout=600)
        sampler.join()
    if process.returncode:
        from run import NotMeasured

        raise NotMeasured("a traced packing failed")
    bars = [(str(title), float(begun), float(ended)) for title, begun, ended in json.loads(said)]
    return Trace(time.monotonic() - start, bars, sampler.samples)


class Sampler(threading.Thread):
    """Adds up the run time of every thread of a process and of its children, from /proc, until it has ended."""

    def __init__(self, pid: int, start: float) -> None:
        super().__init__(daemon=True)
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self._pid, self._start, self._seen = pid, start, dict[int, int]()

    def run(self) -> None:
        """Until the process is gone."""
        before = self._start
        while (used := self._used()) is not None:
            now = time.monotonic()
            for name, nanoseconds in used.items():
                self.samples.setdefault(name, []).append((now - self._start, nanoseconds / 1e9 / (now - before)))
            before = now
            time.sleep(INTERVAL_S)

    def _used(self) -> dict[str, int] | None:
        """Program -> nanoseconds run since the last call; None once there is nothing more to see."""
        children = _children(self._pid)
        if children is None:
            return None
        used: dict[str, int] = {}
        for pid in (self._pid, *children):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                for task in os.listdir(f"/proc/{pid}/task"):
                    run_ns = int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
                    used[name] = used.get(name, 0) + run_ns - self._seen.get(int(task), 0)
                    self._seen[int(task)] = run_ns
        return used


def _children(pid: int) -> list[int] | None:
    """The children of a process; None when it has ended."""
    try:
        if "zombie" in Path(f"/proc/{pid}/status").read_text():
            return None
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    found = []
    for task in tasks:
        with contextlib.suppress(OSError):
            found += [int(word) for word in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    return found


def main() -> None:
    """Pack and tell."""
    from run import PROJECT  # the import makes the project importable, too

    from pipeline.env import Env
    from pipeline.pack import pack_image
    from pipeline.progress import Bar as ProgressBar
    from pipeline.progress import Progress
    from pipeline.store import Store

    begun = float(os.environ["BEGUN"])
    bars: list[Bar] = []

    class Recorder(Progress):
        @contextlib.contextmanager
        def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[ProgressBar]:
            start = time.monotonic() - begun
            with super().bar(title, total=total, unit=unit) as silent:
                yield silent
            bars.append((title, start, time.monotonic() - begun))

    assert PROJECT
    started = time.monotonic() - begun
    pack_image(sys.argv[1], Path(sys.argv[2]), env=Env(Store(), Recorder()))
    ended = time.monotonic() - begun
    done = max((end for _, _, end in bars), default=started)
    print(json.dumps([["start of Python", 0.0, started], *bars, ["hash, sync, copy to the file", done, ended]]))


if __name__ == "__main__":
    main()
