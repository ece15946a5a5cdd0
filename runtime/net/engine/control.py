"""The engine's control socket: one JSON object per packet, an answer for each; listeners travel as descriptors.

Operations, of the network: {"op": "status"} -> {"zones": [NAME, ...]}; {"op": "resolve", "resolvers": [address, ...]};
{"op": "admit", "zone": NAME, "addresses": [IPv4, IPv6], "echo": its identifier, "egress": [rule, ...]} with the sockets
of model.INSIDE.
Of one zone, each with "zone": NAME: {"op": "status"} -> {"counters": {...}}; {"op": "flows", "after": [...]} ->
{"flows": [...]}, a page of them (flows.page), until one is empty; {"op": "publish", "key": K, "zone_port": N} with one
listener; {"op": "unpublish", "key": K}; {"op": "egress", "rules": [rule, ...]}, all of them, for what begins from then
on; {"op": "handback"} -> {"inside": [NAME, ...], "published": [[K, N], ...]} with a duplicate of every socket, those of
INSIDE first; {"op": "leave"}.
"admit" and "publish" of what is there already take its place: whoever asks again got no answer.
An answer {"error": sentence} says no; with "unknown": true because there is no such zone, or no such port of it.
"""

from __future__ import annotations

import array  # noqa: F401  send_fds and recv_fds import it, when there are no files any more
import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.model import INSIDE
from runtime.unixconnect import connect

PACKET_BYTES = 65536
MAX_DESCRIPTORS = 253  # in one packet: include/net/scm.h, SCM_MAX_FD
_CLIENTS = 8
_PAUSE_S = 1.0

# Takes the request, the descriptors that came with it, and a list for those that are to go with the answer.
Operation = Callable[[dict[str, Any], list[socket.socket], list[socket.socket]], dict[str, Any]]


class ControlServer:
    """Accepts clients on the listener (SOCK_SEQPACKET) and answers them through `operate`."""

    def __init__(self, loop: Loop, listener: socket.socket, operate: Operation) -> None:
        self._loop, self._listener, self._operate = loop, listener, operate
        self._clients: set[socket.socket] = set()
        self._paused_until = 0.0
        listener.setblocking(False)
        loop.watch(listener, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take a client or one request."""
        if source is self._listener:
            try:
                client, _ = source.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:
                # Out of descriptors or memory: the listener stays readable and would keep the loop busy.
                self._paused_until = time.monotonic() + _PAUSE_S
                self._loop.watch(source, self, 0)
                self._loop.urgent.add(self)
                return
            client.setblocking(False)
            self._clients.add(client)
            self._loop.watch(client, self, READ)
            self._listen()
            return
        try:
            packet, descriptors, _, _ = socket.recv_fds(source, PACKET_BYTES, len(INSIDE))
            passed = [socket.socket(fileno=fd) for fd in descriptors]
            if not packet:
                raise EOFError
            back: list[socket.socket] = []
            answer = json.dumps(self._answer(packet, passed, back)).encode()
            socket.send_fds(source, [answer], [item.fileno() for item in back])
        except BlockingIOError:
            return
        except (OSError, EOFError):
            self._loop.forget(source)
            self._clients.discard(source)
            source.close()
            self._listen()

    def _listen(self) -> None:
        """Take no more clients than there is room for: others wait in the backlog, and in front of it."""
        if self not in self._loop.urgent:
            self._loop.watch(self._listener, self, READ if len(self._clients) < _CLIENTS else 0)

    def _answer(self, packet: bytes, passed: list[socket.socket], back: list[socket.socket]) -> dict[str, Any]:
        try:
            return self._operate(json.loads(packet), passed, back)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            for item in passed:
                item.close()
            return {"error": f"bad request: {error!r}"}

    def tick(self, now: float) -> None:
        """End a pause."""
        if now >= self._paused_until:
            self._loop.urgent.discard(self)
            self._listen()

    def abort(self) -> None:
        """One request failed in an unforeseen way; the others go on."""


def ask(
    path: str,
    request: dict[str, Any],
    *,
    timeout_s: float,
    passed: Sequence[socket.socket] = (),
    received: list[socket.socket] | None = None,
) -> Any:
    """Send one request to an engine and return its answer. Raises OSError, also when the engine ends meanwhile.

    passed:    descriptors that go with the request.
    received:  where the descriptors that come with the answer go; the caller closes them.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        connect(client, path, timeout_s)
        socket.send_fds(client, [json.dumps(request).encode()], [item.fileno() for item in passed])
        answer, came, _, _ = socket.recv_fds(client, PACKET_BYTES, 0 if received is None else MAX_DESCRIPTORS)
    if received is not None:
        received += [socket.socket(fileno=fd) for fd in came]
    if not answer:
        raise ConnectionResetError("the engine closed the connection")
    return json.loads(answer)
