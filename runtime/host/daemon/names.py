"""Names and ids: which names a zone may have, and what a person meant by one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from runtime.host.daemon.errors import BadRequest, UnknownZone

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SHORTEST_PREFIX = 3
_SHOWN = 80


class Named(Protocol):
    """Something with a name and an id."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def check_name(name: str, what: str = "zone") -> None:
    """Raises BadRequest for what cannot be a name.

    A name becomes part of paths, of a network namespace's name and of xenstore values; Domain-0 is what other tools
    call the control domain.
    """
    subject = f"{what} {name[:_SHOWN]!r}"
    if not _NAME.fullmatch(name):
        expected = "a name of 1 to 63 letters, digits, - and _ that begins with a letter or a digit"
        raise BadRequest(subject, expected=expected, got="another")
    if name.lower() == "domain-0" or _UUID.fullmatch(name.lower()):
        raise BadRequest(subject, expected="a name of its own", got="what names another thing")


def resolve(ref: str, items: Mapping[str, N], what: str = "zone") -> N:
    """The item a reference means: its name, its id, or the start of its id.

    items:   by id.
    Raises:  UnknownZone, with the names that are near.
    """
    for item in items.values():
        if item.name == ref:
            return item
    if ref in items:
        return items[ref]
    found = [item for item in items.values() if item.id.startswith(ref)] if len(ref) >= SHORTEST_PREFIX else []
    if len(found) == 1:
        return found[0]
    subject = f"{what} {ref[:_SHOWN]!r}" if not _NAME.fullmatch(ref) else f"{what} {ref}"
    if found:
        names = ", ".join(sorted(item.name for item in found))
        raise UnknownZone(subject, expected="the start of one id", got=f"of {len(found)}: {names}")
    raise UnknownZone(subject, got=f"no such {what} on this host", hint=_near(ref, (i.name for i in items.values())))


def _near(ref: str, names: Iterable[str]) -> str:
    known = sorted(names)
    if close := difflib.get_close_matches(ref, known, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return f"there are: {shown}" if known else "there are none"
