"""A zone's console: a thread that moves what the guest prints into a bounded log file, and input the other way.

The ring is shared with the guest, which may write anything into it at any time: indices are read once, and checked.
Source:  xen/include/public/io/console.h.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import threading
from array import array
from pathlib import Path

from runtime.boot.abi import rings
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Domid, EvtchnPort, Mfn

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 4 << 20  # of each of the two files, the log and its predecessor ".1"
MAX_PENDING_INPUT_BYTES = 64 << 10
_LOST = b"\n[zonewright: the zone overwrote its console ring; some output is lost]\n"


class LogFile:
    """A file that is renamed to NAME.1 when it is full."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._file = self._open()

    def _open(self) -> io.FileIO:
        return io.FileIO(self._path, "a")

    def write(self, data: bytes) -> None:
        """Append. A full disk costs the output, never the zone."""
        try:
            if self._file.tell() + len(data) > self._max_bytes:
                self._file.close()
                os.replace(self._path, f"{self._path}.1")
                self._file = self._open()
            self._file.write(data)
        except OSError as problem:
            log.warning("console log %s: %s", self._path, problem)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Ring:
    """The console page, as a view of 32-bit indices and two byte rings."""

    def __init__(self, page: memoryview) -> None:
        self._page = page
        self._words = page.cast("I")  # one aligned 32-bit access per index

    def take_output(self) -> tuple[bytes, bool]:
        """What the guest has written; True when its indices made no sense and were reset."""
        consumed, produced = self._get(rings.CONSOLE_OUT_CONS), self._get(rings.CONSOLE_OUT_PROD)
        length = produced - consumed & 0xFFFFFFFF
        if length > rings.CONSOLE_OUT_BYTES:
            self._set(rings.CONSOLE_OUT_CONS, produced)
            return b"", True
        start = consumed % rings.CONSOLE_OUT_BYTES
        first = min(length, rings.CONSOLE_OUT_BYTES - start)
        base = rings.CONSOLE_OUT_OFFSET
        with self._page[base + start : base + start + first] as head, self._page[base : base + length - first] as tail:
            data = bytes(head) + bytes(tail)
        # x86 keeps loads before later stores, so the guest cannot refill what has not been copied.
        self._set(rings.CONSOLE_OUT_CONS, produced)
        return data, False

    def put_input(self, data: bytes) -> int:
        """Give the guest input; how much of it there was room for."""
        consumed, produced = self._get(rings.CONSOLE_IN_CONS), self._get(rings.CONSOLE_IN_PROD)
        used = produced - consumed & 0xFFFFFFFF
        if used > rings.CONSOLE_IN_BYTES:
            return 0
        length = min(len(data), rings.CONSOLE_IN_BYTES - used)
        start = produced % rings.CONSOLE_IN_BYTES
        first = min(length, rings.CONSOLE_IN_BYTES - start)
        base = rings.CONSOLE_IN_OFFSET
        self._page[base + start : base + start + first] = data[:first]
        self._page[base : base + length - first] = data[first:length]
        self._set(rings.CONSOLE_IN_PROD, produced + length & 0xFFFFFFFF)
        return length

    def release(self) -> None:
        """Let go of the page."""
        self._words.release()

    def _get(self, offset: int) -> int:
        return int(self._words[offset // 4])

    def _set(self, offset: int, value: int) -> None:
        self._words[offset // 4] = value


class Console:
    """The running console of one domain; closed before its domain is destroyed, as it holds one of its pages."""

    def __init__(
        self, hypervisor: Hypervisor, domid: Domid, mfn: Mfn, port: EvtchnPort, log_path: Path, *, name: str = ""
    ) -> None:
        self.log_path = log_path
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._closed = False
        with contextlib.ExitStack() as resources:
            self._log = LogFile(log_path)
            resources.callback(self._log.close)
            page = resources.enter_context(hypervisor.map_foreign(domid, array("Q", [mfn])))
            self._ring = Ring(page)
            resources.callback(self._ring.release)
            self._channel = hypervisor.bind(domid, port)
            resources.callback(self._channel.close)
            self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            resources.callback(os.close, self._wake_read)
            resources.callback(os.close, self._wake_write)
            self._thread = threading.Thread(target=self._run, name=f"console {name or domid}", daemon=True)
            self._thread.start()
            self._resources = resources.pop_all()

    def write(self, data: bytes) -> int:
        """Queue input for the guest; how many bytes were taken (a guest that reads nothing has a full queue)."""
        with self._lock:
            if self._closed:
                return 0
            taken = data[: MAX_PENDING_INPUT_BYTES - len(self._pending)]
            self._pending += taken
        self._wake(b"i")
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
        """Take what is left in the ring, stop the thread, let go of page and channel; twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake(b"q")
        self._thread.join()
        self._resources.close()

    def _wake(self, word: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, word)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        try:
            while True:
                self._exchange()
                if self._closed:
                    return
                for descriptor, _ in poll.poll():
                    if descriptor == self._wake_read:
                        os.read(self._wake_read, 4096)
                    else:
                        self._channel.acknowledge()
        except OSError as problem:
            log.warning("console %s stops: %s", self.log_path, problem)

    def _exchange(self) -> None:
        data, lost = self._ring.take_output()
        if lost:
            self._log.write(_LOST)
        if data:
            self._log.write(data)
        with self._lock:
            given = self._ring.put_input(bytes(self._pending)) if self._pending else 0
            del self._pending[:given]
        if data or given or lost:
            self._channel.notify()
