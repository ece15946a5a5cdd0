"""Zones' names in their network: what its name server answers by itself, without asking anybody.

A zone is found by its name, in any case of letters (A, AAAA), and by its addresses (PTR). What is asked of a name
beside that has no answer, and an address of the network that no zone has does not exist: nobody else is to say.
Source: RFC 1035 sections 3.2, 3.5 and 4.1, RFC 3596, RFC 2308 section 2.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

HEADER_BYTES = 12
RESPONSE = 0x80
_OPCODE_AND_RD = 0x79
_AUTHORITATIVE, _RECURSION_AVAILABLE = 0x04, 0x80
_NO_SUCH_NAME = 3
_A, _PTR, _AAAA, _ANY = 1, 12, 28, 255
_IN = 1
_NAME_OF_QUESTION = b"\xc0\x0c"  # a compression pointer to right behind the header
_LIVES_S = 5  # a zone that comes again may have other addresses
_LARGEST_LABEL = 63  # above are compression pointers, which have no place in a question
_REVERSE4, _REVERSE6 = ["in-addr", "arpa"], ["ip6", "arpa"]

Network = IPv4Network | IPv6Network


class Question(NamedTuple):
    """The only question of a query. end: where it ends."""

    labels: tuple[str, ...]
    kind: int
    of_class: int
    end: int


def read_question(query: bytes) -> Question | None:
    """The question of a standard query that has exactly one, None for all else."""
    if len(query) < HEADER_BYTES or query[2] & 0xF8 or query[4:6] != b"\0\1":
        return None
    labels, at = [], HEADER_BYTES
    while at < len(query) and query[at]:
        size = query[at]
        if size > _LARGEST_LABEL or at + size >= len(query):
            return None
        labels.append(query[at + 1 : at + 1 + size].decode("latin-1").lower())
        at += 1 + size
    if at + 5 > len(query):
        return None
    kind, of_class = (int.from_bytes(query[at + offset : at + offset + 2], "big") for offset in (1, 3))
    return Question(tuple(labels), kind, of_class, at + 5)


class Names:
    """The zones of one network; all its zones' name servers look here.

    networks:  those whose addresses are zones' or nobody's.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._addresses: dict[tuple[str, ...], tuple[str, str]] = {}
        self._names: dict[str, str] = {}

    def add(self, name: str, zone4: str, zone6: str) -> None:
        """A zone."""
        self._addresses[tuple(name.lower().split("."))] = (zone4, zone6)
        self._names |= {zone4: name, zone6: name}

    def remove(self, name: str) -> None:
        """A zone that is there no more; harmless for one that never was."""
        for address in self._addresses.pop(tuple(name.lower().split(".")), ()):
            self._names.pop(address, None)

    def answer(self, query: bytes) -> bytes | None:
        """The answer to a query about a zone or an address of the network; None where it is about neither."""
        question = read_question(query)
        if question is None or question.of_class not in (_IN, _ANY):
            return None
        addresses = self._addresses.get(question.labels)
        if addresses is not None:
            return _answer(query, question, list(_records(question.kind, *addresses)))
        address = _address_of(list(question.labels))
        if address is None or not any(address in network for network in self._networks):
            return None
        name = self._names.get(str(address))
        if name is None:
            return _answer(query, question, [], code=_NO_SUCH_NAME)
        return _answer(query, question, [_record(_PTR, _encoded(name))] if question.kind in (_PTR, _ANY) else [])


def _records(kind: int, zone4: str, zone6: str) -> Iterator[bytes]:
    if kind in (_A, _ANY):
        yield _record(_A, socket.inet_pton(socket.AF_INET, zone4))
    if kind in (_AAAA, _ANY):
        yield _record(_AAAA, socket.inet_pton(socket.AF_INET6, zone6))


def _record(kind: int, data: bytes) -> bytes:
    numbers = b"".join(value.to_bytes(size, "big") for value, size in ((kind, 2), (_IN, 2), (_LIVES_S, 4)))
    return b"".join((_NAME_OF_QUESTION, numbers, len(data).to_bytes(2, "big"), data))


def _encoded(name: str) -> bytes:
    labels = [label.encode("ascii", "replace")[:_LARGEST_LABEL] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _answer(query: bytes, question: Question, records: list[bytes], *, code: int = 0) -> bytes:
    flags = bytes([RESPONSE | _AUTHORITATIVE | (query[2] & _OPCODE_AND_RD), _RECURSION_AVAILABLE | code])
    counts = b"".join((b"\0\1", len(records).to_bytes(2, "big"), bytes(4)))
    return b"".join((query[:2], flags, counts, query[HEADER_BYTES : question.end], *records))


def _address_of(labels: list[str]) -> IPv4Address | IPv6Address | None:
    """The address whose name is asked for; None for names that are of none."""
    parts = labels[-3::-1]
    try:
        if labels[-2:] == _REVERSE4 and len(parts) == 4:
            return IPv4Address(".".join(parts))
        if labels[-2:] == _REVERSE6 and len(parts) == 32 and all(len(part) == 1 for part in parts):
            return IPv6Address(int("".join(parts), 16))
    except ValueError:
        pass
    return None
