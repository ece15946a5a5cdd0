"""From a command to zoned: one channel, one event loop, and errors as sentences again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from runtime.errors import RuntimeFault
from runtime.host.faults import HostDown, RemoteFault, remote_fault

T = TypeVar("T")
ERROR_KEY = "zonewright-error-bin"
UNKNOWN_ZONE = ("UnknownZone", "NoSuchZone", "UnknownName")


class NoSuchZone(RuntimeFault):
    """A zone the host does not have."""


class Zoned:
    """A host's zoned: every method of the service Host, by its name, through `stub`."""

    def __init__(self, stub: Any, where: str) -> None:
        self.stub, self.where = stub, where
        self.told: Any = None  # what the last trailers said of an error

    async def call(self, method: str, request: Any, *, timeout_s: float | None = None) -> Any:
        """One answer to one question. Raises RemoteFault, HostDown."""
        with self.faults():
            return await getattr(self.stub, method)(request, timeout=timeout_s)

    async def each(self, method: str, request: Any) -> AsyncIterator[Any]:
        """The answers to one question, as they come. Raises RemoteFault, HostDown."""
        with self.faults():
            async with getattr(self.stub, method).open() as stream:
                await stream.send_message(request, end=True)
                async for reply in stream:
                    yield reply

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """A context in which gRPC's errors become sentences: RemoteFault, HostDown."""
        from grpclib.exceptions import GRPCError, StreamTerminatedError

        try:
            yield
        except GRPCError as error:
            told, self.told = self.told, None
            fault = remote_fault(told) if told else RemoteFault("zoned", got=error.message or error.status.name)
            raise fault from None
        except (StreamTerminatedError, ConnectionError, FileNotFoundError) as error:
            raise HostDown("zoned", got=f"no answer from {self.where}", hint="zone host up") from error


@contextlib.asynccontextmanager
async def open_channel(path: str) -> AsyncIterator[Zoned]:
    """A context with a channel to the zoned that serves a unix socket."""
    from grpclib.client import Channel
    from grpclib.events import RecvTrailingMetadata, listen

    from runtime.host.api.host_grpc import HostStub

    channel = Channel(path=path)
    zoned = Zoned(HostStub(channel), path)

    async def note(event: RecvTrailingMetadata) -> None:
        zoned.told = _body(event.metadata.get(ERROR_KEY))

    listen(channel, RecvTrailingMetadata, note)
    try:
        yield zoned
    finally:
        channel.close()


def _body(value: Any) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value if isinstance(value, bytes) else base64.b64decode(value))
    except ValueError:
        return None


def ask(arguments: Namespace, work: Callable[[Zoned], Awaitable[T]]) -> T:
    """`work(zoned)` with the chosen host's zoned. Raises HostDown where none answers."""

    async def asked() -> T:
        async with open_channel(socket_of(arguments)) as zoned:
            try:
                return await work(zoned)
            except RemoteFault as fault:
                raise await _meant(zoned, arguments, fault) from None

    return asyncio.run(asked())


def socket_of(arguments: Namespace) -> str:
    """The unix socket of the chosen host's zoned."""
    name = arguments.host or os.environ.get("ZONE_HOST") or ""
    return name.removeprefix("unix://") if name.startswith("unix://") else "/run/zonewright/zoned.sock"


async def _meant(zoned: Zoned, arguments: Namespace, fault: RemoteFault) -> RuntimeFault:
    """The fault, or where it is about a zone that is not there, one that says which zone may have been meant."""
    asked = [getattr(arguments, "zone", None), *(getattr(arguments, "zones", None) or ())]
    name = next((name for name in asked if name and name in fault.subject), None)
    if fault.kind not in UNKNOWN_ZONE or name is None:
        return fault
    return no_such_zone(name, await zone_names(zoned))


def no_such_zone(name: str, known: list[str]) -> NoSuchZone:
    """The error for a zone that is not there."""
    import difflib

    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    got = f"no such zone as {name}" + (f", did you mean {' or '.join(near)}?" if near else "")
    return NoSuchZone(f"zone {name}", got=got, hint="" if near else f"there are: {', '.join(known) or 'none'}")


async def zone_names(zoned: Zoned) -> list[str]:
    """The names of all zones; none where the host cannot say."""
    from runtime.host.api.host_pb2 import ListZonesRequest

    try:
        reply = await zoned.call("ListZones", ListZonesRequest(all=True), timeout_s=5)
    except (RuntimeFault, TimeoutError):
        return []
    return sorted(zone.name for zone in reply.zones)
