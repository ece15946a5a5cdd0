"""Tells when domains end: a thread on xenstored's @releaseDomain, which asks Xen about each domain it knows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.boot.domain import shutdown_state
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault, XenstoreFault
from runtime.boot.model import Domid

if TYPE_CHECKING:
    from runtime.boot.xenstore import XenStore

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0  # a watch is a hint and may be lost: Xen is asked this often in any case


class Deaths:
    """Calls on_death(domid, reason) once for each domain that ends, from a thread of its own.

    reason: "poweroff", "reboot", "crash", …, as Xen's sched.h has them; "destroyed" where Xen knows it no more.
    """

    def __init__(self, hypervisor: Hypervisor, xenstore: XenStore, on_death: Callable[[Domid, str], None]) -> None:
        self._hypervisor, self._xenstore, self._on_death = hypervisor, xenstore, on_death
        self._domains: dict[Domid, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watch = xenstore.watch("@releaseDomain")
        self._thread = threading.Thread(target=self._run, name="domain deaths", daemon=True)
        self._thread.start()

    def add(self, domid: Domid, uuid: str) -> None:
        """Care for a domain, from before it is unpaused."""
        with self._lock:
            self._domains[domid] = uuid
        self._watch.put(b"@releaseDomain")  # it may have ended already

    def discard(self, domid: Domid) -> None:
        """Care no more."""
        with self._lock:
            self._domains.pop(domid, None)

    def close(self) -> None:
        """Stop the thread. Must not be called from on_death."""
        self._stop.set()
        self._watch.put(b"@releaseDomain")
        self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch.wait(_LOOK_AGAIN_S)
            except XenstoreFault as problem:
                log.warning("%s; asking Xen every %g s", problem, _LOOK_AGAIN_S)
                self._stop.wait(_LOOK_AGAIN_S)
            self._look()

    def _look(self) -> None:
        with self._lock:
            known = dict(self._domains)
        for domid, uuid in known.items():
            try:
                end = shutdown_state(self._hypervisor, domid, uuid)
            except HypervisorFault as problem:
                log.warning("domain %d: %s", domid, problem)
                continue
            with self._lock:
                ended = end is not None and self._domains.get(domid) == uuid
                if ended:
                    del self._domains[domid]
            if ended and end is not None:
                try:
                    self._on_death(domid, end.reason)
                except Exception:
                    log.exception("after the end of domain %d", domid)
