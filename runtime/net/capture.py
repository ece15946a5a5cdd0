"""Captures of a network's frames: a packet socket on its vif, and the process that reads it (engine/recorder.py)."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from typing import NamedTuple

from runtime.net import bpf, child, netns
from runtime.net.calls import engine_filter
from runtime.net.engine.recorder import HEAD, LONGEST_PIECE_BYTES, PACKET_AUXDATA, SO_TIMESTAMPNS, SOL_PACKET
from runtime.net.errors import NetworkFault
from runtime.net.pcap import MOST_SNAP_BYTES, frame_filter

MOST_CAPTURES = 4  # of one network: each keeps up to this much of the kernel's memory
BUFFER_BYTES = 4 << 20
_CODE = child.code_of("from runtime.net.engine.recorder import main")
_ETH_P_ALL = 0x0003  # linux/if_ether.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@dataclass(frozen=True)
class CaptureRequest:
    """What to capture.

    count, seconds:  the end, whichever comes first; 0 for none.
    snap_bytes:      how much of a frame is kept; 0 for all of it.
    host, port:      only frames from or to them, see pcap.frame_filter.
    """

    count: int = 0
    seconds: float = 0.0
    snap_bytes: int = 0
    host: str = ""
    port: int = 0


class Piece(NamedTuple):
    """A piece of a capture file, with the frames taken and lost up to its end."""

    pcap: bytes
    frames: int
    lost: int


class Capture:
    """A running capture. Its socket `pieces` is read until it gives b""; each packet is for `read_piece`."""

    def __init__(self, name: str, namespace: str, vif: str, uid: int, request: CaptureRequest) -> None:
        """Begin: from here on no frame is missed but those counted. Raises NetworkFault."""
        subject = f"capture in the network of zone {name}"
        snap_bytes = request.snap_bytes or MOST_SNAP_BYTES
        if not (0 < snap_bytes <= MOST_SNAP_BYTES and request.count >= 0 and 0 <= request.port <= 65535):
            expected = f"at most {MOST_SNAP_BYTES} bytes of a frame, a port up to 65535"
            raise NetworkFault(subject, expected=expected, got=f"{request.snap_bytes} bytes, port {request.port}")
        if not 0 <= request.seconds < 1e9:
            raise NetworkFault(subject, expected="seconds from 0 on", got=str(request.seconds))
        try:
            program = frame_filter(request.host, request.port)
        except ValueError:
            raise NetworkFault(subject, expected="the host an address", got=repr(request.host)) from None
        try:
            source = netns.inside(namespace, lambda: _packet_socket(vif, program))
        except OSError as error:
            raise NetworkFault(subject, expected=f"to listen on {vif}", got=str(error)) from error
        self.pieces, sink = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limits = {"snap_bytes": snap_bytes, "count": request.count, "seconds": request.seconds}
        try:
            with source, sink:
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LONGEST_PIECE_BYTES)
                self._child = _start(source, sink, {"uid": uid, "seccomp": engine_filter(), **limits})
        except OSError as error:
            self.pieces.close()
            raise NetworkFault(subject, expected="its process started", got=str(error), temporary=True) from error
        self.pieces.setblocking(False)

    def stop(self) -> None:
        """End its process, and so its pieces; returns when that is gone. Harmless twice. Any thread may."""
        self._child.kill()
        self._child.wait()

    def close(self) -> None:
        """`stop`, by whoever reads the pieces."""
        self.pieces.close()
        self.stop()

    def alive(self) -> bool:
        """Does it go on?"""
        return self._child.poll() is None


class Captures:
    """Those of one network."""

    def __init__(self) -> None:
        self._running: list[Capture] = []

    def begin(self, name: str, namespace: str, vif: str, uid: int, request: CaptureRequest) -> Capture:
        """One more. Raises NetworkFault."""
        subject = f"capture in the network of zone {name}"
        self._running = [capture for capture in self._running if capture.alive()]
        if not vif:
            raise NetworkFault(subject, expected="its zone attached", got="no interface yet", temporary=True)
        if len(self._running) >= MOST_CAPTURES:
            raise NetworkFault(subject, expected=f"at most {MOST_CAPTURES} at once", got="one more")
        self._running.append(Capture(name, namespace, vif, uid, request))
        return self._running[-1]

    def stop(self) -> None:
        """End all of them: each holds the namespace."""
        while self._running:
            self._running.pop().stop()


def read_piece(packet: bytes) -> Piece:
    """What a packet of `Capture.pieces` says."""
    frames, lost = HEAD.unpack_from(packet)
    return Piece(packet[HEAD.size :], frames, lost)


def _packet_socket(vif: str, program: bytes) -> socket.socket:
    """A socket that gets every frame of an interface, both ways, that the program takes. Raises OSError."""
    # Protocol 0: no frame comes before the filter is there and the interface chosen (packet(7)).
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        bpf.attach(made, program)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        made.bind((vif, _ETH_P_ALL))
    except BaseException:
        made.close()
        raise
    return made


def _start(source: socket.socket, sink: socket.socket, config: dict[str, object]) -> subprocess.Popen[bytes]:
    recorder = child.start(_CODE, (source.fileno(), sink.fileno()))
    # One that has ended already has lost its pieces of the capture, which whoever reads that sees.
    child.tell(recorder, json.dumps({"source": source.fileno(), "sink": sink.fileno(), **config}))
    return recorder
