"""Progress of what takes long, and none of what does not."""

from __future__ import annotations

import io
import threading

from pipeline.progress import PlainProgress
from runtime.host.cli.patience import PatientProgress


def patient(out: io.StringIO, patience_s: float) -> PatientProgress:
    return PatientProgress(lambda: PlainProgress(out), patience_s)


def test_what_is_soon_over_says_nothing() -> None:
    out = io.StringIO()
    progress = patient(out, 3600)
    with progress.bar("quick", unit="steps") as bar:
        bar.total(3)
        bar.advance(3)
    assert out.getvalue() == ""


def test_what_lasts_is_shown_with_all_that_is_done() -> None:
    out, shown = io.StringIO(), threading.Event()
    progress = PatientProgress(lambda: (shown.set(), PlainProgress(out))[1], 0.0)
    with progress.bar("slow") as bar:
        bar.total(2048)
        assert shown.wait(120)
    assert out.getvalue().startswith("  slow")


def test_lines_come_at_once_and_nothing_is_made_for_none() -> None:
    out = io.StringIO()
    progress = patient(out, 3600)
    progress.close()
    assert progress._made is None
    progress.say("starting zoned")
    assert out.getvalue() == "starting zoned\n"
