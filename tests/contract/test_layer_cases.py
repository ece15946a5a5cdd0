"""The layer corpus is whole: every case of the robustness notes, section 1.2, has a test that bears its number.

A number is in a test function's name, `test_case_42_…`, or at the head of a parametrized case, `"case_42/1: …"`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MERGED_AWAY = {78, 79}  # the notes say: merged into the cases above them
WANTED = {str(number) for number in range(1, 94) if number not in MERGED_AWAY} | {"30b", "30c", "30d"}
FUNCTION = re.compile(r"test_case_(\d+[bcd]?)_")
CASE = re.compile(r"case_(\d+[bcd]?)(?:/\d+)?: ")


def numbers() -> Iterator[str]:
    """The number of every test that bears one."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef) and (match := FUNCTION.match(node.name)):
                yield match[1].lstrip("0")
            elif isinstance(node, ast.Dict):
                for key in node.keys:
                    if isinstance(key, ast.Constant) and (match := CASE.match(str(key.value))):
                        yield match[1].lstrip("0")


def test_every_case_of_the_corpus_has_a_test() -> None:
    found = set(numbers())
    assert sorted(WANTED - found, key=lambda name: int(re.sub(r"\D", "", name))) == []
    assert sorted(found - WANTED) == []
