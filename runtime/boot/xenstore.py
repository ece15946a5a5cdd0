"""xenstore, through pyxs: the only module that knows pyxs, and the place where its limits end.

pyxs 0.4 is kept for the protocol (packets, operations, errors, the client's methods). Replaced here, and why:
  * Client.execute_command refuses empty, multi-line and non-ASCII values, which xenstore allows and guests write;
    its request ids outgrow the wire's 32 bits; it waits for each reply, where a transaction may send all at once.
  * Router waits with select(), which fails from descriptor 1024 on; dies on a reply nobody waits for; and when
    xenstored goes away, leaves every caller waiting for ever. Here replies time out, and a dead router ends them.
  * Monitor.wait has no time-out and its queue has no bound, so that a guest could fill our memory.
  * The transaction id is the client's: each transaction gets a client of its own on the shared connection.
  * commit() only says that it failed: `transaction` does the whole again, as xenstored's EAGAIN asks.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import os
import queue
import random
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from pyxs._internal import NUL, Op, Packet  # the words of the wire; pyxs has no other door to them
from pyxs.client import Client, Router
from pyxs.connection import UnixSocketConnection
from pyxs.exceptions import PyXSError
from pyxs.helpers import check_path, check_perms, check_watch_path, error

from runtime.boot.abi.rings import XENSTORE_PAYLOAD_MAX
from runtime.boot.errors import XenstoreFault
from runtime.boot.model import Domid, EvtchnPort, Mfn, Node

T = TypeVar("T")

_REPLY_TIMEOUT_S = 20.0
_TRANSACTION_TIMEOUT_S = 60.0
_MAX_EVENTS = 256  # watches are hints to look again: with that many waiting, one more tells nothing
_GONE = None

_request_ids = itertools.count(1)
_tokens = itertools.count(1)


class _Reply:
    """A reply to come; one reader, one writer."""

    def __init__(self, timeout_s: float) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._timeout_s = timeout_s

    def set(self, packet: Any) -> None:
        self._queue.put(packet)

    def get(self) -> Any:
        try:
            packet = self._queue.get(timeout=self._timeout_s)
        except queue.Empty:
            raise PyXSError(errno.ETIMEDOUT, f"no answer from xenstored in {self._timeout_s:g} s") from None
        if packet is _GONE:
            raise PyXSError(errno.ECONNRESET, "xenstored went away")
        return packet


class _Connection(UnixSocketConnection):  # type: ignore[misc]
    """The socket. Sends any number of packets at once, and gives out all packets one receive brought."""

    timeout_s = _REPLY_TIMEOUT_S

    def create_transport(self) -> Any:
        transport = super().create_transport()
        transport.sock.settimeout(self.timeout_s)  # a xenstored that reads no more must not block us for ever
        self._received = bytearray()
        return transport

    def send_all(self, packets: Iterable[Any]) -> None:
        """Send packets in order."""
        if not self.is_connected:
            raise PyXSError(errno.ECONNRESET, "xenstored went away")
        header = Packet._struct
        data = b"".join([header.pack(p.op, p.rq_id, p.tx_id, p.size) + p.payload for p in packets])
        try:
            self.transport.send(data)
        except OSError as problem:
            # Some of it may have been sent, and what came after would be read as the rest of it.
            with contextlib.suppress(OSError):
                self.transport.sock.shutdown(socket.SHUT_RDWR)
            raise PyXSError(problem.errno or errno.EIO, f"sending to xenstored: {problem}") from problem

    def receive(self) -> list[Any]:
        """Packets that are complete by now; blocks for bytes, not for whole packets."""
        data = self.transport.sock.recv(1 << 16)
        if not data:
            raise PyXSError(errno.ECONNRESET, "xenstored went away")
        self._received += data
        packets, position, header = [], 0, Packet._struct
        while position + header.size <= len(self._received):
            op, rq_id, tx_id, size = header.unpack_from(self._received, position)
            end = position + header.size + size
            if end > len(self._received):
                break
            packets.append(Packet(op, bytes(self._received[position + header.size : end]), rq_id, tx_id))
            position = end
        del self._received[:position]
        return packets


class _Router(Router):  # type: ignore[misc]
    """The thread that receives, for all clients and watches of one connection."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection)
        self.timeout_s = connection.timeout_s
        self.gone = False

    def __call__(self) -> None:
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        poll.register(self.r_terminator, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self.r_terminator.fileno() in ready:
                    break
                for packet in self.connection.receive():
                    self._dispatch(packet)
        except (OSError, PyXSError, ValueError):
            pass  # whatever it was, the connection is of no more use; callers hear of it below
        finally:
            with self.send_lock:
                self.gone = True
                waiting = list(self.rvars.values())
                self.rvars.clear()
                subscribers = [monitor for monitors in self.monitors.values() for monitor in monitors]
            for reply in waiting:
                reply.set(_GONE)
            for subscriber in subscribers:
                subscriber.events.put(_GONE)
            self.connection.close()
            self.r_terminator.close()
            self.w_terminator.close()

    def _dispatch(self, packet: Any) -> None:
        if packet.op == Op.WATCH_EVENT:
            path, token = packet.payload.split(NUL)[:2]
            for monitor in list(self.monitors.get(token, ())):
                monitor.events.put(path)
        elif (reply := self.rvars.pop(packet.rq_id, None)) is not None:
            reply.set(packet)

    def send_all(self, packets: Sequence[Any]) -> list[_Reply]:
        """Send packets with one system call; the replies to come, in order."""
        replies = [_Reply(self.timeout_s) for _ in packets]
        with self.send_lock:
            if self.gone:
                raise PyXSError(errno.ECONNRESET, "xenstored went away")
            self.rvars.update({packet.rq_id: reply for packet, reply in zip(packets, replies, strict=True)})
            self.connection.send_all(packets)
        return replies

    def terminate(self) -> None:
        with self.send_lock:
            if not self.gone and self.thread.is_alive():
                self.w_terminator.sendall(NUL)
        if self.thread.is_alive():
            self.thread.join()


class _Client(Client):  # type: ignore[misc]
    """One transaction, or none; clients of one router are cheap copies."""

    def packet(self, op: int, *arguments: bytes) -> Any:
        """A request of this client's transaction. Raises PyXSError E2BIG."""
        payload = b"".join(arguments)
        if len(payload) > XENSTORE_PAYLOAD_MAX:
            raise error(errno.E2BIG)
        return Packet(op, payload, rq_id=next(_request_ids) & 0xFFFFFFFF, tx_id=self.tx_id)

    def execute_command(self, op: int, *arguments: bytes, **_: Any) -> bytes:
        packet = self.packet(op, *arguments)
        payload = _checked(packet, self.router.send_all([packet])[0])
        return payload if op == Op.READ else payload.rstrip(NUL)


def _checked(request: Any, reply: _Reply) -> bytes:
    """The payload of a reply. Raises PyXSError for one that says error."""
    packet = reply.get()
    if packet.op == Op.ERROR:
        raise error(packet.payload.rstrip(NUL))
    if packet.op != request.op:
        raise PyXSError(errno.EPROTO, f"reply of type {packet.op} to a request of type {request.op}")
    return bytes(packet.payload)


class Transaction:
    """The requests of one transaction. Changes wait until `finish`, which sends them at once and checks all replies."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._waiting: list[tuple[str, bool, Any]] = []

    def read(self, path: str) -> str | None:
        """A value, or None where there is no such node. Sees the changes asked for before."""
        self.finish()
        return _read(self._client, path)

    def write(self, path: str, value: str) -> None:
        """Write a node, making it and its parents where they are missing."""
        self._add(path, Op.WRITE, _path(path), value.encode("utf-8"))

    def mkdir(self, path: str) -> None:
        """Make a node without changing one that is there."""
        self._add(path, Op.MKDIR, _path(path))

    def set_perms(self, path: str, perms: Sequence[str]) -> None:
        """Set owner and permissions, such as ("n0", "r5")."""
        words = [perm.encode("ascii") for perm in perms]
        check_perms(words)
        self._add(path, Op.SET_PERMS, _path(path), *(word + NUL for word in words))

    def remove(self, path: str) -> None:
        """Remove a node and all below it; one that is not there is fine."""
        self._add(path, Op.RM, _path(path), may_be_absent=True)

    def apply(self, nodes: Iterable[Node]) -> None:
        """Write planned nodes in order."""
        for node in nodes:
            if node.value is None:
                self.mkdir(node.path)
            else:
                self.write(node.path, node.value)
            if node.perms:
                self.set_perms(node.path, node.perms)

    def finish(self) -> None:
        """Send, and wait for all replies. Raises XenstoreFault for the first that is an error."""
        waiting, self._waiting = self._waiting, []
        first: XenstoreFault | None = None
        try:
            replies = self._client.router.send_all([packet for _, _, packet in waiting]) if waiting else []
        except PyXSError as problem:
            raise _fault(waiting[0][0], problem) from problem
        for (path, may_be_absent, packet), reply in zip(waiting, replies, strict=True):
            try:
                _checked(packet, reply)
            except PyXSError as problem:
                if not (may_be_absent and _number(problem) == errno.ENOENT):
                    first = first or _fault(path, problem)
                if _number(problem) == errno.ETIMEDOUT:
                    break  # each of the others would be waited for as long again
        if first is not None:
            raise first

    def _add(self, path: str, op: int, *arguments: bytes, may_be_absent: bool = False) -> None:
        try:
            self._waiting.append((path, may_be_absent, self._client.packet(op, *arguments)))
        except PyXSError as problem:
            raise _fault(path, problem) from problem


class Watch:
    """A watch on one path. Events are hints: look again, and expect one at the start.

    notify: called for each event, from the thread that receives them all: it must neither block nor raise.
    """

    def __init__(self, client: _Client, path: str, notify: Callable[[], None] | None = None) -> None:
        self._client, self._path, self._notify = client, path.encode("ascii"), notify
        self._token = b"zonewright-%d" % next(_tokens)
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        self._closed = False
        self.events = self  # pyxs's router calls subscriber.events.put
        check_watch_path(self._path)
        client.router.subscribe(self._token, self)
        try:
            client.ack(Op.WATCH, self._path + NUL, self._token + NUL)
        except PyXSError as problem:
            client.router.monitors.pop(self._token, None)
            raise _fault(path, problem) from problem

    def put(self, path: bytes | None) -> None:
        """Called by the router's thread: never blocks."""
        if path is _GONE or self._queue.qsize() < _MAX_EVENTS:
            self._queue.put(path)
        if self._notify is not None:
            self._notify()

    def take(self) -> bool:
        """Take all events that wait; True if there were any."""
        found = False
        while True:
            try:
                found = self._queue.get_nowait() is not _GONE or found
            except queue.Empty:
                return found

    def wait(self, timeout_s: float) -> str | None:
        """The path that changed, or None after timeout_s. Raises XenstoreFault when xenstored is gone."""
        try:
            path = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            path = b""
        if path is _GONE or self._client.router.gone:
            raise XenstoreFault("xenstore", got="xenstored went away")
        return path.decode("ascii", "replace") if path else None

    def close(self) -> None:
        """End the watch; wakes a waiter no earlier than its time-out; twice is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            self._client.ack(Op.UNWATCH, self._path + NUL, self._token + NUL)
        except PyXSError:
            pass  # gone with its connection
        self._client.router.monitors.pop(self._token, None)  # the token is this watch's alone

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class XenStore:
    """A connection to xenstored. Text in and out; any thread may use it.

    Raises (all methods): XenstoreFault; its `temporary` is True where trying again may help.
    """

    def __init__(self, path: str | None = None, *, timeout_s: float = _REPLY_TIMEOUT_S) -> None:
        connection = _Connection(path or socket_path())
        connection.timeout_s = timeout_s
        self._client = _Client(router=_Router(connection))
        try:
            self._client.connect()
        except PyXSError as problem:
            raise XenstoreFault(
                connection.path or "xenstore", got=str(problem), hint="is xenstored running in this domain?"
            ) from problem

    @property
    def gone(self) -> bool:
        """Has xenstored gone away? It does not come back to this connection."""
        return bool(self._client.router.gone)

    def read(self, path: str) -> str | None:
        """A value, or None where there is no such node. Bytes that are not ASCII become "\\ufffd"."""
        return _read(self._client, path)

    def children(self, path: str) -> list[str]:
        """Names of a node's children; [] where there is no such node."""
        try:
            return [name.decode("ascii", "replace") for name in self._client.list(_plain(path))]
        except PyXSError as problem:
            if _number(problem) == errno.ENOENT:
                return []
            raise _fault(path, problem) from problem

    def get_perms(self, path: str) -> list[str]:
        """Owner and permissions of a node."""
        try:
            return [perm.decode("ascii", "replace") for perm in self._client.get_perms(_plain(path))]
        except PyXSError as problem:
            raise _fault(path, problem) from problem

    def write(self, path: str, value: str) -> None:
        """Write one node, outside of any transaction."""
        single = Transaction(copy.copy(self._client))
        single.write(path, value)
        single.finish()

    def remove(self, path: str) -> None:
        """Remove a node and all below it; one that is not there is fine."""
        single = Transaction(copy.copy(self._client))
        single.remove(path)
        single.finish()

    def transaction(self, body: Callable[[Transaction], T]) -> T:
        """Do `body` as one change; done again from its start as long as somebody else's change comes between."""
        deadline = time.monotonic() + _TRANSACTION_TIMEOUT_S
        for attempt in itertools.count():
            client = copy.copy(self._client)
            try:
                client.transaction()
                transaction = Transaction(client)
                try:
                    result = body(transaction)
                    transaction.finish()
                except BaseException:
                    _rollback(client)
                    raise
                if client.commit():
                    return result
            except PyXSError as problem:
                raise _fault("transaction", problem) from problem
            if time.monotonic() > deadline:
                break
            time.sleep(random.uniform(0, min(0.2, 0.005 * 2**attempt)))
        got = f"others' changes for {_TRANSACTION_TIMEOUT_S:g} s"
        raise XenstoreFault(
            "xenstore transaction", expected="a moment without others' changes", got=got, temporary=True
        )

    def apply(self, nodes: Iterable[Node]) -> None:
        """Write planned nodes in one transaction."""
        planned = list(nodes)
        self.transaction(lambda transaction: transaction.apply(planned))

    def introduce(self, domid: Domid, store_mfn: Mfn, port: EvtchnPort) -> None:
        """Have xenstored serve a domain's ring."""
        try:
            self._client.introduce_domain(domid, store_mfn, port)
        except PyXSError as problem:
            raise _fault(f"introduce domain {domid}", problem) from problem

    def watch(self, path: str, notify: Callable[[], None] | None = None) -> Watch:
        """Watch a path, or "@releaseDomain"."""
        return Watch(self._client, path, notify)

    def close(self) -> None:
        """Close the connection; ends all watches."""
        self._client.close()

    def __enter__(self) -> XenStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def socket_path() -> str:
    """Where xenstored listens. Source: tools/libs/store of Xen, xs_daemon_socket."""
    return os.environ.get("XENSTORED_PATH") or "/run/xenstored/socket"


def _read(client: _Client, path: str) -> str | None:
    try:
        return bytes(client.read(_plain(path))).decode("ascii", "replace")
    except PyXSError as problem:
        if _number(problem) == errno.ENOENT:
            return None
        raise _fault(path, problem) from problem


def _rollback(client: _Client) -> None:
    try:
        client.rollback()
    except PyXSError:
        pass  # the transaction ends with the connection


def _plain(path: str) -> bytes:
    plain = path.encode("ascii", "replace")
    check_path(plain)
    return plain


def _path(path: str) -> bytes:
    try:
        return _plain(path) + b"\0"
    except PyXSError as problem:
        raise _fault(path, problem) from problem


def _number(problem: PyXSError) -> int:
    return problem.args[0] if problem.args and isinstance(problem.args[0], int) else 0


def _fault(path: str, problem: PyXSError) -> XenstoreFault:
    number = _number(problem)
    got = problem.args[1] if number and len(problem.args) > 1 else f"{type(problem).__name__} {problem}"
    temporary = number in (errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT)
    return XenstoreFault(f"xenstore {path}", got=str(got), temporary=temporary)
