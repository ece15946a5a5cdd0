"""From a function of a request to a method of the service: the first message in, the answer or the answers out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from runtime.host.serve.answers import NotServed, answering, method_of, request_of

Method = Any  # of the class that grpclib generates, whose methods take a stream


def unary(work: Callable[[Any, Any], Awaitable[Any]]) -> Method:
    """A method that answers one request by one message."""

    @functools.wraps(work)
    async def method(self: Any, stream: Any) -> None:
        async with answering(stream):
            await stream.send_message(await work(self, await request_of(stream)))

    return method


def streaming(work: Callable[[Any, Any], AsyncIterator[Any]]) -> Method:
    """A method that answers one request by what an asynchronous generator yields."""

    @functools.wraps(work)
    async def method(self: Any, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            async with contextlib.aclosing(work(self, request)) as replies:  # type: ignore[type-var]
                async for reply in replies:
                    await stream.send_message(reply)

    return method


def joined(work: Callable[[Any, Any], Awaitable[None]]) -> Method:
    """A method that reads and writes its stream itself."""

    @functools.wraps(work)
    async def method(self: Any, stream: Any) -> None:
        async with answering(stream):
            await work(self, stream)

    return method


def refused(got: str, hint: str) -> Method:
    """A method that is not implemented, and says what is."""

    async def method(self: Any, stream: Any) -> None:
        async with answering(stream):
            raise NotServed(f"method {method_of(stream)}", got=got, hint=hint)

    return method
