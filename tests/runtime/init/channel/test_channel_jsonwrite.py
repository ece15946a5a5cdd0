"""The JSON writer, against the standard library's and against our own reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzz

from runtime.init import jsonread
from runtime.init.channel.jsonwrite import dumps


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, b"{}"),
        ([], b"[]"),
        ((), b"[]"),
        (None, b"null"),
        (True, b"true"),
        (False, b"false"),
        (0, b"0"),
        (-(10**30), b"-1000000000000000000000000000000"),
        (1.5, b"1.5"),
        (1e300, b"1e+300"),
        ("", b'""'),
        ({"a": [1, {"b": None}], "c": "d"}, b'{"a":[1,{"b":null}],"c":"d"}'),
        ('tab\tquote"back\\nul\0del\x7f', b'"tab\\tquote\\"back\\\\nul\\u0000del\\u007f"'),
        ("\xe4\u20ac\U0001f600", b'"\\u00e4\\u20ac\\ud83d\\ude00"'),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), b'"\\udcff\\udcfe"'),
    ],
)
def test_values(value: object, text: bytes) -> None:
    assert dumps(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON: expected a finite number"):
        dumps([value])


@pytest.mark.parametrize("value", [b"bytes", {1: 2}, {"a": {3}}, object()])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="JSON: expected a"):
        dumps(value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@fuzz(300)
@given(values)
def test_fuzz_what_is_written_is_read_again(value: object) -> None:
    text = dumps(value)
    assert text.isascii()
    assert b" " not in text.replace(b'" "', b"") or " " in repr(value)
    assert json.loads(text) == value
    assert jsonread.parse(text) == value
