"""Progress: what is said about the work under way, on a terminal and off it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.progress import PlainProgress, facts_text

PROJECT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ((5 * MIB, "B", 14 * MIB, 3 * MIB, 2.0), "5.0 MiB of 14.0 MiB, 3.0 MiB/s, 3 s left"),
        ((5 * MIB, "B", 500 * MIB, MIB, 2.0), "5.0 MiB of 500.0 MiB, 1.0 MiB/s, 8 min left"),
        ((5 * MIB, "B", None, MIB, 7.0), "5.0 MiB, 1.0 MiB/s, 7 s"),
        ((0, "B", 10, None, 0.0), "0 B of 10 B"),
        ((10, "B", 10, 5.0, 2.0), "10 B of 10 B, 5 B/s"),
        ((3, "steps", 162, 1.0, 3.0), "3 of 162 steps, 3 min left"),
        ((3, "files", None, 1.0, 3.0), "3 files, 3 s"),
    ],
)
def test_how_far_something_is(facts: tuple[int, str, int | None, float | None, float], said: str) -> None:
    assert facts_text(*facts) == said


def test_plain_lines_say_amount_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with PlainProgress(out).bar("layer", total=20 * MIB) as bar:
        bar.advance(MIB)
        now = 105.0
        bar.advance(9 * MIB)
        now = 110.0
        bar.advance(10 * MIB)
    assert out.getvalue().splitlines() == [
        "  layer (20.0 MiB) …",
        "  layer: 10.0 MiB of 20.0 MiB, 2.0 MiB/s, 5 s left",
        "  layer: 20.0 MiB of 20.0 MiB, 2.0 MiB/s",
        "  layer: 20.0 MiB in 10 s, 2.0 MiB/s",
    ]


ON_A_TERMINAL = """
import sys, time
from pipeline.progress import for_terminal
progress = for_terminal()
early = "rich" in sys.modules
if sys.argv[1:]:
    progress.say("[bold]:smile:")
    with progress.bar("layer 1/1 of [red]" + "x" * 300, total=8 << 20) as bar:
        for _ in range(4):
            bar.advance(2 << 20)
            time.sleep(0.1)
progress.close()
print(early, "rich" in sys.modules)
"""


def on_a_terminal(*words: str) -> tuple[str, str]:
    """What the script wrote to a terminal of 100 columns, and to stdout."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *words],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "100", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # EIO: the other side has closed it
            break
        shown += data
    os.close(ours)
    out, _ = process.communicate(timeout=120)
    return shown.decode(), out.decode().strip()


def test_bars_on_a_terminal_show_rate_and_time_left() -> None:
    shown, _ = on_a_terminal("bars")
    assert "[bold]:smile:" in shown, "a line is shown as it is"
    assert "MiB of 8.0 MiB" in shown and "MiB/s" in shown and "left" in shown
    assert "layer 1/1 of [red]xxx" in shown and "x" * 100 not in shown, "a long title is cut, a number never"


def test_rich_is_imported_for_the_first_bar_only() -> None:
    assert on_a_terminal() == ("", "False False")
    assert on_a_terminal("bars")[1] == "False True"
