"""gRPC on a connection to zoned: grpclib's channel, over whatever way an endpoint names."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, cast

from grpclib.client import Channel, Handler, ServiceMethod, Stream
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from runtime.host.client import failures
from runtime.host.client.dial import Link, dial
from runtime.host.client.endpoint import Endpoint
from runtime.host.faults import CallTimeout


class _Protocol(H2Protocol):
    """Remembers why the connection ended, and whether the other side ever said anything."""

    why: BaseException | None = None
    heard = False

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.why = exc
        super().connection_lost(exc)


class HostChannel(Channel):
    """A channel of one endpoint. Its calls go through `opened`, which turns what fails into faults."""

    def __init__(self, endpoint: Endpoint) -> None:
        # The authority is all the base class makes of host and port here.
        super().__init__(host=endpoint.host or "localhost", port=endpoint.port or None)
        self._scheme = "https" if endpoint.scheme == "tls" else "http"
        self.endpoint = endpoint
        self._link: Link | None = None
        self._made: _Protocol | None = None

    async def _create_connection(self) -> H2Protocol:
        self._drop_link()
        self._link, protocol = await dial(self.endpoint, self._protocol_factory)
        self._made = cast(_Protocol, protocol)
        return self._made

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(Handler(), self._config, self._h2_config)

    @contextlib.asynccontextmanager
    async def opened(
        self, method: ServiceMethod[Any, Any], *, timeout_s: float | None = None
    ) -> AsyncIterator[Stream[Any, Any]]:
        """One call of a method of a stub of this channel.

        Raises:  RemoteFault (the method's own error), HostDown, ConnectionLost, CallTimeout.
        Effects: leaving it by an exception, an interrupt among them, tells zoned that nobody waits any more.
        """
        name = method.name.rpartition("/")[2]
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        await self._connected_or_fault()
        stream = method.open(timeout=timeout_s)
        try:
            async with stream:
                yield stream
        except GRPCError as error:
            raise failures.fault_of(error, failures.trailing_of(stream), subject=self.endpoint.name) from None
        except StreamTerminatedError as error:
            raise await self._lost(str(error)) from None
        except AttributeError:
            # grpclib takes a connection apart when it ends; a call just begun then misses a part.
            if self._connected:
                raise
            raise await self._lost() from None
        except TimeoutError:
            if deadline is None or time.monotonic() < deadline:
                raise
            raise CallTimeout(
                f"{self.endpoint.name}, {name}",
                expected=f"an answer within {timeout_s:g} s",
                got="none",
                temporary=True,
            ) from None

    async def _connected_or_fault(self) -> None:
        try:
            await self.__connect__()
        except OSError as error:
            raise failures.unreachable(self.endpoint, error) from error

    async def _lost(self, what: str = "") -> Exception:
        if self.endpoint.scheme == "ssh" and self._link is not None:
            return failures.ssh_ended(self.endpoint, await asyncio.to_thread(self._link.last_words))
        made = self._made
        if self.endpoint.scheme == "tls" and made is not None and not made.heard:
            # In TLS 1.3 a client learns only after the handshake that its certificate was refused, and mostly by a mere
            # reset: what it had sent by then was not read. One that is let in hears HTTP/2 settings at once.
            return failures.shut_out(self.endpoint, made.why)
        why = made.why if made is not None else None
        return failures.lost(self.endpoint, why, "" if "Connection lost" in what else what.lower())

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    async def aclose(self) -> None:
        """End the connection and what it held, such as an ssh."""
        self.close()
        await asyncio.sleep(0)  # the transport closes in the loop's next turn; ssh ends by that
        await asyncio.to_thread(self._drop_link)
