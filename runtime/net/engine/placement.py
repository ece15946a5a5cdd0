"""Where an engine runs while streams pass through it: not on the CPU on which the kernel takes them in.

A packet is what wakes an engine, and the scheduler likes to have who is woken on the CPU of what woke it: there the
engine waits for the very sender whose bytes it is to pass on, while another CPU has nothing to do. On two CPUs, one
stream is at half of what it is where the engine keeps away. What goes to and fro is faster as the scheduler has it, so
this begins with a stream and ends with it.
Source: socket(7), SO_INCOMING_CPU; sched_setaffinity(2); kernel/sched/fair.c, wake_affine.
"""

from __future__ import annotations

import contextlib
import os
import socket

STREAM_BYTES = 1 << 20  # what brought so much, and brings whole chunks, is a stream
LOOK_S = 0.05  # where it comes in changes with its sender's place
REST_S = 1.0


class Placement:
    """Of the calling thread, whose CPUs are its own business from now on."""

    def __init__(self) -> None:
        self._usual: set[int] = set()
        self._avoided: int | None = None
        self._due = 0.0

    def streams(self, source: socket.socket, now: float) -> None:
        """A stream comes from a socket. Looks where, now and then, and keeps away from there."""
        if now >= self._due:
            self._due = now + LOOK_S
            try:
                self._avoid(source.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU))
            except OSError:  # the socket is gone, or that was the last CPU of those that are left
                pass

    def _avoid(self, cpu: int) -> None:
        if cpu == self._avoided:
            return
        if self._avoided is None:
            self._usual = os.sched_getaffinity(0)
        others = self._usual - {cpu}
        if others and others != self._usual:
            os.sched_setaffinity(0, others)
            self._avoided = cpu

    def rest(self, now: float) -> None:
        """Be anywhere again where nothing has streamed for a while."""
        if self._avoided is not None and now >= self._due + REST_S:
            self._avoided = None
            with contextlib.suppress(OSError):  # none of those is left; the kernel has chosen others then
                os.sched_setaffinity(0, self._usual)
