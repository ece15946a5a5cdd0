"""The stand-ins for standard modules; every test with a zone shows that the interpreter starts with them."""

import io

import pytest

from runtime.init.standin import encodings
from runtime.init.standin import io as standin

CODEC = encodings.search("utf_8")


def test_only_utf_8_is_known():
    assert (CODEC.name, CODEC[0]("ä"), CODEC[1](b"\xc3\xa4")) == ("utf-8", (b"\xc3\xa4", 1), ("ä", 2))
    assert encodings.search("latin_1") is None


@pytest.mark.parametrize("at", range(8))
def test_characters_may_come_in_pieces(at):
    text = "aä€😀"
    data = text.encode()
    decoder = CODEC.incrementaldecoder()
    first = decoder.decode(data[:at])
    later = CODEC.incrementaldecoder()
    later.setstate(decoder.getstate())
    assert first + later.decode(data[at:], True) == text
    decoder.reset()
    assert decoder.getstate() == (b"", 0)


def test_what_is_no_text_is_an_error_or_kept_as_asked():
    with pytest.raises(UnicodeDecodeError):
        CODEC.incrementaldecoder().decode(b"\xc3", True)
    assert CODEC.incrementaldecoder("surrogateescape").decode(b"\xff") == "\udcff"
    assert CODEC.incrementalencoder("surrogateescape").encode("\udcff") == b"\xff"


def test_streams_are_those_of_the_standard_module():
    assert (standin.open, standin.TextIOWrapper) == (io.open, io.TextIOWrapper)
