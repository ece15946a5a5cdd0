"""YAML as any reader takes it, and JSON-like data unharmed by it."""

from __future__ import annotations

import json

import pytest

from runtime.host.cli.yaml import dumps


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}\n"),
        ([], "[]\n"),
        ({"a": 1, "b": [], "c": {}, "d": None}, "a: 1\nb: []\nc: {}\nd: null\n"),
        ({"a": [1, {"b": 2, "c": [3]}]}, "a:\n- 1\n- b: 2\n  c:\n  - 3\n"),
        ([[1, 2], []], "- - 1\n  - 2\n- []\n"),
        ({"a": {"b": True}}, "a:\n  b: true\n"),
        ({"path": "/usr/bin", "two words": "nginx 1.27"}, "path: /usr/bin\ntwo words: nginx 1.27\n"),
        ("", '""\n'),
        (1.5, "1.5\n"),
    ],
    ids=json.dumps,
)
def test_shapes(value: object, text: str) -> None:
    assert dumps(value) == text


ODD = [
    "yes",
    "No",
    "null",
    "~",
    "1",
    "0x1f",
    "1e3",
    ".5",
    "2026-11-27",
    "a: b",
    "a #b",
    "- a",
    "a\nb",
    "\x1b[2J",
    "a:b",
]
ODD += [
    "",
    " a",
    "a ",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "`a",
    "{a",
    "[a",
    "'a",
    '"a',
    "a\\",
    "ü",
    "n",
    "12:30:00",
    "=",
    "<<",
]


@pytest.mark.parametrize("text", ODD)
def test_text_that_could_be_taken_for_something_else_is_quoted(text: str) -> None:
    assert dumps([text]) == f"- {json.dumps(text)}\n"
    assert dumps({text: 0}) == f"{json.dumps(text)}: 0\n"
