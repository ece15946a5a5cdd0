"""Events: written with what they tell of, read from the table, so that a slow reader loses none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from runtime.host.daemon.database import Database
from runtime.host.daemon.errors import BadToken
from runtime.host.daemon.model import Event
from runtime.host.daemon.signals import Changes

_BATCH = 200
_BOUNDS = "SELECT (SELECT min(seq) FROM events), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"
_SELECT = "SELECT seq, unix_s, kind, zone_id, zone, attributes FROM events WHERE seq > ?"


class Events:
    """The events of one database. A token is `<database>-<number>`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.published = Changes()  # told after a commit that held events

    async def follow(self, *, since: str, from_start: bool, follow: bool, zone_id: str) -> AsyncIterator[Event]:
        """See Manager.events.

        Raises:  BadToken: of another database, or what followed it is no longer kept; also in the middle, for a reader
                 so slow that what it should read next is gone.
        """
        first, last = await self._bounds()
        position = first - 1 if from_start else last
        if since:
            position = self._number(since, last)
        while True:
            count = self.published.count
            first, newest = await self._bounds()
            if position < first - 1:
                raise BadToken(
                    f"event {self._token(position)}", expected="one whose successors are kept", got="an older one"
                )
            clause, parameters = (" AND zone_id = ?", [zone_id]) if zone_id else ("", [])
            rows = await self._database.read(f"{_SELECT}{clause} ORDER BY seq LIMIT {_BATCH}", [position, *parameters])
            for seq, unix_s, kind, of_zone, name, attributes in rows:
                position = seq
                yield Event(self._token(seq), unix_s, kind, of_zone, name, _attributes(attributes))
            if len(rows) == _BATCH:
                continue
            position = max(position, newest)  # those of other zones are behind us too
            if not follow:
                return
            await self.published.after(count)

    async def latest(self) -> str:
        """The token of the last event; one of a database without any is good as well."""
        return self._token((await self._bounds())[1])

    async def _bounds(self) -> tuple[int, int]:
        """Numbers of the first event kept and of the last there was.

        By one statement: an event that came between two would leave none kept before it, and a reader looked late.
        """
        ((first, last),) = await self._database.read(_BOUNDS)
        return (last + 1 if first is None else first), last

    def _token(self, number: int) -> str:
        return f"{self._database.id}-{number}"

    def _number(self, token: str, last: int) -> int:
        database, _, number = token.rpartition("-")
        if database != self._database.id or not number.isascii() or not number.isdigit() or int(number) > last:
            raise BadToken(
                f"event {token[:60]!r}", expected=f"a token of this host ({self._database.id}-…)", got="another"
            )
        return int(number)


def _attributes(text: str) -> dict[str, str]:
    """None where a hand wrote what they are: the event stays one."""
    try:
        found = json.loads(text)
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}
