"""A zone's console, hvc0: what the guest prints goes into a bounded log file, and input the other way."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from array import array
from functools import partial
from pathlib import Path

from runtime.boot import attend
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Domid, EvtchnPort, Mfn
from runtime.boot.ring import RingEnd

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 4 << 20  # of each of the two files, the log and its predecessor ".1"
MAX_PENDING_INPUT_BYTES = 64 << 10
_LOST = b"\n[zonewright: the zone overwrote its console ring; some output is lost]\n"


class LogFile:
    """A file that is renamed to NAME.1 when it is full."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._failing = False
        self._file = self._open()

    def _open(self) -> io.FileIO:
        return io.FileIO(self._path, "a")

    def write(self, data: bytes) -> None:
        """Append. A full disk costs the output, never the zone."""
        try:
            if self._file.closed:  # it could not be opened again the last time
                self._file = self._open()
            if self._file.tell() + len(data) > self._max_bytes:
                self._file.close()
                os.replace(self._path, f"{self._path}.1")
                self._file = self._open()
            self._file.write(data)
            self._failing = False
        except OSError as problem:
            if not self._failing:  # once: a zone prints as often as it likes, and zoned's log may lie beside this
                log.warning("console log %s: %s", self._path, problem)
            self._failing = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Console:
    """The running console of one domain; closed before its domain is destroyed, as it holds one of its pages."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        domid: Domid,
        mfn: Mfn,
        port: EvtchnPort,
        log_path: Path,
        *,
        name: str = "",
        attendant: attend.Attendant | None = None,
    ) -> None:
        self.log_path = log_path
        self._attendant = attendant or attend.shared()
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._closed = False
        with contextlib.ExitStack() as resources:
            self._log = LogFile(log_path)
            resources.callback(self._log.close)
            self._ring = RingEnd(
                hypervisor.map_foreign(domid, array("Q", [mfn])),
                partial(hypervisor.bind, domid, port),
                self._attendant,
                self._exchange,
                name=f"console of {name or domid}",
            )
            resources.callback(self._ring.close)
            self._ring.attend()
            self._resources = resources.pop_all()

    def write(self, data: bytes) -> int:
        """Queue input for the guest; how many bytes were taken (a guest that reads nothing has a full queue)."""
        with self._lock:
            if self._closed:
                return 0
            taken = data[: MAX_PENDING_INPUT_BYTES - len(self._pending)]
            self._pending += taken
        self._attendant.soon(self._give_input)
        return len(taken)

    def tail(self, max_bytes: int = 4096) -> str:
        """The end of the log."""
        try:
            with open(self.log_path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - max_bytes))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def close(self) -> None:
        """Take what is left in the ring, let go of page and channel; twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._ring.stop()
        try:
            self._take_output()
        except OSError as problem:
            log.warning("console %s: %s", self.log_path, problem)
        self._resources.close()

    def _exchange(self) -> None:
        self._take_output()
        self._give_input()

    def _take_output(self) -> None:
        data, lost = self._ring.take()
        if lost:
            self._log.write(_LOST)
        if data:
            self._log.write(data)

    def _give_input(self) -> None:
        with self._lock:
            if self._pending and not self._closed:
                del self._pending[: self._ring.put(bytes(self._pending))]
