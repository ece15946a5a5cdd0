"""What all parts of the core share: the edge, the state, the clock, the threads, the zones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runtime.boot.watch import Deaths
from runtime.host.blockdevices import BlockDevice
from runtime.host.daemon import rows
from runtime.host.daemon.admission import Admission
from runtime.host.daemon.agent import AgentLink
from runtime.host.daemon.database import Database, Statement
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.errors import NotPrepared, StateDamaged
from runtime.host.daemon.events import Events
from runtime.host.daemon.logwriter import LogWriter
from runtime.host.daemon.sharednets import SharedNetwork
from runtime.host.daemon.signals import Clock, SystemClock
from runtime.host.daemon.zone import Run, Zone, row
from runtime.host.ledger import LedgerDir
from runtime.version import VERSION

log = logging.getLogger(__name__)

T = TypeVar("T")
WORKERS = 16  # some of them wait: for netback, for engines


NoteTaker = Callable[[Zone, str, Mapping[str, Any]], Awaitable[None]]  # zone, container, what its agent told


RunEnder = Callable[[Zone, Run], Awaitable[None]]


Forgetter = Callable[[Zone], None]


LinkTaker = Callable[[Zone, AgentLink], None]


@dataclass(frozen=True)
class Settings:
    """How one zoned is set up.

    run_dir:    what does not survive a reboot: ledgers. state_dir: what does: database, logs, store.
    preparing:  how many zones are made ready at once; building: how many domains are built at once, as building fills
                memory as fast as one core can; queue: how many zones may wait for either.
    warnings:   what preflight found, a sentence each.
    unfit:      why no zone can be begun, while those that run go on; "" where zones can be.
    """

    run_dir: Path
    state_dir: Path
    version: str = VERSION
    preparing: int = 4
    building: int = 2
    queue: int = 64
    warnings: tuple[str, ...] = ()
    unfit: str = ""


@dataclass(frozen=True)
class Unfinished:
    """What a run holds until its teardown is finished. index: of its network; devices: of this host, by target."""

    zone: str
    index: int
    devices: Mapping[str, BlockDevice]


@dataclass(frozen=True)
class Unread:
    """What is known of a zone of which what is written cannot be read.

    why:     what that is, and why not.
    uuid:    of its last run; runs: that may go on.
    index:   of its network then.
    blobs:   those it needs; None: nobody knows.
    devices: of this host, that it may have, by target.
    reservation: of addresses, that it has.
    """

    name: str
    why: str
    uuid: str = ""
    runs: bool = False
    index: int = -1
    blobs: frozenset[str] | None = None
    devices: Mapping[str, BlockDevice] = field(default_factory=dict)
    reservation: str = ""


@dataclass
class Core:
    """One zoned's state. On one event loop.

    unread:     zones that are left as they are, as what is written of them cannot be read, by id.
    booting:    names of zones that are being accepted; taking: network indexes of runs that are being begun.
    ending:     runs that are being torn down now.
    unfinished: runs whose teardown Xen has not let finish, by ledger.
    networks:   those that zones share, by name.
    lent:       blobs that a client was told of or has sent, and until when they stay for it, by the monotonic clock.
    pruning:    held while blobs are looked for or removed.
    leaving:    zoned ends and its zones go on.
    note_takers: who else hears what agents tell; run_enders: who else is to know that a run has ended.
    forgetters: who else is to know that a zone has been removed.
    link_takers: who is given each channel of an agent before anything has passed on it.
    """

    settings: Settings
    edge: Edge
    database: Database
    boot_id: str
    clock: Clock = field(default_factory=SystemClock)
    zones: dict[str, Zone] = field(default_factory=dict)
    unread: dict[str, Unread] = field(default_factory=dict)
    reservations: dict[str, int] = field(default_factory=dict)
    booting: set[str] = field(default_factory=set)
    taking: set[int] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)
    unfinished: dict[str, Unfinished] = field(default_factory=dict)
    networks: dict[str, SharedNetwork] = field(default_factory=dict)
    lent: dict[str, float] = field(default_factory=dict)
    pruning: asyncio.Lock = field(default_factory=asyncio.Lock)
    leaving: bool = False
    note_takers: list[NoteTaker] = field(default_factory=list)
    run_enders: list[RunEnder] = field(default_factory=list)
    forgetters: list[Forgetter] = field(default_factory=list)
    link_takers: list[LinkTaker] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    deaths: Deaths | None = None

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.events = Events(self.database)
        self.ledgers = LedgerDir(self.settings.run_dir / "ledger")
        self.network_ledgers = LedgerDir(self.settings.run_dir / "networks")
        self.preparing = asyncio.Semaphore(self.settings.preparing)
        self.workers = ThreadPoolExecutor(WORKERS, "work")
        self.builders = ThreadPoolExecutor(self.settings.building, "build")
        self.admission = Admission(self._look)
        self.fatal: asyncio.Future[str] = self.loop.create_future()

    async def _look(self) -> Any:
        return await self.thread(lambda: (self.edge.free_kib(), self.edge.domains()))

    # -- threads -------------------------------------------------------------------------------------------------------

    async def thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Blocking work, in a thread. Cancelled, it returns once the work is done: a teardown must find all of it."""
        return await finish(self.workers, work, *arguments)

    async def build(self, work: Callable[..., T], *arguments: Any) -> T:
        """As `thread`, for the building of domains."""
        return await finish(self.builders, work, *arguments)

    def soon(self, callback: Callable[[], None]) -> None:
        """From another thread: have it called on the loop."""
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self.loop.call_soon_threadsafe(callback)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done while nobody waits; it ends with zoned."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def check_fit(self, name: str) -> None:
        """Raises NotPrepared where no run of a zone can be begun."""
        if self.settings.unfit:
            raise NotPrepared(f"zone {name}", got=self.settings.unfit)

    def give_up(self, why: str) -> None:
        """zoned cannot go on; the next one adopts its zones."""
        if not self.fatal.done():
            self.fatal.set_result(why)

    # -- state ---------------------------------------------------------------------------------------------------------

    async def save(self, zone: Zone, kind: str = "", *, request: bool = False, **attributes: str) -> None:
        """Write a zone as it is now, with the event that tells of the change.

        A database that cannot be written costs history, never a zone; see `save_or_refuse` for a new one.
        """
        try:
            await self._save(zone, kind, request, attributes)
        except sqlite3.Error as error:
            log.error("zone %s, state %s is not written: %s", zone.name, zone.state.value, error)
        zone.changes.tell()

    async def save_or_refuse(self, zone: Zone, kind: str, *before: Statement) -> None:
        """Write a new zone, or a changed request, together with other statements. Raises StateDamaged."""
        with self._refusing():
            await self._save(zone, kind, True, {}, *before)
        zone.changes.tell()

    async def write_or_refuse(self, *statements: Statement) -> None:
        """Write what is of no zone. Raises StateDamaged."""
        with self._refusing():
            await self.database.commit(*statements)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateDamaged(str(self.database.path), expected="to write to it", got=str(error)) from error

    async def _save(self, zone: Zone, kind: str, request: bool, attributes: dict[str, str], *before: Statement) -> None:
        statements = [*before, rows.save_zone(row(zone), request=request)]
        if kind:
            statements += rows.add_event(self.clock.now(), kind, zone.id, zone.name, attributes)
        await self.database.commit(*statements)
        self.events.published.tell()

    async def tell(self, kind: str, zone: Zone | None = None, *before: Statement, **attributes: str) -> None:
        """An event without a change of the zone's row."""
        zone_id, name = (zone.id, zone.name) if zone else ("", "")
        try:
            await self.database.commit(*before, *rows.add_event(self.clock.now(), kind, zone_id, name, attributes))
        except sqlite3.Error as error:
            log.error("event %s of %s is not written: %s", kind, name, error)
        self.events.published.tell()

    # -- what zones have -----------------------------------------------------------------------------------------------

    def logs_of(self, zone: Zone) -> Path:
        """Where its output is kept."""
        return self.logs_dir(zone.id)

    def scratch_of(self, zone: Zone) -> Path:
        """Where its scratch disk is, if this host made one."""
        return self.scratch_dir(zone.id)

    def logs_dir(self, zone_id: str) -> Path:
        """As logs_of, for a zone that may not be known."""
        return self.settings.state_dir / "logs" / zone_id

    def scratch_dir(self, zone_id: str) -> Path:
        """As scratch_of, for a zone that may not be known."""
        return self.settings.state_dir / "scratch" / zone_id

    def link_made(self, zone: Zone, link: AgentLink) -> None:
        """A channel to the agent of a zone is about to be used."""
        for take in list(self.link_takers):
            take(zone, link)

    def log_of(self, zone: Zone) -> LogWriter:
        """The writer of its workload's output."""
        if zone.log is None:
            zone.log = LogWriter(self.logs_of(zone))
        return zone.log

    def used_indexes(self) -> set[int]:
        """Networks that are, or may still be, in use or kept for somebody."""
        live = {zone.run.addresses.index for zone in self.zones.values() if zone.run is not None}
        shared = {network.index for network in self.networks.values()}
        unfinished = {left.index for left in self.unfinished.values()}
        unread = {zone.index for zone in self.unread.values() if zone.runs}
        return live | shared | self.taking | set(self.reservations.values()) | unfinished | unread


async def finish(pool: Executor, work: Callable[..., T], *arguments: Any) -> T:
    """The result of work in a pool. Cancelled, it still returns only when the work is done, or was never begun."""
    submitted = pool.submit(work, *arguments)
    future = asyncio.wrap_future(submitted)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not submitted.cancel():
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # looked at: nobody else will
        raise
