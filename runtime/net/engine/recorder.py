"""The process that records a network's frames: takes them from a packet socket, hands them on in pcap's form.

A process of its own, confined as an engine is: what it reads is whatever a zone sends, and zoned's one thread of Python
is for all zones. It has two sockets and nothing else, and ends when either does.
Each packet it hands on is `HEAD`, frames taken and frames lost so far, and a piece of the file. Where nobody takes it,
it waits; the kernel then keeps frames up to the packet socket's buffer, and counts those it loses.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

from runtime.net.engine import confine
from runtime.net.pcap import MOST_SNAP_BYTES, RECORD_BYTES, file_header, record

HEAD = struct.Struct("=QQ")
# Bytes of one packet, but for the frame that goes beyond.
PIECE_BYTES = 65536
LONGEST_PIECE_BYTES = HEAD.size + PIECE_BYTES + RECORD_BYTES + MOST_SNAP_BYTES
_STEP_S = 1.0
# Source: linux/if_packet.h, asm-generic/socket.h; not in Python's socket module
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
SO_TIMESTAMPNS = 35
TP_STATUS_VLAN_VALID = 1 << 4
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: frames, lost; both begin again when they are read
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: status, length, snapped, mac, net, VLAN's tci and tpid
_TIMESPEC = struct.Struct("=qq")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIMESPEC.size)
_MAC_BYTES = 12


class Recorder:
    """Frames of one socket as packets of the other.

    count, seconds:  how many frames, and for how long; 0 for no limit.
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, *, snap_bytes: int, count: int, seconds: float
    ) -> None:
        self._source, self._sink = source, sink
        self._snap_bytes, self._count = snap_bytes, count
        self._end = time.monotonic() + seconds if seconds else None
        self._buffer = memoryview(bytearray(snap_bytes))
        self._frames = self._lost = self._told = 0
        self._gone = False

    def run(self) -> None:
        """Record until an end is reached, or the interface or the reader has gone."""
        self._source.setblocking(False)
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._sink, 0)  # its reader's end is told unasked
        try:
            self._hand_on(file_header(self._snap_bytes))
            while not self._over():
                ready = dict(poll.poll(self._patience_ms()))
                if self._sink.fileno() in ready:
                    return
                piece = self._take()
                self._look_at_losses()
                if piece or self._lost != self._told:
                    self._hand_on(piece)
            self._look_at_losses()
            self._hand_on(b"")
        except ConnectionError:
            pass  # nobody reads any more

    def _over(self) -> bool:
        return (self._count > 0 and self._frames >= self._count) or self._patience_ms() == 0 or self._gone

    def _patience_ms(self) -> int:
        left = _STEP_S if self._end is None else min(max(self._end - time.monotonic(), 0.0), _STEP_S)
        return -(-int(left * 1e6) // 1000)  # rounded up: 0 is the end only

    def _take(self) -> bytes:
        """What there is, up to one piece."""
        pieces, size = [], 0
        while size < PIECE_BYTES and not (self._count and self._frames >= self._count):
            try:
                kept_bytes, ancillary, _, _ = self._source.recvmsg_into([self._buffer], _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:  # ENETDOWN, once: the interface has gone, and with it all there will ever be
                self._gone = True
                break
            pieces.append(_record(self._buffer[:kept_bytes], ancillary, self._snap_bytes))
            size += len(pieces[-1])
            self._frames += 1
        return b"".join(pieces)

    def _look_at_losses(self) -> None:
        _, lost = _STATISTICS.unpack(self._source.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
        self._lost += lost

    def _hand_on(self, piece: bytes) -> None:
        self._sink.send(HEAD.pack(self._frames, self._lost) + piece)
        self._told = self._lost


def _record(kept: memoryview, ancillary: list[tuple[int, int, bytes]], snap_bytes: int) -> bytes:
    """A frame with its own time and length; the VLAN tag that the kernel has taken out of it is put back."""
    seconds, nanoseconds, was_bytes, frame = 0, 0, len(kept), bytes(kept)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
        elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, was_bytes, _, _, _, tci, tpid = _AUXDATA.unpack_from(data)
            if status & TP_STATUS_VLAN_VALID:
                frame = frame[:_MAC_BYTES] + struct.pack("!HH", tpid, tci) + frame[_MAC_BYTES:]
                was_bytes += 4
    return record(seconds, nanoseconds, frame[:snap_bytes], was_bytes)


def main() -> None:
    """Record as a line of JSON on standard input says. Effects: changes the user of this process."""
    text = sys.stdin.readline()
    if not text:
        return  # whoever started this died before it said what to do
    config = json.loads(text)
    source, sink = socket.socket(fileno=config["source"]), socket.socket(fileno=config["sink"])
    confine.bound_descriptors(64)
    confine.forbid_new_privileges()
    confine.load_what_is_loaded_late()
    confine.empty_root()
    confine.become(config["uid"])
    os.umask(0o077)
    limits = {name: config[name] for name in ("snap_bytes", "count", "seconds")}
    recorder = Recorder(source, sink, **limits)
    confine.limit_calls(bytes.fromhex(config["seccomp"]))
    recorder.run()
