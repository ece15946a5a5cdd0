"""Watches the engines of all networks and puts a new one in the place of each that ends; tells them of name servers.

One thread sleeps on the processes' descriptors; each revival is a thread of its own, as a slow one must not delay
others. An engine that keeps dying is tried less and less often. Another thread asks them all whether they serve, and
ends one that runs and stays silent: what it has of zones nobody could take back otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.net.engine import processes
from runtime.net.engine.interface import EngineHandle
from runtime.net.errors import EngineFault, SilentEngine
from runtime.net.network import ZoneNetwork
from runtime.net.resolvers import RESOLV_CONF, FileWatch
from runtime.net.segment import Segment

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
STEADY_S = 10.0  # an engine that lived so long did not die of its start
# Together twice the 60 s that an engine may take to start on a slow machine (network.ENGINE_READY_TIMEOUT_S): to
# end one that would have answered costs its zones their connections.
LOOK_S = 30.0  # between one question and the next
ANSWER_S = 20.0  # as any other question to an engine has
MOST_SILENCES = 3  # one after the other

Network = Segment | ZoneNetwork
# Network, "died", "revived" or "failed", a sentence.
OnEvent = Callable[[Network, str, str], None]


def delay_s(deaths: int) -> float:
    """How long to wait after that many deaths shortly one after the other: not at all after the first."""
    return 0.0 if deaths <= 1 else min(FIRST_DELAY_S * 2.0 ** min(deaths - 2, 20), LONGEST_DELAY_S)


def _whose(network: Network) -> str:
    return network.whose if isinstance(network, Segment) else network.segment.whose


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


@dataclass
class _Watched:
    network: Network
    pidfd: int = -1
    deaths: int = 0
    since: float = 0.0
    asked: EngineHandle | None = None
    silences: int = 0  # of the one that was asked, since it answered last


class EngineSupervisor:
    """Cares for the engines of the networks it is told of.

    resolv_conf:  when it changes, all engines are told.
    Threads: revivals happen in the network namespace of the thread that makes the supervisor, and where an engine is
    dead already, of the one that adds it: the host's.
    """

    def __init__(
        self, on_event: OnEvent = lambda network, event, text: None, *, resolv_conf: Path = RESOLV_CONF
    ) -> None:
        self._on_event = on_event
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._revivals: set[threading.Thread] = set()
        self._poll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._file: FileWatch | None = None
        try:
            self._file = FileWatch(resolv_conf)
            self._poll.register(self._file.fd, select.EPOLLIN)
        except OSError as error:
            log.warning("changes of %s will be seen by new engines only: %s", resolv_conf, error)
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._thread.start()
        threading.Thread(target=self._ask_all, name="silent engines", daemon=True).start()

    def add(self, network: Network) -> None:
        """Care for a network whose engine has been started; one that is dead already is replaced at once."""
        entry = _Watched(network)
        with self._lock:
            self._watched[network.netns] = entry
        self._watch(entry)

    def discard(self, network: Network) -> None:
        """Care no more: before the network is destroyed."""
        with self._lock:
            entry = self._watched.pop(network.netns, None)
            if entry is not None:
                self._forget(entry)

    def close(self) -> None:
        """Stop; engines go on. Waits for revivals under way."""
        self._stopping.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"q")
        self._thread.join()
        for revival in list(self._revivals):
            revival.join()
        with self._lock:
            for entry in self._watched.values():
                self._forget(entry)
        self._poll.close()
        if self._file is not None:
            self._file.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _watch(self, entry: _Watched) -> None:
        handle = entry.network.engine
        pidfd = processes.hold(handle.pid, handle.start_time) if handle is not None else None
        with self._lock:
            if self._watched.get(entry.network.netns) is not entry:
                if pidfd is not None:
                    os.close(pidfd)
                return
            entry.since = time.monotonic()
            if pidfd is not None:
                entry.pidfd = pidfd
                self._poll.register(pidfd, select.EPOLLIN)
        if pidfd is None:
            self._died(entry)

    def _forget(self, entry: _Watched) -> None:
        if entry.pidfd >= 0:
            self._poll.unregister(entry.pidfd)
            os.close(entry.pidfd)
            entry.pidfd = -1

    def _run(self) -> None:
        while not self._stopping.is_set():
            ready = {fd for fd, _ in self._poll.poll()}
            with self._lock:
                # Asked again: since the poll a network may have been given up, and another may have its number.
                ended = [entry for entry in self._watched.values() if entry.pidfd in ready and _ended(entry.pidfd)]
                for entry in ended:
                    self._forget(entry)
            for entry in ended:
                self._died(entry)
            if self._file is not None and self._file.fd in ready:
                self._look_at_resolvers(self._file)

    def _look_at_resolvers(self, file: FileWatch) -> None:
        try:
            if not file.changed():
                return
        except OSError as error:
            log.warning("name servers: %s", error)
            self._poll.unregister(file.fd)
            return
        # A thread of its own: an engine that hangs is asked for long.
        try:
            threading.Thread(target=self._resolve_again, name="name servers", daemon=True).start()
        except RuntimeError as error:
            log.warning("name servers: %s", error)
            self._resolve_again()

    def _resolve_again(self) -> None:
        with self._lock:
            networks = [entry.network for entry in self._watched.values()]
        for network in networks:
            try:
                network.resolve_again()
            except RuntimeFault as fault:  # the engine that comes in its place reads the file
                log.info("%s", fault)

    def _ask_all(self) -> None:
        # One after the other: where many are silent at once it is the machine that stands still, and each has longer.
        while not self._stopping.wait(LOOK_S):
            with self._lock:
                entries = list(self._watched.values())
            for entry in entries:
                if self._stopping.is_set():
                    return
                try:
                    self._ask(entry)
                except RuntimeFault as fault:  # it does not end; the next look tries again
                    log.error("%s", fault)
                except Exception:
                    log.exception("asking the network engine of %s", _whose(entry.network))

    def _ask(self, entry: _Watched) -> None:
        """Count how often an engine that runs is silent; end it when that is enough. Raises EngineFault."""
        handle = entry.network.engine
        if handle is None or not handle.alive():
            return
        if handle is not entry.asked:
            entry.asked, entry.silences = handle, 0
        try:
            handle.wait_ready(ANSWER_S)
            entry.silences = 0
        except SilentEngine as fault:
            entry.silences += 1
            log.warning("%s, %d times in a row", fault, entry.silences)
        except RuntimeFault:  # a refusal is an answer; what this process is short of says nothing of the engine
            entry.silences = 0
        if entry.silences >= MOST_SILENCES and self._wanted(entry) and not self._stopping.is_set():
            handle.stop()  # its descriptor tells the rest

    def _last_words(self, entry: _Watched) -> str:
        handle = entry.network.engine
        if handle is None:
            return "no message"
        if handle is entry.asked and entry.silences >= MOST_SILENCES:
            return f"it did not answer {entry.silences} times in a row, {ANSWER_S:g} s each, and was killed"
        return handle.last_words()

    def _died(self, entry: _Watched) -> None:
        steady = time.monotonic() - entry.since > STEADY_S
        entry.deaths = 1 if steady else entry.deaths + 1
        revival = threading.Thread(target=self._revive, args=(entry,), name=f"revive {entry.network.name}", daemon=True)
        self._revivals.add(revival)
        try:
            revival.start()
        except RuntimeError as error:  # this process may have no more threads: the other networks wait for this one
            self._revivals.discard(revival)
            log.warning("reviving the network engine of %s: %s", _whose(entry.network), error)
            self._revive(entry)

    def _revive(self, entry: _Watched) -> None:
        network = entry.network
        try:
            self._tell(network, "died", f"the network engine of {_whose(network)} ended: {self._last_words(entry)}")
            only_dead = True  # a zone that boots may have had it replaced
            while self._wanted(entry) and not self._stopping.wait(delay_s(entry.deaths)) and self._wanted(entry):
                try:
                    done = self._replace(network, only_dead=only_dead)
                except Exception as error:  # such as no descriptor left, which says nothing of the engine
                    log.exception("reviving the network engine of %s", _whose(network))
                    self._tell(network, "failed", repr(error))
                    done = False
                if done:
                    self._tell(network, "revived", f"the network engine of {_whose(network)} runs again")
                    self._watch_at_last(entry)
                    return
                only_dead = False
                entry.deaths += 1
        finally:
            self._revivals.discard(threading.current_thread())

    def _replace(self, network: Network, *, only_dead: bool) -> bool:
        """Put a new engine in the place of one that died; False where that is to be tried again."""
        try:
            network.revive(only_dead=only_dead)
        except RuntimeFault as fault:
            self._tell(network, "failed", str(fault))
            # One that refuses a zone serves the others: to end it would cost them their connections.
            silent = isinstance(fault, EngineFault) and fault.temporary
            return not silent and network.alive()
        return True

    def _watch_at_last(self, entry: _Watched) -> None:
        """`_watch`, once there is a descriptor for it: an engine that nobody watches would never be replaced."""
        while self._wanted(entry):
            try:
                self._watch(entry)
                return
            except OSError as error:
                log.warning("watching the network engine of %s: %s", _whose(entry.network), error)
            if self._stopping.wait(FIRST_DELAY_S):
                return

    def _wanted(self, entry: _Watched) -> bool:
        with self._lock:
            return self._watched.get(entry.network.netns) is entry

    def _tell(self, network: Network, event: str, text: str) -> None:
        log.info("%s: %s", event, text)
        try:
            self._on_event(network, event, text)
        except Exception:
            log.exception("told of %s", text)
