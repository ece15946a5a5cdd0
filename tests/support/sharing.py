"""A directory shared by a server of this process, and a client of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.share.fids import Limits
from runtime.share.server import Server
from support.descriptors import descriptors, opened_since
from support.ninep import Client, Refused


@contextmanager
def served(directory: Path, *, readonly: bool = False, limits: Limits | None = None) -> Iterator[Server]:
    """A server of the directory, which lets go of all it has opened."""
    before = descriptors()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    server = Server(fd, readonly=readonly, limits=limits or Limits())
    os.close(fd)
    try:
        yield server
    finally:
        server.close()
    assert not opened_since(before), "left open"
    assert server.faults == 0


@contextmanager
def client_of(directory: Path, *, readonly: bool = False, limits: Limits | None = None) -> Iterator[Client]:
    """A client that is attached as fid 0, as who runs this."""
    with served(directory, readonly=readonly, limits=limits) as server:
        client = Client(server.handle)
        client.start(uid=os.geteuid())
        yield client


def refused(number: int, ask: Any, *values: Any, **named: Any) -> None:
    """A request that ends with this errno."""
    with pytest.raises(Refused) as caught:
        ask(*values, **named)
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]
