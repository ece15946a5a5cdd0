"""Calls of the lab's zoned: the first free port of several, one call at a time on each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runtime.host.lab.errors import LabDown, LabFailed
from runtime.host.lab.qemu import CHANNEL_PORTS, channel_socket
from runtime.host.lab.state import State
from runtime.host.wire import Client

FREE_PORT_POLL_S = 0.02
FREE_PORT_TIMEOUT_S = 120.0


@contextlib.contextmanager
def connect(state: State, *, timeout_s: float = FREE_PORT_TIMEOUT_S) -> Iterator[Client]:
    """A client on a port nobody else uses. Raises LabDown, LabFailed when all ports stay in use."""
    with _free_port(state, timeout_s) as index:
        try:
            client = Client.connect(state.path(channel_socket(index)), peer="dom0 of the lab")
        except OSError as error:
            raise LabDown("the lab", got=f"not up: {error.strerror}", hint="zone host up", temporary=True) from error
        with client:
            yield client


def call(
    state: State,
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    on_event: Callable[[Any], None] | None = None,
    timeout_s: float | None = 60.0,
) -> Any:
    """One call. Raises as `wire.Client.call`, LabDown, LabFailed."""
    with connect(state) as client:
        return client.call(method, params, on_event=on_event, timeout_s=timeout_s)


@contextlib.contextmanager
def _free_port(state: State, timeout_s: float) -> Iterator[int]:
    deadline = time.monotonic() + timeout_s
    while True:
        for index in range(CHANNEL_PORTS):
            try:
                fd = os.open(state.path(f"port.{index}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                raise LabDown("the lab", got="not up", hint="zone host up") from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            try:
                yield index
            finally:
                os.close(fd)
            return
        if time.monotonic() > deadline:
            raise LabFailed(
                "the lab's channel", expected=f"a free port within {timeout_s:.0f} s", got=f"{CHANNEL_PORTS} in use"
            )
        time.sleep(FREE_PORT_POLL_S)
