"""Memory is promised before anything is built or grows: what runs will still take counts as taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from runtime.boot.doors import DomainInfo
from runtime.host.daemon.edge import KIB_PER_PAGE
from runtime.host.daemon.errors import NotEnough

# What Xen takes beside a guest's own pages: domain, vCPUs, grant and event tables, shadow of its page tables.
OVERHEAD_KIB = 2048

Look = Callable[[], Awaitable[tuple[int, Mapping[str, DomainInfo]]]]


class Admission:
    """Who has been promised how much.

    look:  gives Xen's free memory in KiB, and its domains by uuid.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._promised: dict[str, int] = {}
        self._one_by_one = asyncio.Lock()

    async def promise(self, uuid: str, kib: int, subject: str) -> None:
        """Keep memory for the domain `uuid` until `settle`; raises NotEnough.

        A domain that is being built has some of it already: only the rest is kept.
        """
        async with self._one_by_one:
            if self._promised.get(uuid, -1) >= kib:
                return
            free, domains = await self._look()
            kept = sum(
                max(0, promised - self._has(domains.get(other)))
                for other, promised in self._promised.items()
                if other != uuid
            )
            missing = kib - self._has(domains.get(uuid))
            if missing > free - kept:
                waiting = f", {kept >> 10} MiB of them promised to zones that are being started or grow" if kept else ""
                raise NotEnough(
                    subject,
                    expected=f"{-(-missing >> 10)} MiB of free memory in Xen",
                    got=f"{free >> 10} MiB{waiting}",
                    hint="stop a zone, or give this one less memory",
                )
            self._promised[uuid] = kib

    def promised(self, uuid: str) -> int:
        """How much is kept for a domain; 0 for one that has all it was promised."""
        return self._promised.get(uuid, 0)

    def keep(self, uuid: str, kib: int) -> None:
        """Promise what is not to be asked for again: a domain has been given it, or had it promised before."""
        self._promised[uuid] = kib

    def settle(self, uuid: str) -> None:
        """It has been built, or never will be; it has grown."""
        self._promised.pop(uuid, None)

    @staticmethod
    def _has(info: DomainInfo | None) -> int:
        return info.tot_pages * KIB_PER_PAGE if info else 0
