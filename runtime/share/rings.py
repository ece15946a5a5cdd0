"""A ring of the Xen 9pfs transport, as the back end sees it: whole requests out, whole replies in.

The guest shares a page with indices and the grants of the data pages; the first half of the data carries replies ("in",
to the guest), the second one requests ("out"). Either half has 2^(order - 1) pages, and may hold several messages, each
of which begins with its own size. The guest may write anything into these pages at any time: an index is read once and
checked, a message is copied before it is looked at.
Source:  xen/include/public/io/9pfs.h, docs/misc/9pfs.pandoc; net/9p/trans_xen.c of Linux.
"""

from __future__ import annotations

import threading

from runtime.boot.model import GrantRef

# struct xen_9pfs_data_intf: byte offsets in the shared page.
IN_CONS, IN_PROD, OUT_CONS, OUT_PROD, RING_ORDER, REFS = 0, 4, 64, 68, 128, 132
HEADER_BYTES = 7  # of a 9P message: size[4] type[1] tag[2]
_WRAP = 0xFFFFFFFF


class BrokenRing(Exception):
    """The guest's indices or sizes make no sense: nothing that follows can be told from it."""


def read_grants(page: memoryview, *, most_order: int) -> tuple[int, list[GrantRef]]:
    """(order, grants of the data pages) as the guest has written them. Raises BrokenRing.

    Units:   2^order pages.
    """
    with page.cast("I") as words:
        order = int(words[RING_ORDER // 4])
        if not 1 <= order <= most_order:
            raise BrokenRing(f"expected a ring of 2^1 to 2^{most_order} pages, got 2^{order}")
        first = REFS // 4
        return order, [GrantRef(int(word)) for word in words[first : first + (1 << order)]]


class Ring:
    """One ring of mapped pages.

    page:       the page of the indices. data: the pages of both halves, one after the other.
    most_bytes: of one message; longer ones break the ring.
    """

    def __init__(self, page: memoryview, data: memoryview, *, most_bytes: int) -> None:
        self._words = page.cast("I")  # one aligned 32-bit access per index
        self._half_bytes = len(data) // 2
        self._replies, self._requests = data[: self._half_bytes], data[self._half_bytes :]
        self.most_bytes = min(most_bytes, self._half_bytes)  # of what it has room for
        self._fence = threading.Lock()
        # Ours are kept here too: the guest can write to the page's, which are only told.
        self._consumed, self._produced = self._get(OUT_CONS), self._get(IN_PROD)

    def take(self) -> bytes | None:
        """The next whole request, or None. Raises BrokenRing."""
        waiting = self._get(OUT_PROD) - self._consumed & _WRAP
        if waiting > self._half_bytes:
            raise BrokenRing(f"expected at most {self._half_bytes} bytes of requests, got {waiting}")
        if waiting < HEADER_BYTES:
            return None
        size = int.from_bytes(self._copy(4), "little")
        if not HEADER_BYTES <= size <= self.most_bytes:
            raise BrokenRing(f"expected a request of {HEADER_BYTES} to {self.most_bytes} bytes, got {size}")
        if waiting < size:
            return None
        request = self._copy(size)
        self._consumed = self._consumed + size & _WRAP
        # x86 keeps loads before later stores, so the guest cannot refill what has not been copied.
        self._set(OUT_CONS, self._consumed)
        # Copied anew, and by then it may say another size: the one that was checked counts.
        return size.to_bytes(4, "little") + request[4:]

    def put(self, reply: bytes) -> bool:
        """Give the guest a whole reply; False where there is no room for it yet. Raises BrokenRing."""
        used = self._produced - self._get(IN_CONS) & _WRAP
        if used > self._half_bytes:
            raise BrokenRing(f"expected at most {self._half_bytes} bytes of replies, got {used}")
        if len(reply) > self._half_bytes:
            raise BrokenRing(f"expected replies of at most {self._half_bytes} bytes, got one of {len(reply)}")
        if len(reply) > self._half_bytes - used:
            return False
        start = self._produced % self._half_bytes
        first = min(len(reply), self._half_bytes - start)
        self._replies[start : start + first] = reply[:first]
        self._replies[: len(reply) - first] = reply[first:]
        self._produced = self._produced + len(reply) & _WRAP
        self._set(IN_PROD, self._produced)
        with self._fence:  # a full memory barrier: seen before the guest is rung
            return True

    def release(self) -> None:
        """Let go of the pages."""
        for view in (self._words, self._replies, self._requests):
            view.release()

    def _copy(self, size: int) -> bytes:
        start = self._consumed % self._half_bytes
        first = min(size, self._half_bytes - start)
        with self._requests[start : start + first] as head, self._requests[: size - first] as tail:
            return bytes(head) + bytes(tail)

    def _get(self, offset: int) -> int:
        return int(self._words[offset // 4])

    def _set(self, offset: int, value: int) -> None:
        self._words[offset // 4] = value
