"""grpclib's server, with what it lacks: closing it ends connections, vanished clients are noticed, crowds kept out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import weakref
from collections.abc import Collection
from typing import Any, cast

from grpclib.protocol import H2Protocol
from grpclib.server import Server

from runtime.host.check.model import HostPort
from runtime.host.keepalive import keep_alive
from runtime.host.serve.handshakes import Handshakes

log = logging.getLogger(__name__)

CONNECTIONS_AT_ONCE = 256
PATIENCE_S = 2.0


class _Protocol(H2Protocol):
    """A connection that tells its server when it has begun; one too many is closed at once."""

    server: Listener | None = None
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, transport)
        keep_alive(transport)
        if self.server is not None:
            self.server.admit(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.resume_writing()  # a handler that waits to write would wait for ever, as nobody reads any more


class Listener(Server):
    """Serves a set of services on one address. Not reusable: after `end` make another one.

    tls:  serve it by TLS with these credentials.
    """

    def __init__(self, services: Collection[Any], *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(services)
        self._protocols: weakref.WeakSet[_Protocol] = weakref.WeakSet()
        self._handshakes = None if tls is None else Handshakes(tls, self._make_protocol)

    def _protocol_factory(self) -> H2Protocol:
        if self._handshakes is not None:
            return cast(H2Protocol, self._handshakes.gate())  # asyncio's server takes any protocol
        return self._make_protocol()

    def _make_protocol(self) -> _Protocol:
        made = super()._protocol_factory()
        protocol = _Protocol(made.handler, made.config, made.h2_config)
        protocol.server = self
        return protocol

    def admit(self, protocol: _Protocol) -> None:
        """Count a connection in, or close it."""
        alive = sum(not known.connection.is_closing() for known in self._protocols)
        if alive >= CONNECTIONS_AT_ONCE:
            log.warning("refused a connection: there are %d", alive)
            protocol.processor.close("too many connections")
            return
        self._protocols.add(protocol)

    def ports(self) -> list[HostPort]:
        """The TCP ports it listens on. From any thread."""
        found = []
        for listener in getattr(self._server, "sockets", ()):
            if listener.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):  # it is being closed
                    found.append(HostPort(*listener.getsockname()[:2]))
        return found

    async def end(self) -> None:
        """Listen no more, cancel what runs, close every connection; returns when all handlers have ended.

        What a client has not read by PATIENCE_S is dropped.
        """
        self.close()
        if self._handshakes is not None:
            self._handshakes.end()
        for protocol in list(self._protocols):
            if not protocol.connection.is_closing():
                protocol.processor.close("the server ends")
        ended = asyncio.ensure_future(self.wait_closed())
        if not (await asyncio.wait({ended}, timeout=PATIENCE_S))[0]:
            for protocol in list(self._protocols):
                protocol.transport.abort()
        await ended
