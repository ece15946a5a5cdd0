"""Warnings name what they are about, but not without end."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.unpack.xattrs import kept_xattrs


@pytest.mark.parametrize("form", [b"SCHILY.xattr.", b"LIBARCHIVE.xattr."])
def test_dropped_xattrs_of_many_names_are_counted_together_after_the_first(form: bytes) -> None:
    warnings: Counter[str] = Counter()
    for number in range(1000):
        assert kept_xattrs({form + b"z.%d" % number: b"", form + b"z.0": b""}, warnings) == {}
    assert len(warnings) == 101 and sum(warnings.values()) == 1999
    assert next(times for text, times in warnings.items() if text.endswith("dropped: z.0")) == 1000
    assert next(times for text, times in warnings.items() if text.endswith("dropped: of other names")) == 900
