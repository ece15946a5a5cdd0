"""The guest's half of a console ring, and a Xen whose pages are truly shared with it."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.hypervisor import FakeDomain, FakeXen

OUT, OUT_CONS, OUT_PROD, IN_CONS, IN_PROD = 1024, 3080, 3084, 3072, 3076


class Guest:
    """The guest's half of a ring."""

    def __init__(self) -> None:
        self.page = bytearray(4096)

    def get(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.page, offset)[0])

    def set(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.page, offset, value & 0xFFFFFFFF)

    def room(self) -> int:
        return 2048 - (self.get(OUT_PROD) - self.get(OUT_CONS) & 0xFFFFFFFF)

    def say(self, data: bytes) -> None:
        produced = self.get(OUT_PROD)
        for index, byte in enumerate(data):
            self.page[OUT + (produced + index) % 2048] = byte
        self.set(OUT_PROD, produced + len(data))

    def hear(self) -> bytes:
        consumed, produced = self.get(IN_CONS), self.get(IN_PROD)
        self.set(IN_CONS, produced)
        return bytes(self.page[(consumed + index) % 1024] for index in range(produced - consumed & 0xFFFFFFFF))


class SharedXen(FakeXen):
    """Domain 1 runs; its console page (mfn 9) is shared, and so is the page it grants under reference 8."""

    PORT, CHANNEL_PORT, REFERENCE = 2, 5, 8

    def __init__(self) -> None:
        super().__init__()
        self.guest, self.agent = Guest(), Guest()
        unbound = {self.PORT: 0, self.CHANNEL_PORT: 0}
        self.domains[1] = FakeDomain("u", bytes(16), unbound=unbound, granted={self.REFERENCE: self.agent.page})
        self.shared = 0

    @contextmanager
    def map_foreign(self, domid: int, mfns: array[int]) -> Iterator[memoryview]:
        self.shared += 1
        view = memoryview(self.guest.page)
        try:
            yield view
        finally:
            view.release()
            self.shared -= 1


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
