"""The shares of a run that this zoned follows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from runtime.boot import plugging
from runtime.boot.domain import Domain
from runtime.errors import RuntimeFault
from runtime.share.backend import Share

log = logging.getLogger(__name__)


class HeldShares:
    """By their numbers. May be called from any thread.

    Once they have been ended, or let go of, there are no more: whoever plugs one in meanwhile comes too late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: dict[int, Share] = {}
        self._over = False

    def begin(self, domain: Domain, number: int, start: Callable[[], Share]) -> Share:
        """Follow one more. Raises DomainGone where the run is over, and what start raises."""
        with self._lock:
            if self._over:
                raise plugging.ended(domain)
            share = self._shares[number] = start()
            return share

    def take(self, number: int) -> Share | None:
        """One that is the caller's to end from now on."""
        with self._lock:
            return self._shares.pop(number, None)

    def let_go(self) -> None:
        """Their processes serve on. Blocking; twice is fine."""
        for share in self._all():
            share.let_go()

    def end(self) -> None:
        """Before the domain is destroyed, whose pages they hold. Blocking; twice is fine.

        One that cannot be ended keeps no other, nor the domain: its process is in the ledger, whose walk tells of it.
        """
        for share in self._all():
            try:
                share.close()
            except (RuntimeFault, OSError) as fault:
                log.warning("%s", fault)

    def _all(self) -> list[Share]:
        with self._lock:
            self._over = True
            found, self._shares = list(self._shares.values()), {}
            return found
