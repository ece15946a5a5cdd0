"""Finds what may be equal to something stored before, at a cost that grows with the bytes and not with their square.

A key that costs nothing (a size, the checksum of a head) tells nearly everything apart. All bytes are hashed only where
two have the same: an image of files made to have equal keys takes twice as long, one of usual files not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Place = TypeVar("Place")


class Twins(Generic[Place]):
    """Places by key, and by hash where a key has several.

    hash_at:  the hash of what lies at a place.
    """

    def __init__(self, hash_at: Callable[[Place], bytes]) -> None:
        self._hash_at = hash_at
        self._known: dict[Hashable, list[Place] | dict[bytes, list[Place]]] = {}

    def like(self, key: Hashable, hash_of: Callable[[], bytes]) -> list[Place]:
        """The places to compare with, which decides; the caller adds its own to them where none is equal.

        hash_of:  the hash of what is looked for, asked only where the key is known.
        """
        known = self._known.get(key)
        if not known:
            known = self._known[key] = []
            return known
        if isinstance(known, list):
            known = self._known[key] = {self._hash_at(known[0]): known}
        return known.setdefault(hash_of(), [])
