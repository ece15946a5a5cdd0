"""`zone store gc`: removes what nothing needs any more, beside whatever builds meanwhile.

Needed is, with all it leads to: what has a name (index.json), what the caller says is in use, what the locks of the
checkouts that build here pin, what a living process holds a lease on; then results, last used first, as long as they
are recent and fit. Only what was there at the first look is ever removed, a few at a time, each time after a look at
the leases that came since: see lease.py for why nothing can slip between. A result goes before its blobs, a
directory by a rename: gc that is killed leaves a smaller store, not a wrong one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipeline.durable import take
from pipeline.oci import Digest
from pipeline.progress import Progress
from pipeline.store import graph as storegraph
from pipeline.store import lease
from pipeline.store.form import FIXED_LOCKS, NAMES
from pipeline.store.store import Store
from pipeline.store.workshop import is_ours, is_unowned, remove_unowned

T = TypeVar("T")
BATCH = 64  # objects removed while builds wait: a few milliseconds


@dataclass(frozen=True)
class Shelf:
    """A directory of the store whose entries age as results do. used, lock: their names, by the entry's."""

    kind: str
    directory: str
    used: str
    lock: str


SHELVES = (
    Shelf("lab snapshots", "lab/snapshots", "snapshot-{0}", "lab-snapshot-{0:.32}"),
    Shelf("package lists", "apt", "apt-{0}", "apt-{0}"),
)


@dataclass
class Freed:
    """How much of one kind was removed, or would be."""

    objects: int = 0
    size_bytes: int = 0


@dataclass
class Collected:
    """What a gc did: freed by kind, and the blobs that stay."""

    freed: dict[str, Freed] = field(default_factory=dict)
    kept: Freed = field(default_factory=Freed)

    def add(self, kind: str, size_bytes: int) -> None:
        """Count one object."""
        entry = self.freed.setdefault(kind, Freed())
        entry.objects += 1
        entry.size_bytes += size_bytes


def collect(
    store: Store,
    *,
    keep_days: float,
    keep_bytes: int,
    in_use: Iterable[Digest] = (),
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Collected:
    """Remove what is not needed.

    keep_days:  results (snapshots, package lists) last used fewer days of use ago are recent.
    keep_bytes: recent results are kept up to this size of the whole store.
    in_use:     what runs on this machine needs.
    Raises:     StoreDamaged when the names cannot be read, StoreUnfit, OSError.
    """
    store.check_writable()
    done = Collected()
    alone = take(store.locks / lease.GC)
    try:
        lease.drop_dead(store.locks)
        _Sweep(store, keep_days, keep_bytes, dry_run, progress or Progress(), done).run(list(in_use))
        for shelf in SHELVES:
            _clear(store, shelf, keep_days, dry_run, done)
        _tidy(store, dry_run, done)
    finally:
        os.close(alone)
    return done


class _Sweep:
    """Results and blobs."""

    def __init__(
        self, store: Store, keep_days: float, keep_bytes: int, dry_run: bool, progress: Progress, done: Collected
    ) -> None:
        self._store, self._keep_days, self._keep_bytes, self._dry_run = store, keep_days, keep_bytes, dry_run
        self._progress, self._done = progress, done
        self._graph = storegraph.Graph(store)
        self._marked: set[Digest] = set()

    def run(self, in_use: list[Digest]) -> None:
        # In this order: what comes later can only name what it found, or what came later still.
        sizes = storegraph.blobs(self._store)
        results = {key: frozenset(self._graph.note(items)) for key, items in storegraph.results(self._store).items()}
        self._mark(in_use)
        self._mark(descriptor.digest for descriptor in self._store.tags().values())
        self._mark(lease.noted(self._store.locks))
        recent = set()
        for checkout in storegraph.checkouts(self._store):
            self._mark(storegraph.locked(checkout))
            recent |= set(storegraph.built(checkout))
        kept = self._choose(results, recent, sizes)
        unwanted = [key for key in results if key not in kept and not self._covered(results[key])]
        victims = [digest for digest in sizes if digest not in self._marked]
        with self._progress.bar("gc", total=len(unwanted) + len(victims), unit="objects") as bar:
            for some in _batches(unwanted):
                with self._alone():
                    for key in some:
                        if not self._covered(results[key]):
                            self._remove("results", self._store.results / f"{key}.json")
                bar.advance(len(some))
            for some_blobs in _batches(victims):
                with self._alone():
                    for digest in some_blobs:
                        if digest not in self._marked:
                            self._remove("blobs", self._store.path(digest))
                bar.advance(len(some_blobs))
        stay = self._marked & sizes.keys()
        self._done.kept = Freed(len(stay), sum(sizes[digest] for digest in stay))

    def _covered(self, digests: frozenset[Digest]) -> bool:
        """Do all blobs of a result stay anyway? Then it costs nothing to keep."""
        return bool(digests) and digests <= self._marked

    def _mark(self, digests: Iterable[Digest]) -> None:
        self._marked |= self._graph.closure(digests, self._marked)

    def _choose(self, results: dict[str, frozenset[Digest]], built: set[Digest], sizes: dict[Digest, int]) -> set[str]:
        """Mark what recent results need, last used first, until they are too many bytes; gives the results kept.

        What a checkout's result files name counts as used today: an up-to-date task does not look its result up.
        """
        kept = set()
        total = sum(sizes.get(digest, 0) for digest in self._marked)
        days = self._store.days
        ages = {key: 0 if results[key] and results[key] <= built else days.age(key) for key in results}
        for key in sorted(results, key=lambda key: (ages[key], -_stamp(self._store.used / key), key)):
            new = self._graph.closure(results[key], self._marked)
            total += sum(sizes.get(digest, 0) for digest in new)
            if ages[key] >= self._keep_days or total > self._keep_bytes:
                break
            self._marked |= new
            kept.add(key)
        return kept

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No object is looked up or published meanwhile; whatever was until now is marked."""
        sweep = take(self._store.locks / lease.SWEEP)
        try:
            self._mark(lease.noted(self._store.locks))
            yield
        finally:
            os.close(sweep)

    def _remove(self, kind: str, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            size = path.lstat().st_blocks * storegraph.BLOCK_BYTES
            if not self._dry_run:
                path.unlink()
            self._done.add(kind, size)


def _stamp(path: Path) -> int:
    """Which of two results of one day goes first; either may, so a wrong clock does no harm."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _clear(store: Store, shelf: Shelf, keep_days: float, dry_run: bool, done: Collected) -> None:
    """Remove old entries of a shelf, and what was killed while it was made (`.partial`)."""
    directory = store.root / shelf.directory
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        name = path.name.removesuffix(".partial")
        if path.name == name and store.days.age(shelf.used.format(name)) < keep_days:
            continue
        with store.try_lock(shelf.lock.format(name)) as free:
            if not free or not path.exists():
                continue
            size = storegraph.disk_bytes(path)
            if not dry_run:
                with store.scratch() as bin:
                    os.rename(path, bin / "old")
                store.days.forget(shelf.used.format(name))
            done.add(shelf.kind, size)


def _tidy(store: Store, dry_run: bool, done: Collected) -> None:
    """What killed processes left, results that cannot be read, locks nobody holds, stamps of what is gone."""
    unusable = (path for path in store.results.iterdir() if storegraph.read_result(path) is None)
    working = (path for path in store.tmp.iterdir() if is_ours(path.name))
    beside = (store.root / f".{name}.partial" for name in sorted(NAMES))  # nothing else there is ours to remove
    for path in (*working, *beside, *unusable):
        if is_unowned(path):
            done.add("leftovers", storegraph.disk_bytes(path))
            if not dry_run and path.parent != store.tmp:
                remove_unowned(path)
    if dry_run:
        return
    store.sweep()
    for path in store.locks.iterdir():
        if path.name not in FIXED_LOCKS and not path.name.startswith(lease.PREFIX):
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
                stack.callback(os.close, take(path, wait=False))
                path.unlink()
    used = {shelf.used.format(path.name) for shelf in SHELVES for path in (store.root / shelf.directory).glob("*")}
    for name in store.days.names():
        if name not in used and not (store.results / f"{name}.json").exists():
            store.days.forget(name)
    for path in store.checkouts.iterdir():
        with contextlib.suppress(OSError):
            if not os.path.isdir(path.read_bytes().rstrip(b"\n")):
                path.unlink()
