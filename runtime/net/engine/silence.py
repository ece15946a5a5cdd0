"""Whether what was sent over a connection is answered at all, and whether it has been taken.

The kernel sends again for a quarter of an hour before it gives up; a connection whose way has gone is not worth that.
TCP_USER_TIMEOUT would say so, but ends those, too, whose peer does answer, with a closed window: a reader that rests.
Source: tcp(7); linux/tcp.h, struct tcp_info.
"""

from __future__ import annotations

import socket
import struct

_INFO_BYTES = 148
_RETRANSMITS, _PROBES = 2, 3  # since anything was taken; since anything was answered
_NUMBERS = struct.Struct("=24xI16xI8xI84xI")  # tcpi_unacked, _last_data_sent, _last_ack_recv, _notsent_bytes
_TCP_CLOSE = 7  # linux/tcp_states.h; in the first byte
_MORE = 2  # attempts without an answer since the first look: one may be lost, and attempts become rare


def undelivered(connection: socket.socket) -> bool:
    """Does the kernel hold more than one last segment, and an end, that the peer has yet to take?"""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return False
    if len(info) < _INFO_BYTES or info[0] == _TCP_CLOSE:  # one that was reset holds nothing, whatever it counts
        return False
    unacked, _, _, not_sent = _NUMBERS.unpack(info)
    return bool(unacked > 1 or not_sent > 1)


class Silence:
    """Of one end of a connection; looked at from time to time."""

    __slots__ = ("_attempts", "_since", "open")

    def __init__(self) -> None:
        self._since, self._attempts = 0.0, 0
        self.open = True  # was there anything that waited for an answer, when it was last looked at?

    def lasts(self, connection: socket.socket, now: float, most_s: float) -> bool:
        """Has what was sent again and again had no answer for longer than that? Counted from the first such look.

        Raises:  OSError.
        """
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        if len(info) < _INFO_BYTES:  # a kernel older than any that is supported
            return False
        unacked, sent_ms, answer_ms, not_sent = _NUMBERS.unpack(info)
        attempts = info[_RETRANSMITS] + info[_PROBES]
        self.open = bool(unacked or not_sent or attempts)
        # An answer that takes nothing is one: the peer's window is closed, or its memory short.
        if not attempts or (not info[_PROBES] and answer_ms <= sent_ms):
            self._since = 0.0
            return False
        if not self._since or answer_ms / 1000 < now - self._since:
            self._since, self._attempts = now, attempts
        return now - self._since >= most_s and attempts >= self._attempts + _MORE
