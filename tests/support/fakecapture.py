"""A capture whose pieces a test sends."""

from __future__ import annotations

import socket

from runtime.net.capture import CaptureRequest
from runtime.net.engine.recorder import HEAD


class FakeCapture:
    """As runtime.net.capture.Capture is one, without a process."""

    def __init__(self, request: CaptureRequest) -> None:
        self.request = request
        self.pieces, self.recorder = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pieces.setblocking(False)

    def send(self, frames: int, lost: int, pcap: bytes) -> None:
        self.recorder.send(HEAD.pack(frames, lost) + pcap)

    def stop(self) -> None:
        self.recorder.close()

    def close(self) -> None:
        self.pieces.close()
        self.stop()

    @property
    def closed(self) -> bool:
        return self.pieces.fileno() < 0
