"""JSON a zone has sent: read by the standard library's C code, as a zone may send much of it, but not as laxly.

Source:  RFC 8259; NaN and Infinity are Python's own, and nesting beyond the interpreter's patience is refused by it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

_MAX_WORDS = 1024


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"JSON: expected a finite number, got {text}")


def loads(text: bytes) -> dict[str, Any]:
    """The object a JSON text holds; a word that is no text has "?" in it. Raises ValueError otherwise."""
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse)
        if b"\\u" in text:  # half a surrogate pair, which is no text: neither protobuf nor a client takes it
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("JSON: expected values that are not nested endlessly, got such") from None
    if not isinstance(value, dict):
        raise ValueError(f"JSON: expected an object, got {type(value).__name__}")
    return value


def words(value: object) -> str:
    """Text a zone wrote, for a sentence of ours: cut, and printable."""
    text = value[:_MAX_WORDS] if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
