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
    """Remembers why the connection ended: that is where a refused certificate shows."""

    why: BaseException | None = None

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
            raise await self._lost(error) from None
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

    async def _lost(self, error: StreamTerminatedError) -> Exception:
        if self._link is not None and (said := await asyncio.to_thread(self._link.last_words)):
            return failures.lost(self.endpoint, None, said)
        why = self._made.why if self._made is not None else None
        return failures.lost(self.endpoint, why, "" if "Connection lost" in str(error) else str(error).lower())

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def close(self) -> None:
        super().close()
        self._drop_link()
