"""A compact JSON writer: ASCII only, no blanks. The reader is runtime.init.jsonread."""

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_INFINITY = float("inf")


def dumps(value: object) -> bytes:
    """The JSON text of dicts with str keys, lists, tuples, str, int, float, bool and None.

    A str with surrogates of bytes that are no UTF-8 (surrogateescape) arrives as it is.
    Raises:  TypeError, ValueError (a number that is not finite).
    """
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode("ascii")


def _write(value: object, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, float):
        if value != value or value in (_INFINITY, -_INFINITY):
            raise ValueError(f"JSON: expected a finite number, got {value}")
        parts.append(float.__repr__(value))
    elif isinstance(value, (list, tuple)):
        separator = "["
        for item in value:
            parts.append(separator)
            _write(item, parts)
            separator = ","
        parts.append("]" if separator == "," else "[]")
    elif isinstance(value, dict):
        separator = "{"
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"JSON: expected a str as key, got {type(key).__name__}")
            parts.append(separator + _string(key) + ":")
            _write(item, parts)
            separator = ","
        parts.append("}" if separator == "," else "{}")
    else:
        raise TypeError(f"JSON: expected a value JSON has, got {type(value).__name__}")


def _string(text: str) -> str:
    # isprintable() is false for control characters and DEL, true for the rest of ASCII.
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join([_character(letter) for letter in text]) + '"'


def _character(letter: str) -> str:
    escape = _ESCAPES.get(letter)
    if escape:
        return escape
    code = ord(letter)
    if 0x20 <= code < 0x7F:
        return letter
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"
