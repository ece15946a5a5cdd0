"""runtime.init.jsonread against the standard library's reader."""

import json
import random

import pytest

from runtime.init import jsonread


def made_up(rng: random.Random, depth: int = 0):
    kind = rng.randrange(8 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([True, False, None])
    if kind == 1:
        return rng.randrange(-(10**18), 10**18)
    if kind == 2:
        return rng.choice([0.5, -1e300, 3.25e-7, 1e2, rng.random()])
    if kind < 6:
        return "".join(rng.choice('ab"\\/\n\t\x01\x7fäß€😀\udc80 {}[]:,') for _ in range(rng.randrange(12)))
    if kind == 6:
        return [made_up(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {str(number) + "käy": made_up(rng, depth + 1) for number in range(rng.randrange(5))}


@pytest.mark.parametrize("seed", range(300))
def test_reads_what_json_writes(seed: int):
    value = made_up(random.Random(seed))
    for options in ({"separators": (",", ":")}, {"indent": 2}):
        assert jsonread.parse(json.dumps(value, **options).encode()) == value


@pytest.mark.parametrize("seed", range(300))
def test_accepts_and_refuses_damaged_text_as_json_does(seed: int):
    rng = random.Random(seed)
    text = json.dumps(made_up(rng), ensure_ascii=True)
    for _ in range(1 + seed % 3):
        at = rng.randrange(len(text) + 1)
        text = (
            text[:at]
            + rng.choice(['"', "\\", "{", "}", "[", "]", ",", ":", "0", "1", "-", ".", "e", "n", " ", "\t"])
            + text[at + rng.randrange(2) :]
        )
    try:
        expected = json.loads(text, object_pairs_hook=unique)
    except ValueError:
        with pytest.raises(ValueError):
            jsonread.parse(text.encode())
    else:
        assert jsonread.parse(text.encode()) == expected


def unique(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("twice")
    return dict(pairs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"a":1,}',
        "[1,]",
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "--1",
        "nul",
        "True",
        "'a'",
        '"\n"',
        '"\\x"',
        '"\\u12g4"',
        '"a',
        "[1 2]",
        '{"a" 1}',
        "{1:2}",
        "1 2",
        '{"a":1,"a":2}',
        "NaN",
        "Infinity",
        "[" * 1000 + "]" * 1000,
    ],
)
def test_refuses_what_is_no_json(text: str):
    with pytest.raises(ValueError):
        jsonread.parse(text.encode())


def test_refuses_bytes_that_are_no_utf8():
    with pytest.raises(ValueError):
        jsonread.parse(b'"\xff"')
