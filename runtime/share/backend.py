"""zoned's part in a share: it follows the zone's driver in xenstore, and has a process serve the rings it offers.

The front end publishes its rings and state 3: the process maps them, and we say state 4. When it closes, the process
ends, and so do we. Whoever comes after a killed zoned finds the process in the ledger, and goes on following.
Everything the front end writes is the guest's: checked, and at worst the end of this guest's own share.
Ledger:  "process" {share, pid, start_time} before a process serves; "process.gone" after it has ended.
Source:  net/9p/trans_xen.c of Linux (xen_9pfs_front_changed); xen/include/public/io/xenbus.h.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.boot import ninepfs, nodes, plugging, pvconsole
from runtime.boot.errors import DeviceFault
from runtime.boot.nodes import XenbusState
from runtime.errors import RuntimeFault
from runtime.net import child
from runtime.net.engine import processes
from runtime.net.errors import EngineFault
from runtime.share.calls import share_filter
from runtime.share.directories import open_directory
from runtime.share.model import READY, ShareConfig, ShareSpec, dump

if TYPE_CHECKING:
    from runtime.boot.domain import Domain
    from runtime.boot.xenstore import Transaction

log = logging.getLogger(__name__)

ENTRY = "from runtime.share.main import main"  # in its command line, which `zone system check` looks for
_CODE = child.code_of(ENTRY)
_LOOK_AGAIN_S = 5.0  # a process that has died is seen then
_READY_S = 60.0  # a loaded host's Python takes its time
_LOOK_CLOSED_S = 0.2  # how long it is waited for before it is looked whether anybody still wants it
_CLOSING_S = 5.0  # for one that looks: its directory may be of a file system that answers no more
_MOST_LINES = 40  # of log that one share may cause
# A zone's driver may come and go as often as it likes, but each process costs a start and two records of the ledger:
# after so many they are so far apart.
_STARTS_AT_ONCE, _APART_S = 16, 60.0
_OFFERED = (XenbusState.INITIALISED, XenbusState.CONNECTED)
_OVER = (XenbusState.CLOSING, XenbusState.CLOSED)


def end_processes(records: Iterable[Mapping[str, Any]]) -> None:
    """End those that a ledger names and has not seen end. Raises EngineFault where one does not; the others have."""
    first: EngineFault | None = None
    for process in running(records):
        try:
            processes.kill(*process)
        except EngineFault as fault:  # it may be within a file system that answers no more
            first = first or fault
    if first is not None:
        raise first


def running(records: Iterable[Mapping[str, Any]]) -> set[tuple[int, int]]:
    """(pid, start time) of those that ledgers name and have not seen end."""
    left: set[tuple[int, int]] = set()
    for record in records:
        if record["kind"] in ("process", "process.gone") and "share" in record:
            process = int(record["pid"]), int(record["start_time"])
            (left.add if record["kind"] == "process" else left.discard)(process)
    return left


def _server_of(records: Iterable[Mapping[str, Any]], number: int) -> tuple[int, int] | None:
    """(pid, start time) of the process that a ledger names last for a share."""
    found = None
    for record in records:
        if record["kind"] in ("process", "process.gone") and record.get("share") == number:
            found = (int(record["pid"]), int(record["start_time"])) if record["kind"] == "process" else None
    return found


class Share:
    """A share of a running zone. Its methods may be called from any thread.

    record:  the ledger's.
    Effects: a thread, and a process while the zone's driver is there.
    """

    def __init__(
        self,
        domain: Domain,
        spec: ShareSpec,
        record: Callable[..., None],
        log_file: Path,
        *,
        private: Sequence[Path] = (),
        records: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """private: see open_directory. records: of the ledger, where an earlier zoned began this share.

        Raises:  XenstoreFault.
        """
        self._domain, self._spec, self._record, self._log_file = domain, spec, record, log_file
        self._private = private
        self._whose = f"zone {domain.name}, directory {spec.path}"
        place = (nodes.SHARE, spec.number)
        self._frontend = nodes.frontend_path(domain.domid, *place)
        self._backend = nodes.backend_path(ninepfs.BACKEND_DOMID, domain.domid, *place)
        self._refused: tuple[ninepfs.Offer, ...] = ()
        self._lines, self._problem = _MOST_LINES, ""
        self._starts, self._started = 0, 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._server = _server_of(records, spec.number)
        self._news, self._closed, self._connected = threading.Event(), threading.Event(), threading.Event()
        self._watch = domain.xenstore.watch(f"{self._frontend}/state", self._news.set)
        self._thread = threading.Thread(target=self._follow, name=f"share {domain.domid}-{spec.number}", daemon=True)
        self._thread.start()

    def connected(self) -> bool:
        """Can the zone mount it? As long as its driver has offered no rings, nothing of this tag is found there.

        Raises:  DomainGone, or DeviceFault where nobody follows it any more: it never will be.
        """
        if self._connected.is_set():
            return True
        if self._domain.shutdown_state() is not None:
            raise plugging.ended(self._domain)
        if self._closed.is_set():
            raise self.not_connected("it is served no more")
        return False

    def not_connected(self, got: str) -> DeviceFault:
        """What there is to say of it then. got: where it has not said itself what stands in the way."""
        expected, got = "the zone's driver to connect", self._problem or got
        return DeviceFault(self._whose, expected=expected, got=got, temporary=not self._problem)

    def let_go(self) -> None:
        """Follow no more; its process serves on, and whoever comes next finds it in the ledger. Twice is fine."""
        self._closed.set()
        self._news.set()
        self._thread.join(_CLOSING_S)
        if self._thread.is_alive():
            log.warning("%s: it does not answer, and is not waited for", self._whose)
        self._watch.close()

    def close(self) -> None:
        """End it: before the domain is destroyed, whose pages its process holds. Twice is fine."""
        self.let_go()
        self._end()

    # -- the front end's state, in the thread

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._news.clear()
            try:
                self._look()
            except (RuntimeFault, OSError) as problem:
                if not self._closed.is_set():
                    self._tell(str(problem))
            self._news.wait(_LOOK_AGAIN_S)

    def _look(self) -> None:
        if self._server is not None and processes.start_time_of(self._server[0]) != self._server[1]:
            self._tell(f"its process ended: {self._last_words()}")
            self._end()
            self._say(XenbusState.CLOSED)
            return
        state = pvconsole.frontend_state(self._domain.xenstore.read(f"{self._frontend}/state"))
        if state in _OFFERED:
            self._serve()
        elif state in _OVER:
            self._end()
            if self._state() is not state:  # as of a channel: a Linux that shuts down waits for its own state
                self._say(state)
        elif state is XenbusState.INITIALISING and self._state() in _OVER:
            self._say(XenbusState.INIT_WAIT)

    def _serve(self) -> None:
        if self._server is not None:
            return
        rings = ninepfs.offered(self._domain.xenstore.read, self._frontend)
        if isinstance(rings, str):
            raise DeviceFault(self._whose, expected="rings of its driver", got=rings)
        if rings == self._refused:
            return  # these could not be served; others may be offered yet
        if self._starts >= _STARTS_AT_ONCE and time.monotonic() < self._started + _APART_S:
            return  # looked at again in a while
        self._starts, self._started = self._starts + 1, time.monotonic()
        self._refused = rings
        self._start(rings)
        self._refused = ()
        if self._state() is not XenbusState.CONNECTED:
            self._say(XenbusState.CONNECTED)
        self._connected.set()

    def _start(self, rings: tuple[ninepfs.Offer, ...]) -> None:
        directory = open_directory(self._spec.path, self._whose, self._private)
        ready, told = os.pipe2(os.O_CLOEXEC)
        try:
            self._wanted()
            with open(self._log_file, "ab", buffering=0) as said:
                started = self._child = child.start(_CODE, (directory, told), said)
            os.close(told)
            inherited, told = told, -1  # it has that number there, too
            self._server = started.pid, processes.start_time_of(started.pid) or 0
            # Before it is told of the domain: until then it holds nothing, and ends with whoever has not told it.
            self._tell_ledger("process")
            place = self._domain.domid, rings, directory
            child.tell(started, dump(ShareConfig(*place, self._spec.readonly, inherited, share_filter())))
            self._wait_ready(ready, started)
        except BaseException:
            self._end()
            raise
        finally:
            for descriptor in (directory, ready, told):
                if descriptor >= 0:
                    os.close(descriptor)

    def _wait_ready(self, ready: int, started: subprocess.Popen[bytes]) -> None:
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        deadline = time.monotonic() + _READY_S
        while not poll.poll(_LOOK_CLOSED_S * 1000):
            self._wanted()
            if time.monotonic() > deadline:
                expected = f"its process to serve within {_READY_S:g} s"
                raise DeviceFault(self._whose, expected=expected, got="nothing of it")
        if os.read(ready, len(READY)) != READY:
            raise DeviceFault(self._whose, expected="its process to serve", got=f"it ended: {self._last_words()}")

    def _wanted(self) -> None:
        """Raises DeviceFault where it has been closed: none waits for what would begin now."""
        if self._closed.is_set():
            raise DeviceFault(self._whose, got="it is served no more")

    def _end(self) -> None:
        if self._server is None:
            return
        processes.kill(*self._server)
        if self._child is not None:
            self._child.wait()
            self._child = None
        self._tell_ledger("process.gone")
        self._server = None

    def _tell_ledger(self, kind: str) -> None:
        assert self._server is not None
        pid, start_time = self._server
        self._record(kind, share=self._spec.number, pid=pid, start_time=start_time)

    def _last_words(self) -> str:
        return child.last_words(self._child, self._log_file)

    def _tell(self, what: str) -> None:
        """Log what the zone does, which may do it as often as it likes."""
        self._problem = what
        if self._lines > 0:
            self._lines -= 1
            log.warning("%s: %s%s", self._whose, what, "" if self._lines else "; no more is told of it")

    def _state(self) -> XenbusState:
        return pvconsole.frontend_state(self._domain.xenstore.read(f"{self._backend}/state"))

    def _say(self, state: XenbusState) -> None:
        def write(transaction: Transaction) -> None:
            # A teardown may have been faster: its tree must not come back.
            if transaction.read(f"{self._backend}/frontend") is not None:
                transaction.write(f"{self._backend}/state", str(state.value))

        self._domain.xenstore.transaction(write)
