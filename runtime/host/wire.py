"""The control protocol: JSON lines over a byte stream (a virtio-serial port or a unix socket), both ends.

    client -> server   {"session": S}                        a new client is here; nobody waits for older calls
                       {"id": I, "method": M, "params": {}}  I is unique over all clients
                       {"id": I, "cancel": true}             the client no longer waits for I
    server -> client   {"id": I, "event": {...}}  any number of times, then one of
                       {"id": I, "result": ...} | {"id": I, "error": {kind, subject, expected, got, hint, temporary}}

A serial port has no connections: a client may vanish between two bytes and the next one find the rest of an answer that
is not its own. So each client starts with a newline (which ends any half line) and its session; each side skips what it
cannot parse; a client skips identifiers it did not make; the server works on while nobody listens, and forgets.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import SentenceError
from runtime.errors import RuntimeFault
from runtime.host.faults import CallTimeout, ConnectionLost, fault_body, remote_fault
from runtime.host.unixsocket import connect_unix

log = logging.getLogger(__name__)

LINE_LIMIT_BYTES = 8 << 20
CALLS_AT_ONCE = 32
READ_BYTES = 1 << 16
# A virtio-serial port without a host side reads as ended and polls as hung up, at once and always; what happens to it
# then, only edges tell. The word that a host side has come or gone takes another way than the data and may arrive after
# the next client's first request.
LOOK_AGAIN_S = 2.0  # an edge is a hint
HANGUP_PAUSE_S = 0.05
HANGUP_PATIENCE_S = 5.0
SHORT_PAUSE_S = 0.1  # of descriptors, memory or threads, which others may give back


class Lines:
    """Bytes in, whole JSON objects out. Whatever is no JSON object is dropped, a line that is too long as well."""

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._buffer = bytearray()
        self._limit_bytes = limit_bytes
        self._skipping = False
        self._seen = 0

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The documents that `data` completes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._seen)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._seen = 0
            if self._skipping:
                self._skipping = False
            elif (document := _parse(line)) is not None:
                yield document
        self._seen = len(self._buffer)
        if len(self._buffer) > self._limit_bytes:
            self._buffer.clear()
            self._seen, self._skipping = 0, True


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        log.warning("dropped %d bytes that are no JSON line", len(line))
        return None
    return document if isinstance(document, dict) else None


def encode(document: Mapping[str, Any]) -> bytes:
    """One line of the protocol."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


# -- server ------------------------------------------------------------------------------------------------------------


class Call:
    """One request on its way. A method gets its parameters and this, to be called with what it has to tell."""

    def __init__(self, stream: _Stream, identifier: str) -> None:
        self._stream, self.identifier = stream, identifier
        self._gone = threading.Event()

    @property
    def gone(self) -> bool:
        """True once nobody waits for the answer: a method that streams should end then."""
        return self._gone.is_set()

    def wait_gone(self, timeout_s: float) -> bool:
        """Sleep up to `timeout_s`, but only while somebody waits for the answer; returns `gone`."""
        return self._gone.wait(timeout_s)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._gone.set()

    def __call__(self, **event: Any) -> bool:
        """Send an event; False when nobody listens any more (never an error: work must not depend on listeners)."""
        return not self.gone and self._stream.send({"id": self.identifier, "event": event})


Method = Callable[[dict[str, Any], Call], Any]


class Server:
    """Serves one method table on any number of streams; every request has its own thread."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self.methods = methods

    def serve(self, fd: int, *, until_hangup: bool) -> None:
        """Serve a file descriptor in this thread.

        until_hangup: True for a connection, whose end is the end; False for a serial port, where the next client
                      arrives on the same descriptor.
        Effects: sets O_NONBLOCK on `fd`; does not close it.
        """
        os.set_blocking(fd, False)
        stream = _Stream(fd)
        try:
            for document in stream.documents(until_hangup=until_hangup):
                self._take(stream, document)
        finally:
            stream.abandon_calls()

    def serve_port(self, path: Path) -> threading.Thread:
        """Serve a character device (a virtio-serial port) for ever, in a thread of its own."""

        def run() -> None:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            with contextlib.suppress(OSError):
                self.serve(fd, until_hangup=False)
            os.close(fd)
            log.warning("port %s is gone", path)

        return _thread(run, f"port {path.name}")

    def listen(self, path: Path, *, mode: int = 0o600) -> socket.socket:
        """Serve a unix socket; the caller keeps the returned listener, closing it ends the service.

        Effects: replaces a socket file that is there, as nobody serves it: the caller holds the daemon's lock.
        """
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(64)
        _thread(lambda: self._accept(listener), f"socket {path.name}")
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    return  # the listener was closed
                log.warning("a client cannot be taken now: %s", error)
                time.sleep(SHORT_PAUSE_S)
                continue
            try:
                _thread(partial(self._connection, connection), "connection")
            except RuntimeError as error:  # no further thread; whoever asks again may find one
                log.warning("a client is sent away: %s", error)
                connection.close()
                time.sleep(SHORT_PAUSE_S)

    def _connection(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.serve(connection.fileno(), until_hangup=True)

    def _take(self, stream: _Stream, document: dict[str, Any]) -> None:
        if "session" in document:
            stream.abandon_calls()
            return
        identifier, method, params = document.get("id"), document.get("method"), document.get("params", {})
        if not isinstance(identifier, str):
            return
        if document.get("cancel") is True:
            stream.abandon(identifier)
            return
        if not isinstance(method, str) or not isinstance(params, dict):
            stream.send(_error_line(identifier, _bad_request("a method name and an object of parameters")))
            return
        if method not in self.methods:
            stream.send(_error_line(identifier, _bad_request(f"one of the methods {', '.join(sorted(self.methods))}")))
            return
        call = Call(stream, identifier)
        if not stream.admit(call):
            stream.send(_error_line(identifier, _bad_request(f"at most {CALLS_AT_ONCE} calls at once")))
            return
        try:
            _thread(lambda: self._run(stream, call, method, params), f"call {method}")
        except RuntimeError as error:
            stream.retire(call)
            short = RuntimeFault(f"method {method}", expected="a thread for it", got=str(error), temporary=True)
            stream.send(_error_line(identifier, short))

    def _run(self, stream: _Stream, call: Call, method: str, params: dict[str, Any]) -> None:
        try:
            line = {"id": call.identifier, "result": self.methods[method](params, call)}
            encode(line)
        except SentenceError as error:
            line = _error_line(call.identifier, error)
        except Exception as error:
            log.exception("method %s", method)
            why = f"{type(error).__name__}: {error}"
            fault = RuntimeFault(f"method {method}", got=why, hint="see zoned's log")
            line = _error_line(call.identifier, fault)
        stream.retire(call)
        if not call.gone:
            stream.send(line)


def _bad_request(expected: str) -> RuntimeFault:
    return RuntimeFault("request", expected=expected, got="another request")


def _error_line(identifier: str, error: SentenceError) -> dict[str, Any]:
    return {"id": identifier, "error": fault_body(error)}


class _Stream:
    """One descriptor served: whole lines out, documents in, and the calls that run for its client."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._write_lock = threading.Lock()
        self._calls_lock = threading.Lock()
        self._calls: dict[str, Call] = {}

    def documents(self, *, until_hangup: bool) -> Iterator[dict[str, Any]]:
        """What the client sends, as it comes."""
        lines = Lines()
        with select.epoll() as edges:
            edges.register(self._fd, select.EPOLLIN | select.EPOLLET)
            while True:
                try:
                    data = os.read(self._fd, READ_BYTES)
                except BlockingIOError:
                    edges.poll(LOOK_AGAIN_S)
                    continue
                if data:
                    yield from lines.feed(data)
                elif until_hangup:
                    return
                else:
                    # No reason to give up what was read or begun: it may be the next client's. A new session says so.
                    edges.poll(LOOK_AGAIN_S)

    def send(self, document: Mapping[str, Any]) -> bool:
        """Write one whole line; False when the other side is gone, and stays gone for HANGUP_PATIENCE_S."""
        data = memoryview(encode(document))
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        deadline = time.monotonic() + HANGUP_PATIENCE_S
        with self._write_lock:
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                    continue
                except BlockingIOError:
                    events = poll.poll(1000)
                except OSError:
                    return False
                if any(flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, flags in events):
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(HANGUP_PAUSE_S)
        return True

    def admit(self, call: Call) -> bool:
        """Count a call in, unless there are too many."""
        with self._calls_lock:
            if len(self._calls) >= CALLS_AT_ONCE or call.identifier in self._calls:
                return False
            self._calls[call.identifier] = call
            return True

    def retire(self, call: Call) -> None:
        """A call has its answer."""
        with self._calls_lock:
            self._calls.pop(call.identifier, None)

    def abandon(self, identifier: str) -> None:
        """The client no longer waits for one call."""
        with self._calls_lock:
            call = self._calls.get(identifier)
        if call is not None:
            call.abandon()

    def abandon_calls(self) -> None:
        """The client of all calls so far is gone."""
        with self._calls_lock:
            calls = list(self._calls.values())
        for call in calls:
            call.abandon()


def _thread(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


# -- client ------------------------------------------------------------------------------------------------------------


class Client:
    """One client on a connected socket: one call at a time. A context manager; leaving it closes the socket."""

    def __init__(self, connection: socket.socket, *, peer: str = "zoned") -> None:
        self._socket, self._peer = connection, peer
        self._lines = Lines()
        self._send(b"\n" + encode({"session": secrets.token_hex(8)}), time.monotonic() + 10)

    @classmethod
    def connect(cls, path: Path, *, timeout_s: float = 10, peer: str = "zoned") -> Client:
        """A client of the unix socket `path`, however long that path is. Raises OSError, as connect(2) does."""
        return cls(connect_unix(path, timeout_s=timeout_s), peer=peer)

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_event: Callable[[Any], None] | None = None,
        timeout_s: float | None = 60,
    ) -> Any:
        """Call a method and wait for its answer; timeout_s None waits as long as the other side lives.

        Raises:  RemoteFault (the method's own error), CallTimeout, ConnectionLost.
        Effects: an interrupt or a timeout tells the server that nobody waits any more.
        """
        identifier = secrets.token_hex(8)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._send(encode({"id": identifier, "method": method, "params": dict(params or {})}), deadline)
        try:
            return self._await(identifier, method, on_event, deadline, timeout_s)
        except (CallTimeout, KeyboardInterrupt):
            with contextlib.suppress(RuntimeFault):
                self._send(encode({"id": identifier, "cancel": True}), time.monotonic() + 1)
            raise

    def _await(
        self,
        identifier: str,
        method: str,
        on_event: Callable[[Any], None] | None,
        deadline: float | None,
        timeout_s: float | None,
    ) -> Any:
        while True:
            for document in self._lines.feed(self._receive(method, deadline, timeout_s)):
                if document.get("id") != identifier:
                    continue
                if "event" in document and on_event is not None:
                    on_event(document["event"])
                elif "result" in document:
                    return document["result"]
                elif "error" in document:
                    raise remote_fault(document["error"])

    def _receive(self, method: str, deadline: float | None, timeout_s: float | None) -> bytes:
        self._socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
        try:
            data = self._socket.recv(READ_BYTES)
        except TimeoutError:
            raise CallTimeout(
                f"call {method!r} to {self._peer}",
                expected=f"an answer within {timeout_s:g} s",
                got="none",
                temporary=True,
            ) from None
        except OSError as error:
            raise self._lost(str(error)) from error
        if not data:
            raise self._lost("it closed the connection")
        return data

    def _send(self, data: bytes, deadline: float | None) -> None:
        self._socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise CallTimeout(
                self._peer, expected="it to take a request", got="a full channel", temporary=True
            ) from None
        except OSError as error:
            raise self._lost(str(error)) from error

    def _lost(self, why: str) -> ConnectionLost:
        return ConnectionLost(self._peer, got=f"the connection is lost: {why}", temporary=True)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call_socket(
    path: Path,
    method: str,
    params: Mapping[str, Any],
    *,
    on_event: Callable[[Any], None] | None = None,
    timeout_s: float | None = 60,
) -> Any:
    """One call over the unix socket `path`. Raises as `Client.call`; OSError where nobody listens."""
    with Client.connect(path) as client:
        return client.call(method, params, on_event=on_event, timeout_s=timeout_s)
