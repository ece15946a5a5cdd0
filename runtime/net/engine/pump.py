"""One direction of a connection: bytes from a source to a sink, at most one chunk of them in between.

A chunk is copied (recv, send) until one comes that fills the buffer; what follows is spliced through a pipe, which
takes up to 1 MiB of pages from the source and hands the same pages to the sink. Both cost two system calls, but a
splice has more to do in each: a byte that goes back and forth takes a tenth longer, while a stream takes a third of the
CPU time. A splice that brought little ends it; where no pipe can be had, streams are copied, too.

The source is read only when nothing is left in between. That it has nothing, or has ended, recv alone can say: a splice
stands still in front of an urgent byte, with "try again", or as if at the end once that has come behind it. recv leaves
the byte out, as it does for whoever does not ask for it; but it stops there, too, so what it brings may be short while
there is more (net/ipv4/tcp.c, tcp_read_sock, tcp_recvmsg_locked). What a sink did not take waits for the sink alone: a
slow reader slows its sender down through TCP's own window.
"""

from __future__ import annotations

import os
import socket

from runtime.net.engine.pipes import SIZE_BYTES, Pipe, PipePool, PipeShare
from runtime.net.engine.queues import FREE_BYTES, Queues

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
# Surely one packet, whatever the path (RFC 9293, 3.7.1: the least segment that all take).
SHORT_BYTES = 536
# Chunks in one turn: some, as each turn costs an epoll_wait; few, as the other connections wait meanwhile.
TURN = 4


class Way:
    """One direction, for an edge-triggered loop: see `move`.

    bulk:        chunks come that fill the buffer.
    full:        something is left in between that the sink did not take: its readiness, not the source's, is news.
    wary:        whoever waits for the source was told that its end has come or is near, or of urgent data: what is
                 behind a short chunk is no news any more.
    last:        the way back has ended: whoever has this one closes its sink behind it, which passes its end on, too.
    eof:         the end was passed on, or is by closing the sink.
    lazy:        the sink may hold back what fills no packet, and that is only to be ended where it would: TCP sends the
                 first of it at once, and most connections ask once.
    sent_bytes:  what the sink took, so exact whenever a connection ends.
    """

    __slots__ = (
        "_asked",
        "_chunk_bytes",
        "_held_bytes",
        "_pending",
        "_pipe",
        "_pipes",
        "_queues",
        "_turn",
        "bulk",
        "eof",
        "full",
        "last",
        "lazy",
        "sent_bytes",
        "sink",
        "source",
        "wary",
    )

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        pipes: PipePool | PipeShare,
        chunk_bytes: int,
        queues: Queues,
        turn: int = TURN,
        lazy: bool = False,
    ) -> None:
        """turn: chunks in one, see Loop.burst."""
        self._turn, self.lazy = turn, lazy
        self.source, self.sink = source, sink
        self._pipes, self._chunk_bytes, self._queues = pipes, chunk_bytes, queues
        self._asked = False
        self._pending: memoryview | None = None
        self._pipe: Pipe | None = None
        self._held_bytes = 0
        self.bulk = False
        self.full = self.wary = self.last = self.eof = False
        self.sent_bytes = 0

    def move(self) -> bool:
        """Move bytes until the source has none, the sink takes none, or others are to have their turn: True then.

        Afterwards the loop tells of whatever changes. Raises OSError when a side is gone.
        """
        try:
            for _ in range(self._turn):
                if self.full:
                    self._flush()
                if self.eof or not self._fill():
                    return False
        except BlockingIOError:
            if self.full:
                self._ask()  # the source's queue now grows, also without being read
            return False
        return True

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._queues.ask(self)

    def release(self) -> None:
        """Give up what is in between."""
        if self._asked:
            self._queues.leave(self)
        if self._pipe is not None:
            self._pipes.drop(self._pipe)
            self._pipe = None
        self._pending = None

    def _fill(self) -> bool:
        """Take a chunk and pass it on. Can there be another at once?"""
        if self.sent_bytes >= FREE_BYTES:
            self._ask()
        if self.bulk:
            pipe = self._pipes.take()
            if pipe is not None and self._splice(pipe):
                return True  # also after a short one: a pipe of small pieces is full early
        data = self.source.recv(self._chunk_bytes)
        count = len(data)
        if not count:
            self._end()
            return False
        if self.lazy and (self.sent_bytes or count > SHORT_BYTES):
            self.lazy = False
            self.sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bulk = count == self._chunk_bytes
        self.full, self._pending = True, memoryview(data)
        if self.bulk or not self.wary:
            self._flush()
            return self.bulk
        over, trouble = self._look_behind()
        try:
            self._flush(socket.MSG_MORE if over else 0)
        finally:
            if trouble is not None:  # also where the sink takes no more: nothing would say it again
                raise trouble
        if over:
            self._end()
        return not over

    def _look_behind(self) -> tuple[bool, OSError | None]:
        """Is the end behind what was taken? Then both can go in one packet. Or an error, which is said only once."""
        try:
            return not self.source.recv(1, socket.MSG_PEEK), None
        except BlockingIOError:
            return False, None
        except OSError as error:
            return False, error

    def _splice(self, pipe: Pipe) -> bool:
        """Take a pipe's worth and pass it on; False, and the pipe given back, where a splice finds nothing."""
        count = 0
        try:
            count = os.splice(self.source.fileno(), pipe.write_fd, SIZE_BYTES, flags=_FLAGS)
        except BlockingIOError:
            pass
        finally:
            if not count:
                self._pipes.give(pipe)
        if not count:
            return False
        self.bulk = count >= self._chunk_bytes
        self.full, self._pipe, self._held_bytes = True, pipe, count
        self._flush()
        return True

    def _flush(self, flags: int = 0) -> None:
        """Give the sink what is in between. Raises BlockingIOError, and only that makes the loop tell of the sink."""
        while self._pending is not None:
            count = self.sink.send(self._pending, flags)
            self.sent_bytes += count
            self._pending = self._pending[count:] if count < len(self._pending) else None
        while self._pipe is not None:
            count = os.splice(self._pipe.read_fd, self.sink.fileno(), self._held_bytes, flags=_FLAGS)
            self.sent_bytes += count
            self._held_bytes -= count
            if not self._held_bytes:
                self._pipes.give(self._pipe)
                self._pipe = None
        self.full = False

    def _end(self) -> None:
        self.eof = True
        if not self.last:
            self.sink.shutdown(socket.SHUT_WR)
