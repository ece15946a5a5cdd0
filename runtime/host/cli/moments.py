"""Moments as users write them, after docker: `10m` ago, seconds since 1970, or a date with or without a time; spans."""

from __future__ import annotations

import re
import time
from argparse import ArgumentTypeError
from datetime import datetime

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd])+")


def moment(text: str) -> float:
    """Seconds since 1970. Raises what argparse expects of a type."""
    if _DURATION.fullmatch(text):
        return time.time() - duration_s(text)
    try:
        return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ArgumentTypeError(f"expected 10m, 2026-11-27T08:00:00 or seconds since 1970, got {text!r}") from None


def span_s(text: str) -> float:
    """`30s`, `1m30s`, `500ms`: a time span. Raises what argparse expects of a type."""
    if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)ms", text):
        return float(match[1]) / 1000
    if not _DURATION.fullmatch(text):
        raise ArgumentTypeError(f"expected a time such as 30s or 1m30s, got {text!r}")
    return duration_s(text)


def duration_s(text: str) -> float:
    """`1h30m` in seconds."""
    return sum(float(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"[0-9.]+[smhd]", text))
