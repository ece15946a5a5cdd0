"""The database: zones, events, reservations and workloads of this host, in one sqlite file with one writing thread.

It says what is wanted and what was; what is, Xen and the ledgers say. Statements are values (see rows.py), so that one
transaction can hold a zone's new state and the event that tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from runtime.host.daemon.errors import StateDamaged

log = logging.getLogger(__name__)

T = TypeVar("T")
Statement = tuple[str, Sequence[Any]]

# Each entry makes the next version of the one before; `PRAGMA user_version` is how many have been applied.
MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE zones (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, request TEXT NOT NULL, state TEXT NOT NULL,
        wanted INTEGER NOT NULL, restarts INTEGER NOT NULL, exit TEXT, created REAL NOT NULL, started REAL NOT NULL,
        ready REAL NOT NULL, finished REAL NOT NULL, uuid TEXT NOT NULL, net_index INTEGER NOT NULL,
        ports TEXT NOT NULL, console_tail TEXT NOT NULL
    ) STRICT;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, unix_s REAL NOT NULL, kind TEXT NOT NULL, zone_id TEXT NOT NULL,
        zone TEXT NOT NULL, attributes TEXT NOT NULL
    ) STRICT;
    CREATE TABLE reservations (id TEXT PRIMARY KEY, net_index INTEGER NOT NULL UNIQUE, created REAL NOT NULL) STRICT;
    CREATE TABLE workloads (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, zone_id TEXT NOT NULL, uuid TEXT NOT NULL, request TEXT NOT NULL,
        state TEXT NOT NULL, exit TEXT, error TEXT NOT NULL, device TEXT NOT NULL, created REAL NOT NULL,
        started REAL NOT NULL, finished REAL NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE networks (
        name TEXT PRIMARY KEY, net_index INTEGER NOT NULL UNIQUE, mtu INTEGER NOT NULL, created REAL NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE zones ADD COLUMN pause_s REAL NOT NULL DEFAULT 0;",
)


class Database:
    """One connection, used by one thread; `read` and `commit` queue for it."""

    def __init__(self, path: Path) -> None:
        """Open, made or brought up to this version.

        A file that is damaged is moved aside: zones that run are found by their ledgers. `damaged` is where it is then.
        Raises:  StateDamaged for a database of a newer zonewright, or where there can be none, or none be written.
        """
        self.path = path
        self.damaged: Path | None = None
        self._thread = ThreadPoolExecutor(1, "database")
        try:
            self._connection = self._thread.submit(self._open).result()
            try:
                self.id = self._thread.submit(self._identify).result()
            except BaseException as error:
                self._thread.submit(self._connection.close)
                if isinstance(error, sqlite3.Error):
                    raise StateDamaged(str(path), expected="to write to it", got=str(error)) from error
                raise
        except BaseException:
            self._thread.shutdown()
            raise

    async def commit(self, *statements: Statement) -> None:
        """All statements as one transaction, durable on return."""
        await self._run(self._commit, statements)

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return await self._run(lambda: self._connection.execute(sql, parameters).fetchall())

    def close(self) -> None:
        """After what is queued."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        # Shielded: a statement whose asker has gone is done all the same, in its turn.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    def _commit(self, statements: Sequence[Statement]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters in statements:
                connection.execute(sql, parameters)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return self._checked()
        except sqlite3.OperationalError as error:  # busy, a full disk, one that fails: the file may be whole
            raise StateDamaged(str(self.path), expected="to open it", got=str(error)) from error
        except sqlite3.DatabaseError as error:
            self.damaged = self._move_aside()
            log.error("%s: %s; it lies at %s now, a new one is begun", self.path, error, self.damaged)
        try:
            return self._checked()
        except sqlite3.Error as error:
            raise StateDamaged(str(self.path), expected="a place for a database", got=str(error)) from error

    def _checked(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise StateDamaged(str(self.path), expected="a place for a database", got=str(error)) from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            (word,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if word != "ok":
                raise sqlite3.DatabaseError(word)
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StateDamaged(
                str(self.path),
                expected=f"a database of version {len(MIGRATIONS)} or older",
                got=f"version {version}",
                hint="it is of a newer zonewright",
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")

    def _identify(self) -> str:
        """A word of this database's own: event numbers of another one mean nothing here."""
        found = self._connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
        if found is None:
            found = (secrets.token_hex(4),)
            self._commit([("INSERT INTO meta (key, value) VALUES ('id', ?)", found)])
        return str(found[0])

    def _move_aside(self) -> Path:
        number = 1
        while (target := Path(f"{self.path}.damaged-{number}")).exists():
            number += 1
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{target}{suffix}")
        return target
