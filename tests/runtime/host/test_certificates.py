"""Certificates: who is let in over TLS, by which of them, and what the files are."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from support.ports import free_port
from support.servedmanager import ScriptedManager, zoned
from support.tlshost import tls_host

from runtime.errors import RuntimeFault
from runtime.host import certificates
from runtime.host.api import host_pb2 as pb
from runtime.host.certificates import CertificateProblem
from runtime.host.client import connect
from runtime.host.client.endpoint import Credentials, Endpoint
from runtime.host.faults import HostDown
from runtime.host.serve.tls import TlsUnfit, find_credentials


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def host(tmp_path: Path, port: int) -> Path:
    """A host's TLS directory."""
    return tls_host(tmp_path / "host", port)


@pytest.fixture
def server(host: Path, tmp_path: Path) -> Iterator[object]:
    with zoned(ScriptedManager(), tmp_path / "s", host) as server:
        yield server


def ask(port: int, directory: Path, *, name: str = "127.0.0.1") -> str:
    """The name of the only zone, over TLS."""
    endpoint = Endpoint(f"tls://{name}:{port}", "tls", host=name, port=port, credentials=Credentials(directory))
    with connect(endpoint) as client:
        return client.call(client.host.ListZones, pb.ListZonesRequest(all=True), timeout_s=120).zones[0].name


def client_of(host: Path, name: str = "me", **options: int) -> Path:
    certificates.make_client(host, name, **options)
    return host / "clients" / name


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_client_of_this_host_is_let_in(host: Path, port: int, name: str) -> None:
    assert ask(port, client_of(host), name=name) == "web"


def test_both_sides_notice_when_the_other_machine_is_gone(host: Path, port: int, tmp_path: Path) -> None:
    endpoint = Endpoint("tls://h", "tls", host="127.0.0.1", port=port, credentials=Credentials(client_of(host)))
    with zoned(ScriptedManager(), tmp_path / "s", host), connect(endpoint) as client:
        client.call(client.host.ListZones, pb.ListZonesRequest(all=True))
        deadline = time.monotonic() + 120
        while _keepalive_timers(port) != 2:  # the kernel shows another timer while something is not acknowledged
            assert time.monotonic() < deadline
            client.run(asyncio.sleep(0.05))


def _keepalive_timers(port: int) -> int:
    said = subprocess.run(["ss", "-tnoH", f"sport = :{port} or dport = :{port}"], check=True, capture_output=True)
    return said.stdout.count(b"timer:(keepalive")


@pytest.mark.usefixtures("server")
def test_a_client_without_a_certificate_is_shut_out(host: Path, port: int) -> None:
    context, heard = ssl.create_default_context(cafile=host / "ca.pem"), b""
    with (
        contextlib.suppress(OSError),  # the alert, or a mere reset
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while data := tls.recv(4096):
            heard += data
    assert heard == b""


@pytest.mark.usefixtures("server")
def test_a_client_that_speaks_no_tls_is_shut_out(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=120) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64))
        received = b""
        while data := raw.recv(4096):
            received += data
    assert b"web" not in received and len(received) < 16  # an alert


@pytest.mark.usefixtures("server")
def test_tls_older_than_1_2_is_refused(host: Path, port: int) -> None:
    directory = client_of(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.load_verify_locations(host / "ca.pem")
    context.load_cert_chain(directory / "client.pem", directory / "client.key")
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", port)) as raw:
        context.wrap_socket(raw, server_hostname="127.0.0.1")


@pytest.mark.usefixtures("server")
def test_a_client_of_another_authority_is_refused_in_words(host: Path, port: int, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.make_server(other, ["127.0.0.1"])
    stranger = client_of(other)
    shutil.copy(host / "ca.pem", stranger / "ca.pem")  # it believes this host, but the host does not believe it
    with pytest.raises(HostDown, match=r"it to take this client's certificate, got .*another authority"):
        ask(port, stranger)


@pytest.mark.usefixtures("server")
def test_a_server_of_another_authority_is_not_believed(port: int, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.make_server(other, ["127.0.0.1"])
    with pytest.raises(HostDown, match="a zoned this client may trust, got a certificate that does not hold"):
        ask(port, client_of(other))


@pytest.mark.usefixtures("server")
def test_an_expired_client_is_refused_in_words(host: Path, port: int) -> None:
    with pytest.raises(HostDown, match="it has expired on 20"):
        ask(port, client_of(host, days=0))


@pytest.mark.usefixtures("server")
def test_a_servers_certificate_does_not_pass_for_a_clients(host: Path, port: int, tmp_path: Path) -> None:
    stranger = client_of(host)
    shutil.copy(host / "server.pem", stranger / "client.pem")
    shutil.copy(host / "server.key", stranger / "client.key")
    with pytest.raises(HostDown, match="it to take this client's certificate"):
        ask(port, stranger)


@pytest.mark.usefixtures("server")
def test_a_name_the_server_has_no_certificate_for_is_not_believed(host: Path) -> None:
    certificates.make_server(host, ["elsewhere"])
    directory = client_of(host)
    other = free_port()
    with zoned(ScriptedManager(), host / "s2", _moved(host, other)), pytest.raises(HostDown, match="does not hold"):
        ask(other, directory)


def _moved(host: Path, port: int) -> Path:
    copy = host.with_name("moved")
    shutil.copytree(host, copy)
    (copy / "listen").write_text(f"127.0.0.1:{port}")
    return copy


def test_a_new_authority_shuts_out_every_client_made_before(server: object, host: Path, port: int) -> None:
    old = host.with_name("old")
    certificates.make_client(host, "me", into=old)
    endpoint = Endpoint("tls://h", "tls", host="127.0.0.1", port=port, credentials=Credentials(old))
    with connect(endpoint) as client:
        assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones
        certificates.renew_authority(host, ["127.0.0.1"])
        assert server("reload")  # type: ignore[operator]
        with pytest.raises(RuntimeFault):  # the open connection has ended, too
            client.call(client.host.ListZones, pb.ListZonesRequest(all=True))
    with pytest.raises(HostDown):
        ask(port, old)
    assert ask(port, client_of(host, "new")) == "web"


@pytest.mark.parametrize("missing", ["ca.pem", "server.key"])
def test_credentials_that_are_not_whole_keep_tls_closed(
    host: Path, port: int, tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    (host / missing).unlink()
    with zoned(ScriptedManager(), tmp_path / "s", host) as server, connect(f"unix:{tmp_path}/s") as client:
        assert "TLS stays closed" in caplog.text
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones
        certificates.renew_authority(host, ["127.0.0.1"])
        assert server("reload")
    assert find_credentials(tmp_path / "nowhere") is None


def test_a_host_without_credentials_listens_on_its_socket_alone(tmp_path: Path) -> None:
    with zoned(ScriptedManager(), tmp_path / "s", tmp_path / "tls") as server:
        assert server("reload") is False


@pytest.mark.parametrize(
    ("text", "address", "port"), [(":99", None, 99), ("[::1]:7", "::1", 7), ("10.0.2.15:4354\n", "10.0.2.15", 4354)]
)
def test_where_to_listen(host: Path, text: str, address: str | None, port: int) -> None:
    (host / "listen").write_text(text)
    found = find_credentials(host)
    assert found is not None and (found.address, found.port) == (address, port)


def test_a_listen_file_that_says_nothing_is_an_error(host: Path) -> None:
    (host / "listen").write_text("everywhere")
    with pytest.raises(TlsUnfit, match="ADDRESS:PORT"):
        find_credentials(host)


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_made_and_who_may_read_it(tmp_path: Path) -> None:
    made = certificates.make_server(tmp_path / "h", ["web1.example", "192.0.2.1"])
    made += certificates.make_client(tmp_path / "h", "me")
    names = [str(item.path.relative_to(tmp_path / "h")) for item in made]
    assert names == [
        "ca.pem", "ca.key", "server.pem", "server.key",
        "clients/me/ca.pem", "clients/me/client.pem", "clients/me/client.key",
    ]  # fmt: skip
    assert {stat.S_IMODE(item.path.stat().st_mode) for item in made} == {0o600}
    assert stat.S_IMODE((tmp_path / "h").stat().st_mode) == 0o700
    certificate = x509.load_pem_x509_certificate((tmp_path / "h" / "server.pem").read_bytes())
    names_in_it = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names_in_it] == ["web1.example", "192.0.2.1"]
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc


def test_a_second_server_certificate_keeps_the_clients(tmp_path: Path) -> None:
    certificates.make_server(tmp_path, ["a"])
    authority = (tmp_path / "ca.pem").read_bytes()
    assert [item.path.name for item in certificates.make_server(tmp_path, ["b"])] == ["server.pem", "server.key"]
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(CertificateProblem, match="zone host cert server"):
        certificates.make_client(tmp_path, "me")
    with pytest.raises(CertificateProblem, match="a name or address"):
        certificates.make_server(tmp_path, [])
    certificates.make_server(tmp_path, ["a"])
    for name in ("", "../x", "a b", "-x"):
        with pytest.raises(CertificateProblem):
            certificates.make_client(tmp_path, name)
    with pytest.raises(CertificateProblem, match="a DNS name"):
        certificates.make_server(tmp_path, ["wéb"])
    shutil.copy(tmp_path / "server.key", tmp_path / "ca.key")
    with pytest.raises(CertificateProblem, match=r"ca\.key to belong"):
        certificates.make_client(tmp_path, "me")


@pytest.mark.parametrize("name", ["m\u00fcnchen.example", ""])
def test_authority_is_not_renewed_for_a_name_that_no_certificate_can_have(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "tls"
    certificates.make_server(directory, ["127.0.0.1"])
    certificates.make_client(directory, "ann")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(CertificateProblem):
        certificates.renew_authority(directory, [name])
    assert [path for path, data in before.items() if not path.exists() or path.read_bytes() != data] == []
