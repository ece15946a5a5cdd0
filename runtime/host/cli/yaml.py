"""JSON-like data as YAML: block style, every text that YAML would read as something else in JSON's quotes.

Source:  YAML 1.2.2, 7.3.3 (plain style) and 5.4; JSON is a subset, so that what json.dumps quotes is valid.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Words and digits with a few harmless marks inside; anything else is quoted.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@-]*(?: [A-Za-z0-9_./@-]+)*")
# What YAML 1.1 or 1.2 readers take for no text.
_TAKEN = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


def dumps(value: Any) -> str:
    """One document. Keys are text; values are None, bool, int, finite float, str, and lists and dicts of those."""
    lines = _lines(value)
    return "".join(f"{line}\n" for line in lines)


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for key, item in value.items() for line in _entry(f"{_scalar(str(key))}:", item)]
    if isinstance(value, (list, tuple)) and value:
        return [line for item in value for line in _item(item)]
    return [_scalar(value)]


def _entry(head: str, value: Any) -> list[str]:
    if isinstance(value, (dict, list, tuple)) and value:
        indent = "  " if isinstance(value, dict) else ""  # a list may stand where its key does
        return [head, *(indent + line for line in _lines(value))]
    return [f"{head} {_scalar(value)}"]


def _item(value: Any) -> list[str]:
    first, *others = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in others)]


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _TAKEN
        return value if plain else json.dumps(value)
    return json.dumps(value)
