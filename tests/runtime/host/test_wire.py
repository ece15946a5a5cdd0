"""The control protocol against clients that misbehave."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import RuntimeFault
from runtime.host import faults, wire
from runtime.host.unixsocket import connect_unix


class NoSuchThing(RuntimeFault):
    """An error of a method."""


def fail(params: dict[str, Any], emit: wire.Call) -> Any:
    raise NoSuchThing("zone x", expected="it", got="none", hint="look", temporary=True)


def count(params: dict[str, Any], emit: wire.Call) -> Any:
    for number in range(params["to"]):
        emit(number=number)
    return params["to"]


@pytest.fixture
def released() -> threading.Event:
    return threading.Event()


@pytest.fixture
def server(released: threading.Event) -> wire.Server:
    def hold(params: dict[str, Any], emit: wire.Call) -> Any:
        emit(stage="held")
        emit.wait_gone(30)
        if emit.gone:
            released.set()
        return None

    return wire.Server({"echo": lambda params, emit: params, "fail": fail, "count": count, "hold": hold, "bug": bug})


def bug(params: dict[str, Any], emit: wire.Call) -> Any:
    return 1 // 0


@pytest.fixture
def path(server: wire.Server, tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / ("long-name-" * 12)  # longer than a socket address may be
    directory.mkdir()
    here = os.getcwd()
    os.chdir(directory)
    try:
        listener = server.listen(Path("z.sock"))
    finally:
        os.chdir(here)
    yield directory / "z.sock"
    listener.close()


def test_result_events_and_errors_arrive_with_their_fields(path: Path) -> None:
    with wire.Client.connect(path) as client:
        assert client.call("echo", {"a": [1, "ü", None]}) == {"a": [1, "ü", None]}
        seen: list[Any] = []
        assert client.call("count", {"to": 3}, on_event=seen.append) == 3
        assert seen == [{"number": 0}, {"number": 1}, {"number": 2}]
        with pytest.raises(faults.RemoteFault) as caught:
            client.call("fail")
        error = caught.value
        assert (error.kind, error.subject, error.hint, error.temporary) == ("NoSuchThing", "zone x", "look", True)
        with pytest.raises(faults.RemoteFault, match="ZeroDivisionError"):
            client.call("bug")
        with pytest.raises(faults.RemoteFault, match="one of the methods bug, count, echo, fail, hold"):
            client.call("nope")


def test_answers_larger_than_any_socket_buffer_come_whole(path: Path) -> None:
    text = "x" * 3_000_000
    with wire.Client.connect(path) as client:
        assert client.call("echo", {"text": text}) == {"text": text}


def test_connecting_where_nobody_listens_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        wire.call_socket(tmp_path / "none.sock", "echo", {})


def test_a_timeout_is_told_to_the_server(path: Path, released: threading.Event) -> None:
    with wire.Client.connect(path) as client:
        with pytest.raises(faults.CallTimeout):
            client.call("hold", timeout_s=0.2)
        assert released.wait(120)
        assert client.call("echo", {"still": "works"}) == {"still": "works"}


def test_a_client_that_dies_in_a_call_leaves_the_server_working(path: Path, released: threading.Event) -> None:
    raw = connect_unix(path, timeout_s=120)
    raw.sendall(wire.encode({"id": "1", "method": "hold"}))
    assert raw.recv(4096)
    raw.close()
    assert released.wait(120)
    with wire.Client.connect(path) as client:
        assert client.call("echo", {"a": 1}) == {"a": 1}


def test_garbage_between_requests_is_skipped(path: Path) -> None:
    chance = random.Random(7)
    raw, lines = connect_unix(path, timeout_s=120), wire.Lines()
    for number in range(200):
        junk = chance.randbytes(chance.randrange(1, 200))
        raw.sendall(junk + b"\n" + b'["list"]\n{"id": 5}\n{"id": "x", "method": []}\n{"half": ')
        raw.sendall(b"\n" + wire.encode({"id": f"r{number}", "method": "echo", "params": {"n": number}}))
        answers: list[Any] = []
        while not answers:  # one at a time: more than CALLS_AT_ONCE would be refused
            documents = lines.feed(raw.recv(65536))
            answers = [document["result"] for document in documents if document.get("id") == f"r{number}"]
        assert answers == [{"n": number}]
    raw.close()


def test_a_line_without_end_does_not_grow_memory_and_the_next_one_is_read() -> None:
    lines = wire.Lines(limit_bytes=1000)
    for _ in range(50):
        assert list(lines.feed(b"x" * 400)) == []
        assert len(lines._buffer) <= 1000
    assert list(lines.feed(b'tail\n{"a":1}\n')) == [{"a": 1}]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_lines_may_come_in_pieces_of_any_size(size: int) -> None:
    data = b"".join(wire.encode({"n": number}) for number in range(20))
    lines, found = wire.Lines(), []
    for start in range(0, len(data), size):
        found += [document["n"] for document in lines.feed(data[start : start + size])]
    assert found == list(range(20))


def test_the_next_client_of_a_port_ignores_answers_to_the_last_one(
    server: wire.Server, released: threading.Event
) -> None:
    # A socket pair stands for the serial port: one descriptor, two clients one after the other.
    port, host = socket.socketpair()
    thread = threading.Thread(target=lambda: server.serve(port.fileno(), until_hangup=True), daemon=True)
    thread.start()
    host.sendall(
        wire.encode({"id": "old", "method": "hold"}) + wire.encode({"id": "old2", "method": "echo"}) + b'{"id": "ol'
    )
    second = wire.Client(host)
    assert second.call("echo", {"n": 2}) == {"n": 2}
    assert released.wait(120), "the first client's call was not told that nobody waits"
    second.close()
    thread.join(120)
    assert not thread.is_alive()
    port.close()


def test_port_whose_host_side_comes_and_goes_is_read_when_there_is_something(
    tmp_path: Path, server: wire.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A FIFO without a writer is as such a port: it reads as ended, and polls as hung up.
    monkeypatch.setattr(wire, "LOOK_AGAIN_S", None)  # only what is told
    taken: queue.Queue[Any] = queue.Queue()
    monkeypatch.setitem(server.methods, "take", lambda params, call: taken.put(params["n"]))
    os.mkfifo(tmp_path / "port")
    port = os.open(tmp_path / "port", os.O_RDONLY | os.O_NONBLOCK)
    reads, broken = 0, False
    read = os.read

    def counted(fd: int, size: int) -> bytes:
        nonlocal reads
        reads += fd == port
        if fd == port and broken:
            raise OSError(errno.EIO, "the port is gone")
        return read(fd, size)

    def serve() -> None:
        with contextlib.suppress(OSError):
            server.serve(port, until_hangup=False)

    def write(data: bytes) -> None:
        (tmp_path / "port").write_bytes(data)

    monkeypatch.setattr(os, "read", counted)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    for number in range(20):
        write(wire.encode({"id": str(number), "method": "take", "params": {"n": number}}))
        assert taken.get(timeout=120) == number
    assert reads <= 20 * 4, "it is not asked again and again while nobody is there"
    broken = True
    write(b"\n")
    thread.join(120)
    assert not thread.is_alive()
    os.close(port)


def test_more_calls_at_once_than_allowed_are_refused(path: Path) -> None:
    raw = connect_unix(path, timeout_s=120)
    for number in range(wire.CALLS_AT_ONCE + 1):
        raw.sendall(wire.encode({"id": str(number), "method": "hold"}))
    lines, refused = wire.Lines(), []
    while not refused:
        refused = [document for document in lines.feed(raw.recv(65536)) if "error" in document]
    assert refused[0]["error"]["expected"] == f"at most {wire.CALLS_AT_ONCE} calls at once"
    raw.close()


def short_of_threads(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """The next thread of this name cannot be started; what it gives has a word then."""
    start, failed = threading.Thread.start, []  # type: ignore[var-annotated]

    def sometimes(thread: threading.Thread) -> None:
        if thread.name == name and not failed:
            failed.append(name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", sometimes)
    return failed


def test_call_for_which_there_is_no_thread_is_refused_and_the_next_is_answered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = short_of_threads(monkeypatch, "call echo")
    with wire.Client.connect(path) as client:
        with pytest.raises(faults.RemoteFault, match="expected a thread for it, got can't start new thread") as caught:
            client.call("echo", {"n": 1})
        assert failed and caught.value.temporary
        assert client.call("echo", {"n": 2}) == {"n": 2}


def test_client_for_which_there_is_no_thread_is_sent_away_and_the_next_is_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = short_of_threads(monkeypatch, "connection")
    with pytest.raises(faults.ConnectionLost), wire.Client.connect(path) as client:
        client.call("echo", {"n": 1}, timeout_s=120)
    assert failed
    assert wire.call_socket(path, "echo", {"n": 2}) == {"n": 2}


def test_listener_that_cannot_take_a_client_now_takes_the_next(server: wire.Server) -> None:
    """And ends where it was closed."""
    ours, theirs = socket.socketpair()
    accepted: list[Any] = [OSError(errno.ENOMEM, "no memory"), OSError(errno.EPERM, "no"), (theirs, "")]

    class Listener:
        def accept(self) -> Any:
            outcome = accepted.pop(0) if accepted else OSError(errno.EBADF, "closed")
            if isinstance(outcome, OSError):
                raise outcome
            return outcome

    server._accept(Listener())  # type: ignore[arg-type]
    with wire.Client(ours) as client:
        assert client.call("echo", {"n": 1}) == {"n": 1}


def test_a_peer_that_closes_is_a_lost_connection() -> None:
    ours, theirs = socket.socketpair()
    with wire.Client(ours) as client:
        theirs.close()
        with pytest.raises(faults.ConnectionLost):
            client.call("echo")


def test_an_error_body_of_any_shape_becomes_a_fault() -> None:
    for body in (None, "text", {"subject": 5}, json.loads('{"got": null}')):
        assert isinstance(faults.remote_fault(body), faults.RemoteFault)
