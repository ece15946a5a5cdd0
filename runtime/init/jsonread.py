"""A strict JSON reader (RFC 8259): the standard library's needs `re` and costs more than init itself."""

_BLANKS = " \t\n\r"
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
MAX_DEPTH = 64

Json = object


def parse(data: bytes) -> Json:
    """The value of a JSON text. Raises ValueError with the offset; a key given twice is an error too."""
    text = data.decode("utf-8")
    value, at = _value(text, _skip(text, 0), 0)
    if _skip(text, at) != len(text):
        raise _bad(text, at, "nothing behind the value")
    return value


def _bad(text: str, at: int, expected: str) -> ValueError:
    return ValueError(f"JSON at character {at}: expected {expected}, got {text[at : at + 12]!r}")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def _value(text: str, at: int, depth: int) -> tuple[Json, int]:
    if depth > MAX_DEPTH:
        raise _bad(text, at, f"at most {MAX_DEPTH} levels")
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at + 1, depth + 1)
    if first == "[":
        return _array(text, at + 1, depth + 1)
    if first == '"':
        return _string(text, at + 1)
    for word, value in (("true", True), ("false", False), ("null", None)):
        if text.startswith(word, at):
            return value, at + len(word)
    return _number(text, at)


def _object(text: str, at: int, depth: int) -> tuple[Json, int]:
    found: dict[str, Json] = {}
    at = _skip(text, at)
    if text[at : at + 1] == "}":
        return found, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise _bad(text, at, "a key")
        key, at = _string(text, at + 1)
        if key in found:
            raise _bad(text, at, f"the key {key!r} once")
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _bad(text, at, "a colon")
        found[key], at = _value(text, _skip(text, at + 1), depth)
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return found, at + 1
        if text[at : at + 1] != ",":
            raise _bad(text, at, "a comma or }")
        at = _skip(text, at + 1)


def _array(text: str, at: int, depth: int) -> tuple[Json, int]:
    found: list[Json] = []
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return found, at + 1
    while True:
        item, at = _value(text, _skip(text, at), depth)
        found.append(item)
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return found, at + 1
        if text[at : at + 1] != ",":
            raise _bad(text, at, "a comma or ]")
        at += 1


def _string(text: str, at: int) -> tuple[str, int]:
    end = text.find('"', at)
    if end >= 0 and (plain := text[at:end]).isprintable() and "\\" not in plain:
        return plain, end + 1  # nearly all are such, and a seccomp filter has thousands of letters
    parts: list[str] = []
    start = at
    while True:
        letter = text[at : at + 1]
        if letter == '"':
            parts.append(text[start:at])
            return _join_surrogates("".join(parts)), at + 1
        if letter == "\\":
            parts.append(text[start:at])
            decoded, at = _escape(text, at + 1)
            parts.append(decoded)
            start = at
        elif letter < " ":  # also the end of the text: "" sorts before everything
            raise _bad(text, at, "a closed string without control characters")
        else:
            at += 1


def _escape(text: str, at: int) -> tuple[str, int]:
    letter = text[at : at + 1]
    if letter == "u":
        digits = text[at + 1 : at + 5]
        if len(digits) != 4 or any(digit not in _HEX for digit in digits):
            raise _bad(text, at, "four hex digits")
        return chr(int(digits, 16)), at + 5
    if letter not in _ESCAPES or not letter:
        raise _bad(text, at, "an escape")
    return _ESCAPES[letter], at + 1


def _join_surrogates(text: str) -> str:
    """A pair is one character; a lone one is kept: bytes that are no UTF-8 (surrogateescape) survive the way so."""
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    # By hand: the zone's program has no UTF-16 codec.
    joined: list[str] = []
    for letter in text:
        if joined and "\udc00" <= letter <= "\udfff" and "\ud800" <= joined[-1] <= "\udbff":
            joined[-1] = chr(0x10000 + ((ord(joined[-1]) - 0xD800) << 10) + ord(letter) - 0xDC00)
        else:
            joined.append(letter)
    return "".join(joined)


def _number(text: str, at: int) -> tuple[Json, int]:
    start = at
    if text[at : at + 1] == "-":
        at += 1
    whole = at
    at = _digits(text, at)
    if at == whole or (text[whole] == "0" and at > whole + 1):
        raise _bad(text, start, "a value")
    end_of_int = at
    if text[at : at + 1] == ".":
        at = _some_digits(text, at + 1)
    if text[at : at + 1] in ("e", "E"):
        at += 1
        if text[at : at + 1] in ("+", "-"):
            at += 1
        at = _some_digits(text, at)
    return (int(text[start:at]) if at == end_of_int else float(text[start:at])), at


def _digits(text: str, at: int) -> int:
    while at < len(text) and text[at] in _DIGITS:
        at += 1
    return at


def _some_digits(text: str, at: int) -> int:
    end = _digits(text, at)
    if end == at:
        raise _bad(text, at, "a digit")
    return end
