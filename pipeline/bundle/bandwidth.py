"""A zone's bandwidth as people write it, after tc(8): `100mbit`, with thousands, not 1024s."""

from __future__ import annotations

import re

from pipeline.bundle.errors import BadSpec

LEAST_BIT_S, MOST_BIT_S = 64_000, 100_000_000_000
_UNITS = {"kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}


def parse_bandwidth(text: str, *, subject: str) -> int:
    """Bits per second. Raises BadSpec."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(kbit|mbit|gbit)", text)
    if match is None:
        raise BadSpec(subject, expected="a rate such as 100mbit, in kbit, mbit or gbit per second", got=repr(text)[:80])
    bit_s = round(float(match[1]) * _UNITS[match[2]])
    if not fits(bit_s):
        raise BadSpec(subject, expected=f"{bandwidth_text(LEAST_BIT_S)} to {bandwidth_text(MOST_BIT_S)}", got=text)
    return bit_s


def fits(bit_s: int) -> bool:
    """Is this a bandwidth a zone can have?"""
    return LEAST_BIT_S <= bit_s <= MOST_BIT_S


def bandwidth_text(bit_s: int) -> str:
    """`100mbit`, exactly, as `parse_bandwidth` takes it: in the largest unit of which it has whole thousandths."""
    unit = next(
        (unit for unit in ("gbit", "mbit") if bit_s >= _UNITS[unit] and not bit_s * 1000 % _UNITS[unit]), "kbit"
    )
    return f"{bit_s / _UNITS[unit]:.3f}".rstrip("0").rstrip(".") + unit
