"""`-e` and `--env-file`, as docker reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from runtime.errors import RuntimeFault


class BadEnvironment(RuntimeFault):
    """A variable that is none."""


def environment(words: Iterable[str], files: Iterable[str] = (), ours: Mapping[str, str] = os.environ) -> list[str]:
    """KEY=VALUE for each variable; later ones win, -e over files. KEY alone: our value, or nothing where we have none.

    Raises:  BadEnvironment.
    """
    found: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(_lines(file), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                _set(found, line.lstrip(), ours, subject=f"{file}: line {number}")
    for word in words:
        _set(found, word, ours, subject=f"-e {word!r}")
    return [f"{key}={value}" for key, value in found.items()]


def _lines(file: str) -> list[str]:
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        got = getattr(error, "strerror", None) or str(error)
        raise BadEnvironment(f"--env-file {file}", expected="a text file", got=got) from error
    # Not splitlines, which also breaks a value at a form feed, or at one of Unicode's separators.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _set(found: dict[str, str], text: str, ours: Mapping[str, str], *, subject: str) -> None:
    key, equals, value = text.partition("=")
    if not key or "\0" in text or key != key.strip():
        raise BadEnvironment(subject, expected="KEY=VALUE, or KEY", got="none" if not key else "another")
    if equals:
        found[key] = value
    elif key in ours:
        found[key] = ours[key]
