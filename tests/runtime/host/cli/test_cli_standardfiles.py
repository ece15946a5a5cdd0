"""Our own stdin, stdout and stderr: on a full disk, or closed by whoever started us."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.usefixtures("programs")

# `zone`, with the descriptor argv[1] closed as a shell's `<&-` closes it, before Python starts.
CLOSING = """
import os, sys
fd = int(sys.argv[1])
os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "runtime.host.cli", *sys.argv[2:]])
"""


@pytest.fixture(autouse=True)
def web(zoned, tmp_path):
    zoned.trees["web"] = tmp_path / "root"
    (tmp_path / "root" / "etc").mkdir(parents=True)
    zoned.logs["web"] = [(1.0, "stdout", b"a line\n")]
    return zoned.add("web")


@pytest.mark.parametrize(
    "words", [("logs", "web"), ("exec", "web", "both"), ("cp", "web:/etc", "-"), ("ps",)], ids=lambda words: words[0]
)
def test_full_disk_is_one_sentence(start, words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        process = start(*words, stdout=full)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said == b"error: stdout: expected a place for what is printed, got No space left on device\n"


@pytest.mark.parametrize(
    ("words", "code"), [(("logs", "web"), 0), (("exec", "web", "both"), 3), (("ps",), 0)], ids=lambda value: str(value)
)
def test_what_is_written_to_a_closed_stdout_leads_nowhere(start, words: tuple[str, ...], code: int) -> None:
    process = start("1", *words, code=CLOSING)
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out, b"Traceback" in said) == (code, b"", False), said


@pytest.mark.parametrize("words", [("exec", "-i", "web", "cat"), ("attach", "web")], ids=lambda words: words[0])
def test_closed_stdin_has_ended(zoned, start, words: tuple[str, ...]) -> None:
    zoned.programs["web"] = zoned.programs["cat"]
    process = start("0", *words, code=CLOSING)
    assert process.communicate(timeout=120) == (b"", b"") and process.returncode == 0


def test_archive_on_a_stdin_that_cannot_be_read_is_one_sentence(start, tmp_path) -> None:
    closed = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    process = start("cp", "-", "web:/etc", stdin=closed)
    os.close(closed)
    _, said = process.communicate(timeout=120)
    assert said == b"error: stdin: expected a tar archive, got Bad file descriptor\n" and process.returncode == 1
