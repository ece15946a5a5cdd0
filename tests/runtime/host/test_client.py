"""The client's side of zoned: addresses, calls, streams, errors, over each way there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from support.patience import give_up

from runtime.errors import RuntimeFault
from runtime.host.api import host_pb2 as pb
from runtime.host.api.host_grpc import HostBase
from runtime.host.client import connect
from runtime.host.client.client import HostClient, received
from runtime.host.client.dial import ssh_argv
from runtime.host.client.endpoint import BadHostAddress, Endpoint, endpoint_of
from runtime.host.client.failures import ERROR_KEY, unreachable
from runtime.host.faults import ConnectionLost, HostDown, RemoteFault
from runtime.host.lab.errors import LabDown
from runtime.host.serve.listener import Listener


def unimplemented(name: str) -> Any:
    async def method(self: Any, stream: Any) -> None:
        await stream.send_trailing_metadata(status=Status.UNIMPLEMENTED, status_message="Method not found")

    return method


Base: Any = type("Base", (HostBase,), {name: unimplemented(name) for name in HostBase.__abstractmethods__})


class Fake(Base):  # type: ignore[misc]
    """A zoned that answers what the tests ask."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.waiting = threading.Event()
        self.put = bytearray()

    async def ListZones(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(pb.ListZonesReply(zones=[pb.ZoneInfo(name="web", id=str(request.all))]))

    async def GetZone(self, stream: Any) -> None:
        request = await stream.recv_message()
        body = {"kind": "UnknownZone", "subject": f"zone {request.zone}", "got": "no such zone", "hint": "wéb?"}
        await stream.send_trailing_metadata(
            status=Status.NOT_FOUND, status_message="x", metadata={ERROR_KEY: json.dumps(body).encode()}
        )

    async def StopZone(self, stream: Any) -> None:
        await stream.send_trailing_metadata(status=Status.UNAVAILABLE, status_message="zone web: it is busy")

    async def WaitZone(self, stream: Any) -> None:
        await stream.recv_message()
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def ReadLogs(self, stream: Any) -> None:
        request = await stream.recv_message()
        for number in range(request.tail):
            await stream.send_message(pb.LogEntry(data=b"%d\n" % number))
        if request.follow:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    async def PutBlob(self, stream: Any) -> None:
        async for request in stream:
            self.put += request.data
            if request.data == b"bad":
                body = {"kind": "DigestMismatch", "subject": "blob", "got": "other bytes"}
                await stream.send_trailing_metadata(
                    status=Status.INVALID_ARGUMENT, status_message="x", metadata={ERROR_KEY: json.dumps(body).encode()}
                )
                return
        await stream.send_message(pb.PutBlobReply())

    async def ExecZone(self, stream: Any) -> None:
        """Echoes what comes until "exit", whoever still writes."""
        async for request in stream:
            if request.stdin == b"exit":
                break
            await stream.send_message(pb.ProcessOutput(stdout=request.stdin))
        await stream.send_message(pb.ProcessOutput(exit=pb.ExitStatus(code=3)))


Serve = Callable[..., contextlib.AbstractContextManager[Path]]


@contextlib.contextmanager
def serving(fake: Any, path: Path) -> Iterator[None]:
    """Serve on a unix socket, in a thread with a loop of its own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = Listener([fake])
        await server.start(path=str(path))
        ready.set()
        await stop.wait()
        await server.end()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(120)
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(120)
    loop.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def client(tmp_path: Path, fake: Fake) -> Iterator[HostClient]:
    with serving(fake, tmp_path / "s"), connect(f"unix:{tmp_path}/s") as client:
        yield client


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "scheme", "host", "port", "user"),
    [
        ("ssh://web1", "ssh", "web1", 0, ""),
        ("ssh://me@web1:2222", "ssh", "web1", 2222, "me"),
        ("ssh://me@[fe80::1%eth0]:22", "ssh", "fe80::1%eth0", 22, "me"),
        ("tls://web1", "tls", "web1", 4354, ""),
        ("tls://[::1]:99/", "tls", "::1", 99, ""),
    ],
)
def test_addresses_of_other_machines(address: str, scheme: str, host: str, port: int, user: str) -> None:
    endpoint = endpoint_of(address)
    assert (endpoint.scheme, endpoint.host, endpoint.port, endpoint.user) == (scheme, host, port, user)
    assert endpoint.name == address


@pytest.mark.parametrize(
    "address",
    ["lab:", "lab:../x", "lab:-x", "lab:a b",
     "ssh://-oProxyCommand=x", "ssh://a@-b", "ssh://", "tls://me@web1", "tls://web1:0", "tls://web1:99999", "web1",
     "unix:", "ssh:web1", "http://web1", "ssh://we b1", "ssh://web1/path", "tls://a..b", "tls://" + "a" * 64],
)  # fmt: skip
def test_an_address_nothing_leads_to_is_refused_with_the_forms_there_are(address: str) -> None:
    with pytest.raises(BadHostAddress):
        endpoint_of(address)


def test_the_environment_names_the_host_and_a_control_domain_is_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZONE_HOST", "unix:/a")
    assert endpoint_of().path == Path("/a")
    assert endpoint_of("unix:/b").path == Path("/b")
    monkeypatch.delenv("ZONE_HOST")
    flag = tmp_path / "capabilities"
    flag.write_text("control_d\n")
    monkeypatch.setattr("runtime.host.client.endpoint.CONTROL_DOMAIN_FLAG", flag)
    assert endpoint_of("").path == Path("/run/zonewright/zoned.sock")


def test_labs_have_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = tmp_path / "zonewright/lab/second"
    directory.mkdir(parents=True)
    (directory / "record.json").write_text('{"api_port": 4242}')
    endpoint = endpoint_of("lab:second")
    assert endpoint.port == 4242 and endpoint.credentials is not None and endpoint.credentials.directory == directory
    with pytest.raises(LabDown):
        endpoint_of("lab:third")


def test_credentials_of_one_host_come_before_those_of_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    tls = tmp_path / "zonewright" / "tls"
    found = lambda: endpoint_of("tls://web1:99").credentials.directory  # type: ignore[union-attr]  # noqa: E731
    assert found() == tls
    (tls / "web1").mkdir(parents=True)
    assert found() == tls / "web1"
    (tls / "web1:99").mkdir()
    assert found() == tls / "web1:99"


def test_ssh_that_is_no_command_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONE_SSH", "ssh -F 'half")
    with pytest.raises(HostDown, match=r"\$ZONE_SSH: expected a command, as a shell reads it, got .*No closing"):
        ssh_argv(endpoint_of("ssh://web1"))
    monkeypatch.setenv("ZONE_SSH", " ")
    assert ssh_argv(endpoint_of("ssh://web1"))[0] == "ssh"


def test_ssh_gets_its_options_apart_from_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONE_SSH", "ssh -F '/a b'")
    argv = ssh_argv(endpoint_of("ssh://me@web1:2222"))
    assert argv == ["ssh", "-F", "/a b", "-T", "-p", "2222", "--", "me@web1", "zone host dial-stdio"]


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_call_returns_its_answer(client: HostClient) -> None:
    reply = client.call(client.host.ListZones, pb.ListZonesRequest(all=True))
    assert [(zone.name, zone.id) for zone in reply.zones] == [("web", "True")]


def test_a_fault_arrives_whole(client: HostClient) -> None:
    with pytest.raises(RemoteFault) as caught:
        client.call(client.host.GetZone, pb.GetZoneRequest(zone="wob"))
    fault = caught.value
    assert (fault.kind, fault.subject, fault.got, fault.hint) == ("UnknownZone", "zone wob", "no such zone", "wéb?")
    assert not fault.temporary


def test_a_status_without_our_metadata_is_a_fault_too(client: HostClient) -> None:
    with pytest.raises(RemoteFault, match="zone web: it is busy") as caught:
        client.call(client.host.StopZone, pb.StopZoneRequest(zone="web"))
    assert caught.value.temporary


def test_a_method_of_another_version_says_so(client: HostClient) -> None:
    with pytest.raises(RemoteFault, match="another version"):
        client.call(client.host.Prune, pb.PruneRequest())


def test_an_answer_that_does_not_come_in_time_is_given_up_and_cancelled(client: HostClient, fake: Fake) -> None:
    give_up(client, client.host.WaitZone, pb.WaitZoneRequest(), fake.waiting)
    assert fake.cancelled.wait(120)


def test_answers_come_one_by_one_and_closing_cancels(client: HostClient, fake: Fake) -> None:
    answers = client.stream(client.host.ReadLogs, pb.ReadLogsRequest(tail=2, follow=True))
    assert [next(answers).data, next(answers).data] == [b"0\n", b"1\n"]
    answers.close()  # type: ignore[attr-defined]
    assert fake.cancelled.wait(120)


def test_each_takes_every_answer(client: HostClient) -> None:
    seen: list[bytes] = []
    client.each(client.host.ReadLogs, pb.ReadLogsRequest(tail=1000), lambda entry: seen.append(entry.data))
    assert seen == [b"%d\n" % number for number in range(1000)]


def test_an_error_of_the_taker_is_its_own(client: HostClient) -> None:
    def take(entry: pb.LogEntry) -> None:
        raise BrokenPipeError("the reader of stdout")

    with pytest.raises(BrokenPipeError, match="the reader"):
        client.each(client.host.ReadLogs, pb.ReadLogsRequest(tail=3), take)


def test_requests_are_sent_as_there_is_room(client: HostClient, fake: Fake) -> None:
    chunk = os.urandom(1 << 20)
    client.send(client.host.PutBlob, (pb.PutBlobRequest(data=chunk) for _ in range(20)))
    assert bytes(fake.put) == chunk * 20


def test_a_refusal_in_the_middle_of_requests_arrives_whole(client: HostClient) -> None:
    requests = (pb.PutBlobRequest(data=b"bad" if number == 3 else bytes(1 << 18)) for number in range(200))
    with pytest.raises(RemoteFault) as caught:
        client.send(client.host.PutBlob, requests)
    assert caught.value.kind == "DigestMismatch"


def test_both_directions_and_an_end_the_other_side_chooses(client: HostClient) -> None:
    async def work() -> list[Any]:
        seen = []
        async with client.opened(client.host.ExecZone) as stream:
            await stream.send_message(pb.ProcessInput(stdin=b"hello"))
            await stream.send_message(pb.ProcessInput(stdin=b"exit"))
            async for answer in received(stream):
                seen.append(answer.stdout or answer.exit.code)
        return seen

    assert client.run(work()) == [b"hello", 3]


def test_an_interrupt_just_after_the_work_is_done_is_an_interrupt_too(client: HostClient) -> None:
    """asyncio has put the loop's stop in it then, which would stop what is run next before that is done."""

    async def done_and_interrupted() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        client.run(done_and_interrupted())
    assert client.run(asyncio.sleep(0, "goes on")) == "goes on"


def test_an_interrupt_cancels_the_call_and_the_client_lives_on(client: HostClient, fake: Fake) -> None:
    def interrupt() -> None:
        fake.waiting.wait(120)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        client.call(client.host.WaitZone, pb.WaitZoneRequest())
    assert fake.cancelled.wait(120)
    assert client.call(client.host.ListZones, pb.ListZonesRequest()).zones


# -- no zoned ----------------------------------------------------------------------------------------------------------


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with connect(f"unix:{tmp_path}/s") as client, pytest.raises(HostDown, match="no such file"):
        client.call(client.host.ListZones, pb.ListZonesRequest())


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConnectionResetError(), "got connection reset by peer"), (TimeoutError(), "got connection timed out")],
)
def test_what_asyncio_raises_without_a_word_is_told_in_words(error: OSError, said: str) -> None:
    endpoint = Endpoint("host far", "tls", host="10.1.2.3", port=4354)
    assert said in str(unreachable(endpoint, error))


def test_a_host_that_listens_no_more_and_comes_back(tmp_path: Path, fake: Fake) -> None:
    endpoint = Endpoint("host xen", "unix", path=tmp_path / "s")
    with connect(endpoint) as client:
        with serving(fake, tmp_path / "s"):
            assert client.call(client.host.ListZones, pb.ListZonesRequest()).zones
        with pytest.raises((ConnectionLost, HostDown)):
            client.call(client.host.ListZones, pb.ListZonesRequest())
        with pytest.raises(HostDown, match=r"zone host up"):
            client.call(client.host.ListZones, pb.ListZonesRequest())
        (tmp_path / "s").unlink(missing_ok=True)
        with serving(fake, tmp_path / "s"):
            assert client.call(client.host.ListZones, pb.ListZonesRequest()).zones


def test_a_connection_that_ends_while_an_answer_is_awaited(tmp_path: Path, fake: Fake) -> None:
    with connect(f"unix:{tmp_path}/s") as client:
        with serving(fake, tmp_path / "s"):
            closer = threading.Thread(target=fake.waiting.wait, args=(10,))
            closer.start()
            answers = client.stream(client.host.ReadLogs, pb.ReadLogsRequest(tail=1, follow=True))
            next(answers)
        with pytest.raises(RuntimeFault):
            next(answers)


def test_importing_the_door_imports_no_grpc() -> None:
    import subprocess
    import sys

    code = "import sys, runtime.host.client; sys.exit('grpclib' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
