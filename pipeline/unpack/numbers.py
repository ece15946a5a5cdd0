"""The small syntax inside tar headers: octal and base-256 numbers, times, PAX records.

Source:  POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Extensions".
"""

from __future__ import annotations

import re

INT63_MAX = (1 << 63) - 1
RECORDS_MAX = 10_000

_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_OCTAL = re.compile(rb"[0-7]*")
_LENGTH = re.compile(rb"[1-9][0-9]{0,7}")
_DECIMAL = re.compile(rb"0|-?[1-9][0-9]{0,18}")


class Malformed(ValueError):
    """What is wrong, in words that complete "expected"; the reader adds where."""


def number(field: bytes, what: str) -> int:
    """A header field: octal text, or base-256 where the first bit is set."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            value = int.from_bytes(field, "big", signed=True)
        else:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if not -INT63_MAX <= value <= INT63_MAX:
            raise Malformed(f"a {what} of at most 63 bits")
        return value
    text = field.partition(b"\0")[0].strip(b" ")
    if not _OCTAL.fullmatch(text):
        raise Malformed(f"an octal {what}")
    return int(text, 8) if text else 0


def decimal(text: bytes, what: str) -> int:
    """A decimal number of a PAX record."""
    if not _DECIMAL.fullmatch(text):
        raise Malformed(f"a decimal {what}")
    value = int(text)
    if not -INT63_MAX <= value <= INT63_MAX:
        raise Malformed(f"a {what} of at most 63 bits")
    return value


def time_ns(text: bytes, what: str) -> int:
    """A PAX time: decimal seconds with an optional fraction, which is cut to nanoseconds towards the past."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise Malformed(f"a decimal {what}")
    fraction = match[3] or b""
    value = int(match[2]) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if match[1]:
        value = -value - bool(fraction[9:].strip(b"0"))
    return value


def pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records of a PAX header, in order. Raises Malformed."""
    records: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        if len(records) >= RECORDS_MAX:
            raise Malformed(f"at most {RECORDS_MAX} PAX records")
        space = data.find(b" ", at, at + 10)
        if space < 0 or not _LENGTH.fullmatch(data, at, space):
            raise Malformed("a PAX record that begins with its length")
        end = at + int(data[at:space])
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise Malformed("a PAX record as long as it says")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise Malformed("a PAX record KEY=VALUE")
        records.append((key, value))
        at = end
    return records
