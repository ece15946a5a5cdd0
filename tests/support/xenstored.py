"""A xenstored for tests: the real wire on a unix socket; transactions, permissions, watches, and faults on demand."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from dataclasses import dataclass, field

HEADER = struct.Struct("<IIII")
NAMES = [
    "debug",
    "directory",
    "read",
    "get_perms",
    "watch",
    "unwatch",
    "start",
    "end",
    "introduce",
    "release",
    "path",
    "write",
    "mkdir",
    "rm",
    "set_perms",
]


def write_as_guest(path: str, nodes: dict[str, str]) -> None:
    """What somebody in another process writes, with no client of ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        stream = connection.makefile("rb")
        for node, value in nodes.items():
            payload = f"{node}\0{value}".encode()
            connection.sendall(HEADER.pack(NAMES.index("write"), 0, 0, len(payload)) + payload)
            kind, _, _, size = HEADER.unpack(stream.read(HEADER.size))
            assert (kind, stream.read(size)) == (NAMES.index("write"), b"OK\0")


@dataclass
class Node:
    value: bytes = b""
    perms: tuple[bytes, ...] = (b"n0",)


@dataclass
class Work:
    """A transaction: its copy of the tree, the tree's generation at its start, what it changed."""

    nodes: dict[str, Node]
    generation: int
    changed: list[str] = field(default_factory=list)


class WireError(Exception):
    pass


def _end(sock: socket.socket) -> None:
    """Whoever reads from it, or accepts, hears of its end."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


class FakeXenstored:
    """Serves until closed.

    eagain:   so many commits fail with EAGAIN, as if somebody else had changed the tree.
    fail_at:  the n-th request is answered EIO.
    silent:   requests are read and not answered.
    """

    def __init__(self, directory: os.PathLike[str] | str) -> None:
        self.path = os.path.join(directory, "xenstored.sock")
        self.nodes: dict[str, Node] = {"/": Node()}
        for path in ("/local", "/local/domain", "/local/domain/0", "/local/domain/0/backend", "/tool"):
            self.nodes[path] = Node()
        self.generation = 0
        self.introduced: list[tuple[int, int, int]] = []
        self.requests: list[str] = []
        self.commits = 0
        self.eagain, self.fail_at, self.silent = 0, None, False
        self.lock = threading.RLock()
        self._last_transaction = 0
        self._watches: list[tuple[socket.socket, str, bytes]] = []
        self._listen()

    def _listen(self) -> None:
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def restart(self) -> None:
        """Another process with the same tree: connections, and with them watches and transactions, are gone."""
        self.close()
        self._watches.clear()
        os.unlink(self.path)
        self._listen()

    def close(self) -> None:
        _end(self._listener)
        self._threads[0].join(120)  # from now on no connection comes
        for connection in self._connections:
            _end(connection)
        for thread in self._threads[1:]:
            thread.join(120)

    def value(self, path: str) -> str | None:
        with self.lock:
            return self.nodes[path].value.decode() if path in self.nodes else None

    def below(self, path: str) -> list[str]:
        with self.lock:
            return sorted(name for name in self.nodes if name == path or name.startswith(path + "/"))

    def put(self, path: str, value: bytes, perms: tuple[bytes, ...] | None = None) -> None:
        """A change made by somebody else."""
        with self.lock:
            self._write(self.nodes, path, value)
            if perms:
                self.nodes[path].perms = perms
            self.generation += 1
            self._fire(path)

    def remove(self, path: str) -> None:
        """A removal made by somebody else; a transaction that was begun before does not bring it back."""
        with self.lock:
            for name in self.below(path):
                del self.nodes[name]
            self.generation += 1
            self._fire(path)

    def fire(self, path: str) -> None:
        with self.lock:
            self._fire(path)

    # -- wire

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        transactions: dict[int, Work] = {}
        stream = connection.makefile("rb")
        try:
            while header := stream.read(HEADER.size):
                kind, request, transaction, size = HEADER.unpack(header)
                payload = stream.read(size)
                if self.silent:
                    continue
                with self.lock:
                    self.requests.append(NAMES[kind])
                    try:
                        if len(self.requests) == self.fail_at:
                            raise WireError("EIO")
                        reply = self._handle(connection, transactions, NAMES[kind], transaction, payload)
                    except WireError as problem:
                        kind, reply = 16, str(problem).encode() + b"\0"
                    connection.sendall(HEADER.pack(kind, request, transaction, len(reply)) + reply)
                    if kind == 4:
                        path, token = payload.split(b"\0")[:2]
                        self._event(connection, path, token)
        except (OSError, ValueError):
            pass

    def _event(self, connection: socket.socket, path: bytes, token: bytes) -> None:
        payload = path + b"\0" + token + b"\0"
        try:
            connection.sendall(HEADER.pack(15, 0, 0, len(payload)) + payload)
        except OSError:
            pass

    def _fire(self, path: str) -> None:
        for connection, watched, token in list(self._watches):
            if path == watched or path.startswith(watched + "/"):
                self._event(connection, path.encode(), token)

    # -- requests

    def _handle(self, connection, transactions, name: str, transaction: int, payload: bytes) -> bytes:  # type: ignore[no-untyped-def]
        words = payload.split(b"\0")
        path = words[0].decode()
        if name == "start":
            self._last_transaction += 1
            number = self._last_transaction
            nodes = {key: Node(node.value, node.perms) for key, node in self.nodes.items()}
            transactions[number] = Work(nodes, self.generation)
            return b"%d\0" % number
        if name == "end":
            return self._end(transactions.pop(transaction), words[0])
        work = transactions[transaction] if transaction else None
        nodes = work.nodes if work else self.nodes
        if name in ("watch", "unwatch"):
            entry = (connection, path, words[1])
            self._watches.append(entry) if name == "watch" else self._watches.remove(entry)
            return b"OK\0"
        if name == "introduce":
            domid, mfn, port = (int(word) for word in words[:3])
            self.introduced.append((domid, mfn, port))
            return b"OK\0"
        if name in ("write", "mkdir", "rm", "set_perms"):
            getattr(self, "_" + name)(nodes, path, payload[len(words[0]) + 1 :])
            if work:
                work.changed.append(path)
            else:
                self.generation += 1
                self._fire(path)
            return b"OK\0"
        if path not in nodes:
            raise WireError("ENOENT")
        if name == "read":
            return nodes[path].value
        if name == "get_perms":
            return b"".join(perm + b"\0" for perm in nodes[path].perms)
        prefix = path.rstrip("/") + "/"
        names = {key[len(prefix) :].split("/")[0] for key in nodes if key.startswith(prefix) and key != "/"}
        listing = b"".join(child.encode() + b"\0" for child in sorted(names))
        if len(listing) > 4096:  # xs_wire.h, XENSTORE_PAYLOAD_MAX
            raise WireError("E2BIG")
        return listing

    def _end(self, work: Work, word: bytes) -> bytes:
        if word == b"T":
            if self.eagain or (work.generation != self.generation):
                self.eagain = max(0, self.eagain - 1)
                raise WireError("EAGAIN")
            self.nodes = work.nodes
            self.generation += 1
            self.commits += 1
            for path in work.changed:
                self._fire(path)
        return b"OK\0"

    def _write(self, nodes: dict[str, Node], path: str, value: bytes) -> None:
        self._mkdir(nodes, path, b"")
        nodes[path].value = value

    def _mkdir(self, nodes: dict[str, Node], path: str, _: bytes) -> None:
        if path in nodes:
            return
        parent = os.path.dirname(path)
        self._mkdir(nodes, parent, b"")
        nodes[path] = Node(perms=nodes[parent].perms)

    def _rm(self, nodes: dict[str, Node], path: str, _: bytes) -> None:
        if path not in nodes and os.path.dirname(path) not in nodes:
            raise WireError("ENOENT")
        for name in [name for name in nodes if name == path or name.startswith(path + "/")]:
            del nodes[name]

    def _set_perms(self, nodes: dict[str, Node], path: str, payload: bytes) -> None:
        if path not in nodes:
            raise WireError("ENOENT")
        nodes[path].perms = tuple(payload.split(b"\0")[:-1])
