"""What the topics of the service stand on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from pipeline.store import Store
from runtime.boot.doors import Hypervisor
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import BootProgress, BootRequest, ZoneInfo
from runtime.host.images.platform import PlatformFile
from runtime.host.images.tasks import ImageTasks


class Boots:
    """Boots that go on after the call that asked for them has been answered."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._running: set[asyncio.Task[ZoneInfo]] = set()

    async def begin(self, request: BootRequest) -> ZoneInfo:
        """Begin a boot; returns when the zone has an id, which is before anything is built. Raises what `boot` raises.

        A caller that leaves before that calls the boot off.
        """
        first: asyncio.Future[ZoneInfo] = asyncio.get_running_loop().create_future()

        def emit(progress: BootProgress) -> None:
            if progress.zone is not None and not first.done():
                first.set_result(progress.zone)

        boot = asyncio.create_task(self._manager.boot(request, emit))
        self._running.add(boot)
        boot.add_done_callback(self._ended)
        try:
            await asyncio.wait([first, boot], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            boot.cancel()
            raise
        return first.result() if first.done() else await boot

    async def close(self) -> None:
        """Call off what has not come to run."""
        for boot in self._running:
            boot.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _ended(self, boot: asyncio.Task[ZoneInfo]) -> None:
        self._running.discard(boot)
        with contextlib.suppress(asyncio.CancelledError):
            boot.exception()  # the zone is listed as failed, and says why


@dataclass
class Context:
    """hypervisor: None where there is none, as in tests of all else."""

    manager: Manager
    store: Store
    tasks: ImageTasks
    platform: PlatformFile
    hypervisor: Hypervisor | None = None
    boots: Boots = field(init=False)

    def __post_init__(self) -> None:
        self.boots = Boots(self.manager)

    async def close(self) -> None:
        """End the pulls, and the boots that have not come to run."""
        await self.boots.close()
        await self.tasks.close()
