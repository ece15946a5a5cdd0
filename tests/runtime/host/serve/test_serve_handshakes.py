"""TLS connections whose clients do not shake hands: few at once, not for long, and in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.servedmanager import ScriptedManager, zoned
from support.tlshost import tls_host

from runtime.host import certificates
from runtime.host.api import host_pb2 as pb
from runtime.host.client import connect
from runtime.host.client.endpoint import Credentials, Endpoint
from runtime.host.serve import handshakes


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def host(tmp_path: Path, port: int) -> Path:
    directory = tls_host(tmp_path / "host", port)
    certificates.make_client(directory, "me")
    return directory


@pytest.fixture
def server(host: Path, tmp_path: Path) -> Iterator[None]:
    with zoned(ScriptedManager(), tmp_path / "s", host):
        yield


def ask(host: Path, port: int) -> str:
    credentials = Credentials(host / "clients" / "me")
    endpoint = Endpoint(f"tls://127.0.0.1:{port}", "tls", host="127.0.0.1", port=port, credentials=credentials)
    with connect(endpoint) as client:
        return client.call(client.host.ListZones, pb.ListZonesRequest(all=True), timeout_s=120).zones[0].name


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def until_closed(sock: socket.socket) -> None:
    deadline = time.monotonic() + 120
    while not is_closed(sock):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("server")
def test_a_crowd_that_does_not_shake_hands_is_bounded_and_in_nobodys_way(
    host: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "TIMEOUT_S", 120.0)
    with contextlib.ExitStack() as crowd:
        silent = [
            crowd.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(handshakes.AT_ONCE + 5)
        ]
        for sock in silent[:5]:
            until_closed(sock)  # the oldest; the others are still waited for
        assert ask(host, port) == "web"
        assert not is_closed(silent[-1])


def test_a_handshake_that_takes_too_long_is_ended(
    host: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "TIMEOUT_S", 0.1)
    with zoned(ScriptedManager(), tmp_path / "s", host), socket.create_connection(("127.0.0.1", port)) as silent:
        until_closed(silent)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\x00" * 512])
def test_what_is_no_handshake_is_dropped(host: Path, port: int, tmp_path: Path, said: bytes) -> None:
    with zoned(ScriptedManager(), tmp_path / "s", host):
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(said)
            other.shutdown(socket.SHUT_WR)
            other.settimeout(120)
            with contextlib.suppress(ConnectionError):
                while other.recv(4096):
                    pass
        assert ask(host, port) == "web"


@pytest.mark.usefixtures("server")
def test_words_that_come_with_the_handshakes_last_bytes_are_heard(host: Path, port: int) -> None:
    """A client of TLS 1.3 may send its first request together with its certificate."""
    context = ssl.create_default_context(cafile=host / "clients" / "me" / "ca.pem")
    context.load_cert_chain(host / "clients" / "me" / "client.pem", host / "clients" / "me" / "client.key")
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(120)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(1 << 16))
        ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"pingpong"
        tls.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + ping)
        sock.sendall(outgoing.read())
        heard = b""
        while b"pingpong" not in heard:
            incoming.write(sock.recv(1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                while piece := tls.read(1 << 16):
                    heard += piece


@pytest.mark.parametrize("done", [True, False])
def test_a_connection_that_is_lost_while_it_is_handed_over(done: bool) -> None:
    """asyncio may have its end on the list already: who serves it hears of it all the same, or never of it at all."""
    told: list[str] = []

    class Served(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            told.append("made")

        def data_received(self, data: bytes) -> None:
            told.append(data.decode())

        def connection_lost(self, exc: Exception | None) -> None:
            told.append("lost")

    early = handshakes._Early()
    early.data_received(b"fir")
    early.data_received(b"st")
    if done:
        hand_over(early, Served())
    early.connection_lost(None)
    assert early.lost
    assert told == (["made", "first", "lost"] if done else [])


def hand_over(early: handshakes._Early, served: asyncio.Protocol) -> None:
    class Transport(asyncio.Transport):
        def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
            assert protocol is served

    early.hand_over(Transport(), served)
