"""From a command to zoned: one connection for one coroutine; what was meant where a name is wrong."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import SentenceError
from runtime.errors import RuntimeFault
from runtime.host.faults import RemoteFault

if TYPE_CHECKING:
    from runtime.host.client.client import HostClient

T = TypeVar("T")
UNKNOWN_ZONE = "UnknownZone"


class NoSuchZone(RuntimeFault):
    """A zone the host does not have."""


def ask(arguments: Namespace, work: Callable[[HostClient], Coroutine[Any, Any, T]]) -> T:
    """`work(client)` with the chosen host's zoned, which must run. Raises HostDown, and what zoned raises."""
    from runtime.host.client import connect

    with connect(arguments.host or "") as client:
        return client.run(_asked(client, arguments, work))


async def _asked(client: HostClient, arguments: Namespace, work: Callable[[HostClient], Coroutine[Any, Any, T]]) -> T:
    try:
        return await work(client)
    except RemoteFault as fault:
        names = [getattr(arguments, "zone", None), *(getattr(arguments, "zones", None) or ())]
        raise await meant(client, [name for name in names if name], fault) from None


@contextlib.contextmanager
def meant_by(client: HostClient, name: str) -> Iterator[None]:
    """A context in which a zone that is not there is named with what may have been meant."""
    try:
        yield
    except RemoteFault as fault:
        raise client.run(meant(client, [name], fault)) from None


async def meant(client: HostClient, names: Iterable[str], error: SentenceError) -> SentenceError:
    """The error; or, where it is about a zone that is not there, one that says which may have been meant."""
    if not isinstance(error, RemoteFault) or error.kind != UNKNOWN_ZONE:
        return error
    name = next((name for name in names if name in error.subject), None)
    return error if name is None else no_such_zone(name, await zone_names(client))


def no_such_zone(name: str, known: list[str]) -> NoSuchZone:
    """The error for a zone that is not there."""
    import difflib

    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    got = f"no such zone as {name}" + (f", did you mean {' or '.join(near)}?" if near else "")
    return NoSuchZone("zone", got=got, hint="" if near else f"there are: {', '.join(known) or 'none'}")


async def zone_names(client: HostClient) -> list[str]:
    """The names of all zones; none where the host cannot say."""
    from runtime.host.api.host_pb2 import ListZonesRequest

    try:
        reply = await client.acall(client.host.ListZones, ListZonesRequest(all=True), timeout_s=5)
    except RuntimeFault:
        return []
    return sorted(zone.name for zone in reply.zones)
