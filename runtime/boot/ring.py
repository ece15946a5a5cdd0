"""Our end of a console ring: the page a guest shares, and the event channel beside it.

The guest may write anything into the page at any time: indices are read once, and checked.
Source:  xen/include/public/io/console.h.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from runtime.boot.abi import rings
from runtime.boot.attend import Attendant
from runtime.boot.privcmd import EventChannel

log = logging.getLogger(__name__)


class Ring:
    """The console page, as a view of 32-bit indices and two byte rings."""

    def __init__(self, page: memoryview) -> None:
        self._page = page
        self._words = page.cast("I")  # one aligned 32-bit access per index
        self._fence = threading.Lock()
        self.was_full = self.was_empty = False

    def take_output(self) -> tuple[bytes, bool]:
        """What the guest has written; True when its indices made no sense and were reset.

        Effects: was_full says whether the guest may have seen a full ring, and waits to be told that there is room.
        """
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
        self.was_full = self._get(rings.CONSOLE_OUT_PROD) - consumed & 0xFFFFFFFF >= rings.CONSOLE_OUT_BYTES
        return data, False

    def put_input(self, data: bytes) -> int:
        """Give the guest input; how much of it there was room for.

        Effects: was_empty says whether the guest may have read all that came before, and waits to be told of more.
        """
        produced = self._get(rings.CONSOLE_IN_PROD)
        length = min(len(data), self.input_room())
        start = produced % rings.CONSOLE_IN_BYTES
        first = min(length, rings.CONSOLE_IN_BYTES - start)
        base = rings.CONSOLE_IN_OFFSET
        self._page[base + start : base + start + first] = data[:first]
        self._page[base : base + length - first] = data[first:length]
        self._set(rings.CONSOLE_IN_PROD, produced + length & 0xFFFFFFFF)
        with self._fence:  # a full memory barrier: seen before it is looked whether the guest had stopped reading
            self.was_empty = self._get(rings.CONSOLE_IN_CONS) == produced
        return length

    def input_room(self) -> int:
        """How many bytes of input there is room for; 0 where the indices make no sense."""
        used = self._get(rings.CONSOLE_IN_PROD) - self._get(rings.CONSOLE_IN_CONS) & 0xFFFFFFFF
        return max(0, rings.CONSOLE_IN_BYTES - used)

    def release(self) -> None:
        """Let go of the page."""
        self._words.release()

    def _get(self, offset: int) -> int:
        return int(self._words[offset // 4])

    def _set(self, offset: int, value: int) -> None:
        self._words[offset // 4] = value


class RingEnd:
    """A mapped ring and its bound event channel, attended: `served` is called whenever the guest rang.

    One call per wake-up, which can take what the ring holds and no more: a guest that floods its ring gets its turn
    like any other. All methods but stop() and close() belong to the attendant's thread.
    The guest is rung only where it may wait: Linux makes an event channel that rings for nothing wait for up to a tenth
    of a second (xen_irq_lateeoi with XEN_EOI_FLAG_SPURIOUS; hvc_poll reads until nothing is left, ring or no ring).
    """

    def __init__(
        self,
        mapping: AbstractContextManager[memoryview],
        bind: Callable[[], EventChannel],
        attendant: Attendant,
        served: Callable[[], None],
        *,
        name: str,
    ) -> None:
        self._attendant, self._served, self._name = attendant, served, name
        self._attended = False
        with contextlib.ExitStack() as resources:
            page = resources.enter_context(mapping)
            self._ring = Ring(page)
            resources.callback(self._ring.release)
            self._channel = bind()
            resources.callback(self._channel.close)
            self._resources = resources.pop_all()

    def attend(self) -> None:
        """Begin to be served. Xen has set off the event channel when it was bound, so what waits is seen.

        The guest is rung: whoever had the ring before may have been killed between a byte and its ring.
        """
        self._channel.notify()
        self._attended = True
        self._attendant.watch(self._channel.fileno(), self._woken)

    def take(self) -> tuple[bytes, bool]:
        """What the guest has written, at most the ring; True where its indices made no sense."""
        data, lost = self._ring.take_output()
        if lost or (data and self._ring.was_full):
            self._channel.notify()
        return data, lost

    def put(self, data: bytes) -> int:
        """Give the guest input; how much of it there was room for. When it makes room, it rings."""
        given = self._ring.put_input(data)
        if given and self._ring.was_empty:
            self._channel.notify()
        return given

    @property
    def has_much_room(self) -> bool:
        """Worth giving more input? Linux takes 16 bytes at a time and rings for each; it goes on to the end."""
        return self._ring.input_room() >= rings.CONSOLE_IN_BYTES // 2

    def stop(self) -> None:
        """Be served no more, but keep page and channel. From any thread."""
        # The descriptor's number may be another's after close().
        if self._attended:
            self._attended = False
            self._attendant.unwatch(self._channel.fileno())

    def close(self) -> None:
        """Let go of page and channel; twice is fine. From any thread."""
        self.stop()
        self._resources.close()

    def _woken(self) -> None:
        try:
            self._channel.acknowledge()
            self._served()
        except OSError as problem:
            log.warning("%s stops: %s", self._name, problem)
            self.stop()
