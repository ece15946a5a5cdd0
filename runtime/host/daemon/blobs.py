"""Blobs on this host: which are missing, how one is taken in, which nobody needs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from pipeline.oci import Descriptor, Digest
from pipeline.store import Store
from pipeline.store.graph import Graph
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import BadRequest


async def missing(core: Core, blobs: Iterable[Descriptor]) -> list[Digest]:
    """Those of blobs that lie in no store and on no disk of this host."""
    wanted = list(blobs)

    def look() -> list[Digest]:
        return [blob.digest for blob in wanted if not core.edge.has(blob)]

    return await core.thread(look)


async def put(core: Core, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
    """Take a blob into the host's own store; it is there whole and hashed, or not at all. Raises DigestMismatch."""
    store = await core.thread(Store, core.edge.stores[0])
    if await core.thread(store.has, blob):
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
        await core.thread(lambda: writer.commit(expected=blob))


def unused(core: Core) -> list[tuple[Path, int]]:
    """Blobs of the host's own store that no zone is made of and no image has, with their sizes. Blocking."""
    if not core.edge.stores:
        return []
    needed = {str(blob.digest) for zone in core.zones.values() for blob in zone.blobs()}
    needed |= {zone.request.manifest for zone in core.zones.values()}
    store = Store(core.edge.stores[0])
    # Pulled images and the platform have names there.
    needed |= set(map(str, Graph(store).closure(entry.digest for entry in store.tags().values())))
    found: list[tuple[Path, int]] = []
    for path in store.blobs.parent.glob("*/*"):
        if f"{path.parent.name}:{path.name}" not in needed:
            with contextlib.suppress(OSError):
                found.append((path, path.stat().st_size))
    return found
