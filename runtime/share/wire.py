"""Fields of 9P messages. What is read comes from a zone: what is not as it should be is BadMessage."""

from __future__ import annotations

import struct
from typing import Any

from runtime.share import abi


class BadMessage(Exception):
    """A message that is none: too short or too long for what it says, or with a string that no file can have.

    No RuntimeFault: it never leaves the server, which answers EPROTO.
    """


class Reader:
    """Takes the fields of a message's body, one after the other."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Fixed fields. Raises BadMessage."""
        start = self._at
        self._at = start + layout.size
        if self._at > len(self._view):
            raise BadMessage(f"expected {layout.size} bytes at {start}, got {len(self._view) - start}")
        return layout.unpack_from(self._view, start)

    def number(self, layout: struct.Struct = abi.U32) -> int:
        """One integer. Raises BadMessage."""
        value: int = self.take(layout)[0]
        return value

    def data(self, length: int) -> memoryview:
        """That many bytes, not copied. Raises BadMessage."""
        start = self._at
        self._at = start + length
        if self._at > len(self._view):
            raise BadMessage(f"expected {length} bytes at {start}, got {len(self._view) - start}")
        return self._view[start : self._at]

    def string(self, limit: int = abi.NAME_MAX) -> bytes:
        """A string, which may be empty and need not be UTF-8: names are bytes. Raises BadMessage."""
        length = self.number(abi.U16)
        if length > limit:
            raise BadMessage(f"expected a string of at most {limit} bytes, got {length}")
        value = bytes(self.data(length))
        if b"\0" in value:
            raise BadMessage("expected a string without NUL")
        return value

    def end(self) -> None:
        """Nothing may follow. Raises BadMessage."""
        if self._at != len(self._view):
            raise BadMessage(f"expected {self._at} bytes, got {len(self._view)}")

    def last(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Fixed fields, after which nothing may follow. Raises BadMessage."""
        fields = self.take(layout)
        self.end()
        return fields


def string(value: bytes) -> bytes:
    """A string with its length."""
    return abi.U16.pack(len(value)) + value


def message(kind: int, tag: int, body: bytes = b"") -> bytes:
    """A whole message."""
    return abi.HEADER.pack(abi.HEADER.size + len(body), kind, tag) + body


def error(tag: int, number: int) -> bytes:
    """The reply that says no. number: of errno, as Linux numbers them on x86."""
    return message(abi.RLERROR, tag, abi.U32.pack(number))
