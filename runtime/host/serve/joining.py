"""A call that goes both ways, joined to a session of the core until the session ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pipeline.errors import SentenceError
from runtime.host.daemon.manager import Session
from runtime.host.daemon.model import Output
from runtime.host.serve.answers import BadMessage, next_request

log = logging.getLogger(__name__)

# How long a stream is kept for a client that has not yet ended its requests after the exit was told.
END_PATIENCE_S = 2.0

Take = Callable[[Any, Session], Awaitable[None]]
Show = Callable[[Output], Any]


def never(output: Output) -> bool:
    """Nothing is enough."""
    return False


async def join(
    stream: Any,
    session: Session,
    take: Take,
    show: Show,
    *,
    enough: Callable[[Output], bool] = never,
    end_is_stdins: bool = False,
) -> None:
    """Carry a session's output to the client and the client's requests to it.

    take:           hands one request over; BadMessage ends the call, other faults mean that the process has just ended.
    show:           the answer that tells an output; None for what is not told.
    enough:         ends the call after this output.
    end_is_stdins:  the end of the requests is the end of the process's input.
    """
    output = asyncio.ensure_future(_send(stream, session, show, enough))
    feed = asyncio.ensure_future(_feed(stream, session, take, end_is_stdins=end_is_stdins))
    try:
        await asyncio.wait({output, feed}, return_when=asyncio.FIRST_COMPLETED)
        if feed.done():
            feed.result()  # a request that is none ends the call
        await output
        # An answer that ends before the requests do resets the stream; a client may then drop what it has not read.
        await asyncio.wait({feed}, timeout=END_PATIENCE_S)
    finally:
        await ended(output, feed)


async def _send(stream: Any, session: Session, show: Show, enough: Callable[[Output], bool]) -> None:
    outputs = session.outputs()
    async with closing(outputs):
        async for output in outputs:
            if (message := show(output)) is not None:
                await stream.send_message(message)
            if enough(output):
                return


async def _feed(stream: Any, session: Session, take: Take, *, end_is_stdins: bool) -> None:
    while (message := await next_request(stream)) is not None:
        try:
            await take(message, session)
        except BadMessage:
            raise
        except SentenceError as error:
            log.debug("input of a process that has just ended: %s", error)
    if end_is_stdins:
        with contextlib.suppress(SentenceError):
            await session.close_stdin()


async def drain(stream: Any) -> None:
    """Take all requests, and do nothing with them."""
    while await next_request(stream) is not None:
        pass


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for them; what they raise has been seen, or is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def closing(iterator: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close what is iterated, also when nobody wants the rest of it."""
    try:
        yield
    finally:
        if (close := getattr(iterator, "aclose", None)) is not None:
            await close()
