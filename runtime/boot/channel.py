"""The back end of a zone's second console, which carries the bytes of its agent channel.

The front end publishes ring-ref, port and state 3; we map the grant, bind the event channel and say state 4. When it
closes, so do we, state by state: a Linux that shuts down hears only of a back end that is closing (5), not of one that
has closed (6), and waits 5 s for it. Whoever comes after a killed process maps the same grant and binds the same port
again: nothing of that is written in xenstore, so the guest notices no more than a pause.

Everything the front end writes is the guest's: checked, and at worst the end of this guest's own channel.
Source:  drivers/tty/hvc/hvc_xen.c (xencons_connect_backend, xencons_backend_changed), drivers/xen/xenbus/xenbus_probe.c
         (xenbus_dev_shutdown, xenbus_otherend_changed); xen/include/public/io/xenbus.h.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol

from runtime.boot import attend, nodes, pvconsole
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Domid
from runtime.boot.nodes import XenbusState
from runtime.boot.ring import RingEnd
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from runtime.boot.xenstore import Transaction, XenStore

log = logging.getLogger(__name__)

_FIRST_EVENT_S = 20.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0  # before another look, where one came to nothing
_MOST_LINES = 40  # of log that one channel may cause
_READY = (XenbusState.INITIALISED, XenbusState.CONNECTED)
_OVER = (XenbusState.CLOSING, XenbusState.CLOSED)


class Receiver(Protocol):
    """Who takes a channel's bytes. All of it is called in the attendant's thread."""

    def connected(self) -> None:
        """The guest's driver is there; bytes may be written."""

    def received(self, data: bytes) -> None:
        """Bytes from the guest, at most what the ring holds."""

    def writable(self) -> None:
        """There is room again, after a write that was not taken whole."""

    def disconnected(self, reason: str) -> None:
        """The guest's driver is gone, or was refused; connected() may follow."""


class Channel:
    """The back end. `start` gives it its receiver; before, bytes wait in the ring.

    Effects: holds a page of the guest while connected: closed before the domain is destroyed.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        xenstore: XenStore,
        domid: Domid,
        *,
        name: str = "",
        attendant: attend.Attendant | None = None,
    ) -> None:
        """Look at the front end, and connect where it is ready. Blocks for that.

        Raises:  XenstoreFault; NotOnXen, HypervisorFault where this host is short of something.
        """
        self._hypervisor, self._xenstore, self._domid = hypervisor, xenstore, domid
        self._name = f"agent channel of {name or domid}"
        self._attendant = attendant or attend.shared()
        self._backend = nodes.backend_path(pvconsole.BACKEND_DOMID, domid, nodes.CONSOLE, pvconsole.NUMBER)
        self._frontend = nodes.frontend_path(domid, nodes.CONSOLE, pvconsole.NUMBER)
        self._looking = threading.Lock()  # one look at a time
        self._lock = threading.Lock()  # of ring, reason, receiver and closed; never held while something waits
        self._ring: RingEnd | None = None
        self._reason = ""
        self._receiver: Receiver | None = None
        self._closed = False
        self._refused: pvconsole.Published | None = None
        self._asked = True  # no look before the one below
        self._pause_s = _FIRST_PAUSE_S
        self._timer: threading.Timer | None = None
        self._short = False  # belongs to the attendant's thread
        self._lines = _MOST_LINES
        self._watch = xenstore.watch(f"{self._frontend}/state", self._changed)
        try:
            self._watch.wait(_FIRST_EVENT_S)  # a watch fires once when it is set
            self._look()
        except BaseException:
            self.close()
            raise

    # -- for the receiver, in the attendant's thread

    def start(self, receiver: Receiver) -> None:
        """Give bytes to `receiver` from now on; it hears connected() or disconnected() at once, if one is so."""
        with self._lock:
            self._receiver = receiver
            ring, reason = self._ring, self._reason
        if ring is not None:
            self._begin(ring)
        elif reason:
            receiver.disconnected(reason)

    def write(self, data: bytes) -> int:
        """Give the guest bytes; how many of them the ring had room for. After fewer than all, writable() follows."""
        ring = self._ring
        taken = ring.put(data) if ring is not None else 0
        self._short = taken < len(data)
        return taken

    def close(self) -> None:
        """Let go of ring and watch; twice is fine. From any thread. The guest is told nothing."""
        with self._lock:
            self._closed = True
            self._receiver = None
            ring, self._ring = self._ring, None
            if self._timer is not None:
                self._timer.cancel()
        if ring is not None:
            ring.close()
        self._watch.close()

    # -- the ring, in the attendant's thread

    def _begin(self, ring: RingEnd) -> None:
        with self._lock:
            receiver = self._receiver
            if ring is not self._ring or receiver is None:
                return
            self._short = False
            ring.attend()
        receiver.connected()

    def _serve(self) -> None:
        ring, receiver = self._ring, self._receiver
        if ring is None or receiver is None:
            return
        data, lost = ring.take()
        if lost:
            self._tell(logging.WARNING, "the zone overwrote the ring's indices")
        if data:
            receiver.received(data)
        if self._short and ring.has_much_room:
            self._short = False
            receiver.writable()

    # -- the front end's state, in the worker

    def _changed(self) -> None:
        """Called for each event of the watch; a guest may make any number of them: one look that waits is enough."""
        if not self._asked:
            self._asked = True
            self._attendant.work(self._look_again)

    def _look_again(self) -> None:
        try:
            self._look()
            self._pause_s = _FIRST_PAUSE_S
        except RuntimeFault as problem:
            self._tell(logging.WARNING, str(problem))
            self._look_later()

    def _look_later(self) -> None:
        """The guest, which has done its part, may cause no other event."""
        with self._lock:
            if self._closed:
                return
            self._timer = threading.Timer(self._pause_s, self._changed)
            self._timer.daemon = True
            self._timer.start()
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _look(self) -> None:
        with self._looking:
            self._asked = False
            self._watch.take()
            if self._closed:
                return
            state = pvconsole.frontend_state(self._xenstore.read(f"{self._frontend}/state"))
            if state in _READY:
                self._connect()
            elif state in _OVER:
                self._disconnect("the zone closed it", state)
            elif state is XenbusState.INITIALISING and self._state() in _OVER:
                self._say(XenbusState.INIT_WAIT)

    def _connect(self) -> None:
        if self._ring is not None:
            return
        read = self._xenstore.read
        reference, port = read(f"{self._frontend}/ring-ref"), read(f"{self._frontend}/port")
        offered = pvconsole.published(reference, port)
        if offered is None:
            self._disconnect(f"expected a ring-ref and a port, got {reference!r:.20} and {port!r:.20}")
            return
        if offered == self._refused:
            return
        try:
            ring = RingEnd(
                self._hypervisor.map_grant(self._domid, offered.reference),
                partial(self._hypervisor.bind, self._domid, offered.port),
                self._attendant,
                self._serve,
                name=self._name,
            )
        except RuntimeFault as problem:
            if problem.temporary:  # nothing is wrong with what it offers
                raise
            self._refused = offered
            self._disconnect(str(problem))
            return
        with self._lock:
            wanted = not self._closed
            if wanted:
                self._ring, self._reason = ring, ""
            receiver = self._receiver
        if not wanted:
            ring.close()
            return
        if self._state() is not XenbusState.CONNECTED:
            self._say(XenbusState.CONNECTED)
        if receiver is not None:
            self._attendant.soon(partial(self._begin, ring))

    def _disconnect(self, reason: str, state: XenbusState = XenbusState.CLOSED) -> None:
        """Let go of the ring, if there is one, and close our half too: the front end's page is its own again."""
        with self._lock:
            ring, self._ring = self._ring, None
            news = ring is not None or not self._reason
            if news:
                self._reason = reason
            receiver = self._receiver
        if ring is not None:
            ring.close()
        if news:
            self._tell(logging.INFO, reason)
        if self._state() is not state:
            self._say(state)
        if news and receiver is not None:
            self._attendant.soon(partial(receiver.disconnected, reason))

    def _tell(self, level: int, what: str) -> None:
        """Log what the zone does, which may do it as often as it likes: the log would fill the disk of the ledgers."""
        if self._lines > 0:
            self._lines -= 1
            log.log(level, "%s: %s%s", self._name, what, "" if self._lines else "; no more is told of it")

    def _state(self) -> XenbusState:
        return pvconsole.frontend_state(self._xenstore.read(f"{self._backend}/state"))

    def _say(self, state: XenbusState) -> None:
        def write(transaction: Transaction) -> None:
            # A teardown may have been faster: its tree must not come back.
            if transaction.read(f"{self._backend}/frontend") is not None:
                transaction.write(f"{self._backend}/state", str(state.value))

        self._xenstore.transaction(write)
