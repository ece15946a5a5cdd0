"""TLS handshakes, few at once and not for long: a connection costs 300 KiB before anybody has shown a certificate."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import cast

log = logging.getLogger(__name__)

AT_ONCE = 64
TIMEOUT_S = 20.0  # a client of ours waits no longer for its connection
TELL_EVERY_S = 60.0


class Handshakes:
    """Those of one listener. One too many ends the oldest: an honest client is done long before its turn comes.

    protocol:  makes what serves a connection whose handshake is done.
    """

    def __init__(self, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._context, self._protocol = context, protocol
        self._running: dict[asyncio.Task[None], asyncio.Transport] = {}
        self._told_s = float("-inf")

    def gate(self) -> asyncio.Protocol:
        """For `create_server`: hands each plain connection over."""
        return _Gate(self)

    def begin(self, transport: asyncio.Transport) -> None:
        """Shake hands on a connection from which nothing has been read."""
        transport.pause_reading()
        if len(self._running) >= AT_ONCE:
            oldest = next(iter(self._running))
            self._tell_crowd(_peer(self._running[oldest]))
            self._end(oldest)
        task = asyncio.get_running_loop().create_task(self._shake(transport))
        self._running[task] = transport
        task.add_done_callback(lambda task: self._running.pop(task, None))

    def end(self) -> None:
        """End them all."""
        for task in list(self._running):
            self._end(task)

    def _tell_crowd(self, peer: str) -> None:
        """Now and then: whoever reaches the port may cause it, as often as they like."""
        now = time.monotonic()
        if now - self._told_s >= TELL_EVERY_S:
            self._told_s = now
            log.warning("TLS: %d handshakes at once; the oldest are ended, now one with %s", AT_ONCE, peer)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task).abort()
        task.cancel()

    async def _shake(self, transport: asyncio.Transport) -> None:
        early = _Early()
        loop = asyncio.get_running_loop()
        try:
            encrypted = await loop.start_tls(
                transport, early, self._context, server_side=True, ssl_handshake_timeout=TIMEOUT_S
            )
        except OSError as problem:  # an SSLError is one
            log.debug("TLS handshake with %s: %s", _peer(transport), problem)
            return
        if encrypted is not None and not early.lost:  # asyncio gives None where the connection was lost meanwhile
            early.hand_over(encrypted, self._protocol())


class _Gate(asyncio.Protocol):
    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshakes.begin(cast(asyncio.Transport, transport))


class _Early(asyncio.Protocol):
    """Stands in for a protocol until the handshake is known to be done; what came with its last bytes waits here."""

    def __init__(self) -> None:
        self.lost = False
        self._data = bytearray()
        self._served: asyncio.Protocol | None = None

    def hand_over(self, transport: asyncio.Transport, served: asyncio.Protocol) -> None:
        """Connect the protocol, in the step of the loop that saw the connection alive."""
        self._served = served
        transport.set_protocol(served)
        served.connection_made(transport)
        if self._data:
            served.data_received(bytes(self._data))

    def data_received(self, data: bytes) -> None:
        self._data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._served is not None:  # asyncio had this call on its list when the protocol was handed over
            self._served.connection_lost(exc)


def _peer(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else "a client"
