"""`encodings` with UTF-8 in it, which is all that the zone's program reads and writes.

Source:  Python/codecs.c (what a search function is given and gives), Modules/_io/textio.c (what is asked of a codec).
"""

import _codecs


class Encoder:
    """An encoder without state."""

    def __init__(self, errors: str = "strict") -> None:
        self._errors = errors

    def encode(self, text: str, final: bool = False) -> bytes:
        return _codecs.utf_8_encode(text, self._errors)[0]

    def reset(self) -> None:
        pass

    def setstate(self, state: int) -> None:
        pass


class Decoder:
    """A decoder that keeps what is not a whole character yet."""

    def __init__(self, errors: str = "strict") -> None:
        self._errors, self._rest = errors, b""

    def decode(self, data: bytes, final: bool = False) -> str:
        data = self._rest + data
        text, used = _codecs.utf_8_decode(data, self._errors, final)
        self._rest = data[used:]
        return text

    def reset(self) -> None:
        self._rest = b""

    def getstate(self) -> tuple[bytes, int]:
        return self._rest, 0

    def setstate(self, state: tuple[bytes, int]) -> None:
        self._rest = state[0]


class Codec(tuple):  # type: ignore[type-arg]
    """Encode, decode, and the classes of streams, which nobody asks for."""

    name = "utf-8"
    incrementalencoder, incrementaldecoder = Encoder, Decoder


_UTF_8 = Codec((_codecs.utf_8_encode, _codecs.utf_8_decode, None, None))


def search(name: str) -> Codec | None:
    """The codec of a normalized name."""
    return _UTF_8 if name in ("utf_8", "utf-8", "utf8") else None


_codecs.register(search)  # type: ignore[arg-type]  # a CodecInfo is a tuple, and so is this
