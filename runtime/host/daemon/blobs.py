"""Blobs on this host: which are missing, how one is taken in, which nobody needs.

Whoever boots a zone asks for its blobs, sends what is missing, and then for the zone: between these calls no zone names
what was found or sent. So it is lent, for a while or until a zone has it, as pipeline/store/lease.py lends to builds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from pipeline.durable import take
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store, lease
from pipeline.store.graph import Graph
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.zone import Zone

LENT_S = 3600.0  # from the question, or the last piece, to the boot: the other blobs come in between
LOOK_AGAIN_S = 0.5


async def missing(core: Core, blobs: Iterable[Descriptor]) -> list[Digest]:
    """Those of blobs that lie in no store and on no disk of this host; the others stay for a while."""
    wanted = list(blobs)

    def look() -> list[Digest]:
        return [blob.digest for blob in wanted if not core.edge.has(blob)]

    async with core.pruning:
        lacking = await core.thread(look)
        # The others alone: anybody may ask for any number of blobs that nobody has.
        left_out = set(lacking)
        _lend(core, [blob for blob in wanted if blob.digest not in left_out])
        return lacking


async def put(core: Core, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
    """Take a blob into the host's own store; it is there whole and hashed, or not at all. Raises DigestMismatch."""
    store = await core.thread(Store, core.edge.stores[0])
    async with core.pruning:
        _lend(core, [blob])
        is_there = await core.thread(store.has, blob)
    if is_there:
        async for _ in chunks:
            pass
        return
    with contextlib.ExitStack() as resources:
        writer = resources.enter_context(store.writer(blob.digest.algorithm))
        async for chunk in chunks:
            if writer.size_bytes + len(chunk) > blob.size_bytes:
                got = f"more than {blob.size_bytes} bytes"
                raise BadRequest(f"blob {blob.digest.short}", expected=f"{blob.size_bytes} bytes", got=got)
            await core.thread(writer.write, chunk)
        _lend(core, [blob])
        await core.thread(lambda: writer.commit(expected=blob))


def had(core: Core, zone: Zone) -> None:
    """A zone has its blobs: they stay for its sake."""
    for name in of_zone(zone):
        core.lent.pop(name, None)


def needed(core: Core) -> set[str]:
    """Those of zones, as far as it is known of each, and those that are lent. On the loop."""
    _end_loans(core)
    of_zones = (name for zone in core.zones.values() for name in of_zone(zone))
    of_unread = (name for unread in core.unread.values() for name in unread.blobs or ())
    return {*core.lent, *of_zones, *of_unread}


@contextlib.asynccontextmanager
async def alone(core: Core) -> AsyncIterator[None]:
    """From the first look of what removes blobs to its last removal; waits for others that do.

    A lease that ends meanwhile counts until then: what it was on may have got a name after the names were looked at.
    """
    with contextlib.ExitStack() as held:
        while core.edge.stores and not await core.thread(_begin, core, held):
            await core.clock.sleep(LOOK_AGAIN_S)
        yield


def _begin(core: Core, held: contextlib.ExitStack) -> bool:
    locks = Store(core.edge.stores[0]).locks
    try:
        held.callback(os.close, take(locks / lease.GC, wait=False))
    except BlockingIOError:
        return False
    lease.drop_dead(locks)
    return True


def unused(core: Core, needed: set[str]) -> list[tuple[Path, int]]:
    """Blobs of the host's own store that are not needed, that no image has and no build made, with their sizes.

    Blocking.
    """
    if not core.edge.stores:
        return []
    store = Store(core.edge.stores[0])
    with contextlib.ExitStack() as held, contextlib.suppress(OSError):
        _begin(core, held)
    # Pulled images and the platform have names there.
    graph = Graph(store)
    kept = needed | set(map(str, graph.closure(entry.digest for entry in store.tags().values())))
    kept |= set(map(str, graph.closure(lease.noted(store.locks))))
    return [(path, size) for path, size in sizes(core) if _name(path) not in kept]


def sizes(core: Core) -> Iterator[tuple[Path, int]]:
    """All blobs of the host's own store; one that goes meanwhile is left out. Blocking."""
    for path in (core.edge.stores[0] / "blobs").glob("*/*") if core.edge.stores else ():
        with contextlib.suppress(OSError):
            yield path, path.stat().st_size


async def remove(core: Core, path: Path) -> bool:
    """Remove one that was unused, unless it has come to be needed meanwhile; `alone` has been held since the look."""
    async with core.pruning:  # nobody is told that it is there while it goes
        return _name(path) not in needed(core) and await core.thread(_remove, core, path)


def _remove(core: Core, path: Path) -> bool:
    store = Store(core.edge.stores[0])
    sweep = take(store.locks / lease.SWEEP)
    try:
        if _name(path) in map(str, Graph(store).closure(lease.noted(store.locks))):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(sweep)


def _end_loans(core: Core) -> None:
    now = core.clock.monotonic()
    core.lent = {name: until for name, until in core.lent.items() if until > now}


def _lend(core: Core, blobs: Iterable[Descriptor]) -> None:
    _end_loans(core)
    until = core.clock.monotonic() + LENT_S
    core.lent |= {str(blob.digest): until for blob in blobs}


def of_zone(zone: Zone) -> list[str]:
    """The digests of all a zone needs."""
    return [zone.request.manifest, *(str(blob.digest) for blob in zone.blobs())]


def _name(path: Path) -> str:
    return f"{path.parent.name}:{path.name}"
