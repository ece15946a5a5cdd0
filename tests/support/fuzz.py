"""Fuzzing with hypothesis: how many examples, from which seed, and how long one may take.

In an ordinary run every fuzz test takes a few hundred examples, the same ones each time (hypothesis derives them from
the test itself), after the seeds kept as `@example`s beside it. ZONEWRIGHT_FUZZ=20000 .venv/bin/pytest -k fuzz takes
that many of a test, new ones in every run; what fails is shrunk and printed, and belongs into an `@example`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import types
from collections.abc import Iterator

from hypothesis import HealthCheck, settings

LONG = "ZONEWRIGHT_FUZZ"
EXAMPLE_S = 120


def fuzz(examples: int) -> settings:
    """The settings of a fuzz test, as a decorator."""
    return settings(
        max_examples=int(os.environ.get(LONG, examples)),
        derandomize=LONG not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class Hangs(BaseException):
    """An example took much longer than any should; no `except Exception` on the way hides it."""


@contextlib.contextmanager
def ends() -> Iterator[None]:
    """What is done inside ends, or the test fails."""

    def late(number: int, frame: types.FrameType | None) -> None:
        raise Hangs(f"no end within {EXAMPLE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(EXAMPLE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
