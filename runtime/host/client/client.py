"""Calls of zoned for commands: they return, streams iterate, an interrupt cancels what is under way.

One event loop per client; what goes both ways at once (an exec) is a coroutine given to `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar, cast

from grpclib.client import Stream, StreamStreamMethod, StreamUnaryMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import ProtocolError

from runtime.host.api.host_grpc import HostStub
from runtime.host.client.channel import HostChannel
from runtime.host.client.endpoint import Endpoint
from runtime.host.client.interrupts import held
from runtime.host.faults import RemoteFault

CALL_TIMEOUT_S = 60.0

Send = TypeVar("Send")
Receive = TypeVar("Receive")
T = TypeVar("T")


class HostClient:
    """One zoned. A context manager; leaving it closes the connection. For one thread.

    host:    the Host service's stub: `client.call(client.host.ListZones, request)`.
    channel: for the stubs of other services, and for `channel.opened` inside `run`.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._runner = asyncio.Runner()
        self._closed = False
        self._streams: set[AsyncIterator[Any]] = set()
        self.channel: HostChannel = self._runner.run(self._make())
        self.host = HostStub(self.channel)

    async def _make(self) -> HostChannel:
        return HostChannel(self.endpoint)

    def call(
        self, method: UnaryUnaryMethod[Send, Receive], request: Send, *, timeout_s: float | None = CALL_TIMEOUT_S
    ) -> Receive:
        """One request, one answer. Raises RemoteFault, HostDown, ConnectionLost, CallTimeout."""
        return self.run(self.acall(method, request, timeout_s=timeout_s))

    def stream(
        self, method: UnaryStreamMethod[Send, Receive], request: Send, *, timeout_s: float | None = None
    ) -> Iterator[Receive]:
        """One request, the answers as they come; closing the iterator cancels the call. Raises as `call`."""
        answers = self.astream(method, request, timeout_s=timeout_s)
        self._streams.add(answers)
        try:
            while (answer := self.run(_next(answers))) is not None:
                yield answer
        finally:
            if answers in self._streams:
                self._streams.discard(answers)
                self.run(_closed(answers))

    def each(
        self,
        method: UnaryStreamMethod[Send, Receive],
        request: Send,
        take: Callable[[Receive], object],
        *,
        timeout_s: float | None = None,
    ) -> None:
        """As `stream`, with a function called for each answer: for many small ones, at a tenth of the cost."""

        async def run() -> None:
            async for answer in self.astream(method, request, timeout_s=timeout_s):
                take(answer)

        self.run(run())

    def send(
        self, method: StreamUnaryMethod[Send, Receive], requests: Iterable[Send], *, timeout_s: float | None = None
    ) -> Receive:
        """Many requests, one answer; no request is made before zoned has room for it. Raises as `call`."""
        return self.run(self.asend(method, requests, timeout_s=timeout_s))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this client's loop, such as one with `opened` calls in both directions.

        An interrupt (Ctrl-C) cancels it, and with it the calls it has open, then raises KeyboardInterrupt; so do
        SIGTERM and SIGHUP, with what their handlers raise.
        """
        loop = self._runner.get_loop()
        task = loop.create_task(work)
        with held(loop, task):
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):  # the second one: nothing can be asked of this loop any more
                self._closed = True
                raise

    def close(self) -> None:
        """End the connection, and every call there is on it."""
        if not self._closed:
            self.run(self._close())
            self._closed = True
            self._runner.close()

    async def _close(self) -> None:
        for answers in list(self._streams):
            await _closed(answers)
        self._streams.clear()
        await self.channel.aclose()

    def __enter__(self) -> HostClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the same inside `run` -----------------------------------------------------------------------------------------

    async def acall(
        self, method: UnaryUnaryMethod[Send, Receive], request: Send, *, timeout_s: float | None = CALL_TIMEOUT_S
    ) -> Receive:
        """`call` as a coroutine."""
        async with self.channel.opened(method, timeout_s=timeout_s) as stream:
            await stream.send_message(request, end=True)
            return cast(Receive, await self._answer(stream))

    async def astream(
        self, method: UnaryStreamMethod[Send, Receive], request: Send, *, timeout_s: float | None = None
    ) -> AsyncIterator[Receive]:
        """`stream` as an asynchronous iterator."""
        async with self.channel.opened(method, timeout_s=timeout_s) as stream:
            await stream.send_message(request, end=True)
            async for answer in received(stream):
                yield answer

    async def asend(
        self, method: StreamUnaryMethod[Send, Receive], requests: Iterable[Send], *, timeout_s: float | None = None
    ) -> Receive:
        """`send` as a coroutine."""
        async with self.channel.opened(method, timeout_s=timeout_s) as stream:
            for request in requests:
                await stream.send_message(request)
            await stream.end()
            return cast(Receive, await self._answer(stream))

    def opened(
        self, method: StreamStreamMethod[Send, Receive], *, timeout_s: float | None = None
    ) -> contextlib.AbstractAsyncContextManager[Stream[Send, Receive]]:
        """A call in both directions: `send_message`, `end`, `recv_message`; read it by `received`."""
        return self.channel.opened(method, timeout_s=timeout_s)

    async def _answer(self, stream: Stream[Any, Any]) -> Any:
        answer = await stream.recv_message()
        # grpclib looks at the status by itself, but not where the connection has closed meanwhile.
        await stream.recv_trailing_metadata()
        if answer is None:
            raise RemoteFault(self.endpoint.name, expected="an answer", got="none")
        return answer


async def received(stream: Stream[Any, Receive]) -> AsyncIterator[Receive]:
    """What a call answers, up to its end; raises for the status it ended with.

    Effects: ends the requests with the answers, as nobody reads them any more.
    """
    while (answer := await stream.recv_message()) is not None:
        yield answer
    with contextlib.suppress(ProtocolError):  # ended already, as it should be
        await stream.end()
    await stream.recv_trailing_metadata()


async def _next(answers: AsyncIterator[Receive]) -> Receive | None:
    return await anext(answers, None)


async def _closed(answers: AsyncIterator[Any]) -> None:
    await cast(Any, answers).aclose()
