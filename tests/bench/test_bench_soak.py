"""What the soak's zones run, and how their logs are judged; the soak itself is `./doit bench zone`."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from pathlib import Path

import pytest
from soak import COUNTING, counting, gap_in, numbers_in

from pipeline.bundle.model import Process


def test_workload_counts_and_ends_with_its_code_when_it_is_told_to_stop(tmp_path: Path) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text("#!/bin/sh\necho served >&2\nexec sleep 600\n")
    nginx.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["/bin/bash", "-c", COUNTING, "counting", "43", "0.05"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, process_group=0,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        assert [process.stdout.readline() for _ in range(3)] == [b"line 0\n", b"line 1\n", b"line 2\n"]
        assert process.stderr.readline() == b"served\n"
        process.terminate()
        assert process.wait(120) == 43
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # in a zone the end of its first process is that of all
        process.stdout.close()
        process.stderr.close()


def test_bundle_of_such_a_zone_keeps_what_its_image_begins_with() -> None:
    @dataclasses.dataclass(frozen=True)
    class Some:
        process: Process

    made = counting(Some(Process(("/wrapper", "nginx"), ("A=b",), stop_signal=3)), 43).process  # type: ignore[arg-type]
    assert made.argv == ("/wrapper", "/bin/bash", "-c", COUNTING, "counting", "43", "1")
    assert (made.env, made.stop_signal) == (("A=b",), signal.SIGTERM)


def test_numbers_are_those_of_whole_lines() -> None:
    output = b'127.0.0.1 - "GET / HTTP/1.1"\nline 0\nline x\nline 1\nliner 5\nline 12'
    assert numbers_in(output) == [0, 1]
    assert numbers_in(b"") == []


@pytest.mark.parametrize(
    ("numbers", "before", "wrong"),
    [
        ([0, 1, 2], 2, ""),
        ([5, 6, 7], 0, ""),
        ([0, 1, 3], 0, "after line 1 comes line 3"),
        ([0, 1, 1, 2], 0, "after line 1 comes line 1"),
        ([0, 1], 2, "2 lines, and there were 2 before"),
        ([], 0, "0 lines, and there were 0 before"),
    ],
)
def test_log_is_judged(numbers: list[int], before: int, wrong: str) -> None:
    assert gap_in(numbers, before) == wrong
