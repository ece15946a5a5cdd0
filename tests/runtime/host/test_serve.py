"""zoned's services over a fake core: conversions, streams, faults, cancellation."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from h2.connection import H2Connection
from h2.settings import SettingCodes
from support.patience import give_up
from support.servedmanager import WEB, ScriptedManager, zoned

from pipeline.bundle.model import Bundle, Process
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, Digest, canonical_json
from pipeline.recipe import PROJECT
from runtime.host.api import host_pb2 as pb
from runtime.host.client import connect
from runtime.host.client.client import HostClient, received
from runtime.host.daemon import model
from runtime.host.faults import RemoteFault
from runtime.host.serve import answers, convert


@pytest.fixture
def manager() -> ScriptedManager:
    return ScriptedManager()


@pytest.fixture
def client(manager: ScriptedManager, tmp_path: Path) -> Iterator[HostClient]:
    with zoned(manager, tmp_path / "s"), connect(f"unix:{tmp_path}/s") as client:
        yield client


# -- messages ----------------------------------------------------------------------------------------------------------

MESSAGES: list[tuple[type[Message], type]] = [
    (pb.ZoneInfo, model.ZoneInfo), (pb.HostStatus, model.HostStatus), (pb.Event, model.Event),
    (pb.ExitStatus, model.ExitStatus), (pb.PortRule, model.PortRule), (pb.RestartPolicy, model.RestartPolicy),
    (pb.BootZoneReply, model.BootProgress), (pb.NetworkInfo, model.NetworkInfo), (pb.Metric, model.Metric),
    (pb.ZoneProcess, model.ZoneProcess), (pb.DiskUsageRow, model.DiskUsageRow), (pb.PruneReply, model.Pruned),
    (pb.LogEntry, model.LogEntry), (pb.ProcessStart, model.ProcessStart), (pb.TerminalSize, model.TerminalSize),
    (pb.ZoneFlows, model.ZoneFlows),
]  # fmt: skip


@pytest.mark.parametrize(("message", "data"), MESSAGES, ids=lambda cls: cls.__name__)
def test_every_field_of_a_message_is_one_of_the_cores(message: Any, data: Any) -> None:
    fields = {field.name for field in message.DESCRIPTOR.fields}
    assert fields <= {field.name for field in dataclasses.fields(data)}


def test_a_zone_becomes_a_message_whole() -> None:
    zone = convert.zone_message(WEB)
    assert (zone.name, zone.state, zone.domid, zone.addresses) == ("web", "ready", 3, ["10.75.0.2", "fd00::2"])
    assert (zone.ports[0].zone_port, zone.ports[0].host_port, zone.ports[0].port) == (80, 8080, 40001)
    assert (zone.exit.code, zone.exit.oom, zone.restart.name, zone.restart.max_retries) == (137, True, "on-failure", 3)
    assert (dict(zone.labels), dict(zone.timings), zone.console_tail) == (
        {"a": "b"},
        {"build.end": 0.5},
        ["one", "two"],
    )


@pytest.mark.parametrize(
    ("request_", "since"),
    [
        (pb.WatchEventsRequest(follow=True), "db-7"),
        (pb.WatchEventsRequest(since="db-3"), "db-3"),
        (pb.WatchEventsRequest(from_start=True), ""),
    ],
    ids=["from now on", "since", "from the start"],
)
def test_events_are_those_behind_the_last_there_was_as_they_were_asked_for(
    client: HostClient, manager: ScriptedManager, request_: pb.WatchEventsRequest, since: str
) -> None:
    """Whoever has heard that they are watched misses none that comes before they are looked for."""
    assert [event.kind for event in client.stream(client.host.WatchEvents, request_)] == ["zone.ready"]
    (asked,) = manager.seen
    assert asked["since"] == since


def test_a_zone_that_runs_has_no_exit_but_one_that_ended_well_has() -> None:
    assert not convert.zone_message(dataclasses.replace(WEB, exit=None)).HasField("exit")
    assert convert.zone_message(dataclasses.replace(WEB, exit=model.ExitStatus())).HasField("exit")


def test_every_status_is_of_a_fault_there_is() -> None:
    sources = [path.read_text() for side in ("pipeline", "runtime") for path in (PROJECT / side).rglob("*.py")]
    faults = {name for source in sources for name in re.findall(r"^class (\w+)\(\w+\):", source, re.M)}
    assert set(answers.STATUSES) <= faults


# -- calls -------------------------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone(client: HostClient, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones[0].name == "web"
    assert not client.call(client.host.ListZones, pb.ListZonesRequest()).zones


def test_a_socket_file_nobody_serves_gives_way(manager: ScriptedManager, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("of a zoned that was killed")
    with zoned(manager, tmp_path / "s"), connect(f"unix:{tmp_path}/s") as client:
        assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones
    assert not (tmp_path / "s").exists()


def test_pauses_and_limits_reach_the_core(client: HostClient, manager: ScriptedManager) -> None:
    zone = client.call(client.host.PauseZone, pb.PauseZoneRequest(zone="web"))
    assert (zone.paused, dict(zone.limits)) == (True, {"pids.max": "64"})
    assert not client.call(client.host.UnpauseZone, pb.UnpauseZoneRequest(zone="web")).paused
    client.call(client.host.UpdateZone, pb.UpdateZoneRequest(zone="web", limits={"pids.max": "5"}))
    assert manager.seen == [("web", True), ("web", False), model.Update(limits={"pids.max": "5"})]


def test_a_setting_that_is_asked_for_is_not_set(client: HostClient, manager: ScriptedManager) -> None:
    assert client.call(client.host.Sysctl, pb.SysctlRequest(zone="web", key="a.b")).value == "None"
    assert client.call(client.host.Sysctl, pb.SysctlRequest(zone="web", key="a.b", value="")).value == "''"
    assert manager.seen == [("web", "a.b", None), ("web", "a.b", "")]


def test_the_cores_faults_arrive_as_they_were(client: HostClient) -> None:
    with pytest.raises(RemoteFault) as caught:
        client.call(client.host.GetZone, pb.GetZoneRequest(zone="wob"))
    assert str(caught.value) == "zone wob: no such zone on this host (did you mean web?)"
    assert caught.value.kind == "UnknownZone"


def test_an_accident_is_logged_and_named(client: HostClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(RemoteFault, match="ZeroDivisionError: an accident"):
        client.call(client.host.KillZone, pb.KillZoneRequest(zone="web"))
    assert "method KillZone" in caplog.text


def test_a_method_without_its_part_is_not_served(client: HostClient) -> None:
    with pytest.raises(RemoteFault, match="this zoned has none") as caught:
        client.call(client.host.Check, pb.CheckRequest())
    assert caught.value.kind == "NotServed"


def test_what_a_request_leaves_out_stays_out(client: HostClient, manager: ScriptedManager) -> None:
    client.call(client.host.StopZone, pb.StopZoneRequest(zone="web"))
    client.call(client.host.StopZone, pb.StopZoneRequest(zone="web", timeout_s=0))
    client.call(client.host.UpdateZone, pb.UpdateZoneRequest(zone="web", vcpus=2))
    assert manager.seen == [None, 0.0, model.Update(vcpus=2)]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")], ids=str)
def test_a_time_that_no_timer_has_is_refused(client: HostClient, seconds: float) -> None:
    for method, message in (
        (client.host.WaitZone, pb.WaitZoneRequest(zone="web", timeout_s=seconds)),
        (client.host.StopZone, pb.StopZoneRequest(zone="web", timeout_s=seconds)),
        (client.host.RestartZone, pb.RestartZoneRequest(zone="web", timeout_s=seconds)),
    ):
        with pytest.raises(RemoteFault, match="zone web, timeout_s: expected a number of seconds"):
            client.call(method, message, timeout_s=10)


def test_a_client_that_waits_no_more_is_waited_for_no_more(client: HostClient, manager: ScriptedManager) -> None:
    give_up(client, client.host.WaitZone, pb.WaitZoneRequest(zone="web"), manager.started)
    assert manager.cancelled.wait(120)
    assert set(manager.seen) == {"exited"}


# -- boots -------------------------------------------------------------------------------------------------------------


def boot_request(name: str) -> pb.BootZoneRequest:
    part = Descriptor("application/octet-stream", Digest.of(b""), 0)
    process = Process(("/x",), ())
    bundle = Bundle(
        name=name, kernel=part, kernel_release="6", initrd=(part,), modules=(), rootfs=part, process=process
    )
    return pb.BootZoneRequest(bundle=canonical_json(to_json(bundle)), labels={"a": "b"})


def test_a_boot_tells_its_steps_and_ends_with_the_zone(client: HostClient, manager: ScriptedManager) -> None:
    replies = list(client.stream(client.host.BootZone, boot_request("web")))
    assert [reply.stage for reply in replies] == ["queued", "build", "ready"]
    assert replies[-1].zone.domid == 3
    (request,) = manager.seen
    assert (request.bundle.name, request.labels, request.ports) == ("web", {"a": "b"}, None)


def test_ports_of_a_request_are_rules_and_tcp_where_it_does_not_say() -> None:
    ports = [
        pb.PortRule(zone_port=53, host_address="127.0.0.1", host_port=53, port=40001, protocol="udp"),
        pb.PortRule(zone_port=80, address="::"),
    ]
    rules = (
        model.PortRule(53, "127.0.0.1", 40001, "127.0.0.1", 53, "udp"),
        model.PortRule(80, "::", 0, "", 0, "tcp"),
    )
    boot = boot_request("web")
    boot.ports.extend(ports)
    assert convert.boot_request(boot).ports == rules
    change = convert.update(pb.UpdateZoneRequest(add_ports=ports, remove_ports=ports[:1]))
    assert (change.add_ports, change.remove_ports) == (rules, rules[:1])
    ports[0].address = "127.0.0.1"
    assert convert.fill(pb.PortRule(), rules[0]) == ports[0]


def test_a_boot_that_fails_tells_its_steps_and_why(client: HostClient) -> None:
    seen = []
    with pytest.raises(RemoteFault, match="expected 9 MiB free"):
        for reply in client.stream(client.host.BootZone, boot_request("big")):
            seen.append(reply.stage)
    assert seen == ["queued", "build"]


def test_a_boot_whose_client_goes_is_called_off(client: HostClient, manager: ScriptedManager) -> None:
    replies = client.stream(client.host.BootZone, boot_request("slow"))
    assert next(replies).stage == "queued"
    assert manager.started.wait(120)
    client.close()
    assert manager.cancelled.wait(120)


@pytest.mark.parametrize("bundle", [b"", b"{", b"[]", b'{"name": 1}', b"[" * 100_000])
def test_a_bundle_that_is_none_is_refused_in_words(client: HostClient, bundle: bytes) -> None:
    with pytest.raises(RemoteFault) as caught:
        list(client.stream(client.host.BootZone, pb.BootZoneRequest(bundle=bundle)))
    assert caught.value.kind in ("BadRequest", "BadModel")


# -- streams -----------------------------------------------------------------------------------------------------------


def produced_until_blocked(manager: ScriptedManager, path: Path, turn: Callable[[], None] = lambda: None) -> int:
    """How much was made once many calls of others are answered without any more of it; turn: the reader's, meanwhile.

    It is what HTTP/2 windows and socket buffers hold, and not what an endless zone could print meanwhile.
    """
    before = -1
    with connect(f"unix:{path}") as other:
        while before != manager.produced < 400:
            before = manager.produced
            for _ in range(20):
                turn()
                other.call(other.host.ListZones, pb.ListZonesRequest())
    assert manager.produced == before
    return before


def test_logs_are_made_as_they_are_read_and_no_longer(
    client: HostClient, manager: ScriptedManager, tmp_path: Path
) -> None:
    entries = client.stream(client.host.ReadLogs, pb.ReadLogsRequest(zone="web", tail=-1, follow=True))
    first = next(entries)
    assert (first.unix_s, first.stream, len(first.data)) == (1.5, "stdout", 1 << 16)
    produced_until_blocked(manager, tmp_path / "s", lambda: client.run(asyncio.sleep(0)))
    entries.close()  # type: ignore[attr-defined]
    assert manager.cancelled.wait(120)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_that_asks_for_much_and_reads_nothing_holds_up_nobody(
    manager: ScriptedManager, tmp_path: Path, leaves: bool
) -> None:
    """Its windows are wide, so that it is the socket that is full; then it goes, or zoned does."""
    http = H2Connection()
    http.initiate_connection()
    http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30})
    http.increment_flow_control_window(1 << 30)
    path = "/zonewright.host.v1.Host/ReadLogs"
    head = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    http.send_headers(1, [*head.items(), ("content-type", "application/grpc")])
    request = pb.ReadLogsRequest(zone="web", follow=True).SerializeToString()
    http.send_data(1, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
    with socket.socket(socket.AF_UNIX) as peer, zoned(manager, tmp_path / "zoned"):
        peer.connect(str(tmp_path / "zoned"))
        peer.sendall(http.data_to_send())
        assert manager.started.wait(120)
        before = produced_until_blocked(manager, tmp_path / "zoned")
        http.reset_stream(1)  # its handler ends, and finds the socket as full as it was
        peer.sendall(http.data_to_send())
        assert manager.cancelled.wait(120)
        if leaves:
            peer.close()
    assert manager.produced == before


def test_a_process_both_ways(client: HostClient, manager: ScriptedManager) -> None:
    start = pb.ProcessStart(zone="web", argv=["sh"], tty=True, size=pb.TerminalSize(rows=3, columns=4))

    async def work() -> list[Any]:
        seen: list[Any] = []
        async with client.opened(client.host.ExecZone) as stream:
            for request in (
                pb.ProcessInput(start=start),
                pb.ProcessInput(resize=pb.TerminalSize(rows=5, columns=6)),
                pb.ProcessInput(signal=15),
                *(pb.ProcessInput(stdin=b"%d" % number) for number in range(50)),
                pb.ProcessInput(stdin=b"exit"),
            ):
                await stream.send_message(request)
            async for answer in received(stream):
                seen.append(answer.stdout or answer.WhichOneof("what"))
                if answer.HasField("exit"):
                    assert answer.exit.code == 3
                    await stream.end()
        return seen

    assert client.run(work()) == ["started", *(b"%d" % number for number in range(50)), "exit"]
    assert manager.session.inputs == [model.TerminalSize(5, 6), 15]
    assert manager.seen[0].size == model.TerminalSize(3, 4)
    assert manager.session.ended.wait(120)


def test_a_detached_process_is_left_when_it_has_started(client: HostClient) -> None:
    async def work() -> list[str | None]:
        async with client.opened(client.host.ExecZone) as stream:
            start = pb.ProcessStart(zone="web", argv=["sh"], detach=True)
            await stream.send_message(pb.ProcessInput(start=start), end=True)
            return [answer.WhichOneof("what") async for answer in received(stream)]

    assert client.run(work()) == ["started"]


@pytest.mark.parametrize("second", [False, True])
def test_a_process_request_out_of_order_ends_the_call(
    client: HostClient, manager: ScriptedManager, second: bool
) -> None:
    async def work() -> None:
        async with client.opened(client.host.ExecZone) as stream:
            if second:
                await stream.send_message(pb.ProcessInput(start=pb.ProcessStart(zone="web", argv=["sh"])))
                await stream.send_message(pb.ProcessInput(start=pb.ProcessStart(zone="web", argv=["sh"])))
            else:
                await stream.send_message(pb.ProcessInput(stdin=b"x"))
            async for _ in received(stream):
                pass

    with pytest.raises(RemoteFault) as caught:
        client.run(work())
    assert caught.value.kind == "BadMessage"
    assert not second or manager.session.ended.wait(120)


def test_a_process_whose_client_goes_is_left(client: HostClient, manager: ScriptedManager) -> None:
    async def work() -> None:
        async with client.opened(client.host.ExecZone) as stream:
            await stream.send_message(pb.ProcessInput(start=pb.ProcessStart(zone="web", argv=["sh"])))
            await stream.recv_message()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run(work())
    assert manager.session.ended.wait(120)


def test_a_blob_comes_in_pieces_and_is_what_its_digest_says(client: HostClient, manager: ScriptedManager) -> None:
    data = os.urandom(3_000_000)
    digest = pb.Blob(digest=str(Digest.of(data)), size_bytes=len(data))

    def requests(data: bytes) -> Iterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(blob=digest)
        for at in range(0, len(data), 700_000):
            yield pb.PutBlobRequest(data=data[at : at + 700_000])

    client.send(client.host.PutBlob, requests(data))
    assert manager.seen == [data]
    with pytest.raises(RemoteFault) as caught:
        client.send(client.host.PutBlob, requests(data[:-1]))
    assert caught.value.kind == "DigestMismatch"
    with pytest.raises(RemoteFault, match="in the first message"):
        client.send(client.host.PutBlob, [pb.PutBlobRequest(data=b"x")])


def test_blobs_that_are_missing(client: HostClient) -> None:
    a, b = (str(Digest.of(text)) for text in (b"a", b"b"))
    request = pb.FindBlobsRequest(blobs=[pb.Blob(digest=a, size_bytes=9), pb.Blob(digest=b, size_bytes=1)])
    assert client.call(client.host.FindBlobs, request).missing == [a]
    with pytest.raises(RemoteFault, match="sha256:<64"):
        client.call(client.host.FindBlobs, pb.FindBlobsRequest(blobs=[pb.Blob(digest="x")]))


def test_copies_come_in_pieces_of_a_bounded_size(client: HostClient) -> None:
    pieces = [reply.tar for reply in client.stream(client.host.CopyOut, pb.CopyOutRequest(zone="web", path="/"))]
    assert b"".join(pieces) == b"x" * 1_000_000 + b"y"
    assert max(map(len, pieces)) <= 256 * 1024


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\0\x03\xff\xff\xff", "a message of its type"),
        (b"\1\0\0\0\0", "no compression"),
        (b"\0\xff\xff\xff\xff", "at most"),
        (b"\0\0\0\0\x09ab", "a message of its type"),
        (b"\0\0", "a message of its type"),
        (b"", "expected a message"),
    ],
)
def test_bytes_that_are_no_message_are_refused(client: HostClient, data: bytes, words: str) -> None:
    async def work() -> None:
        async with client.opened(client.host.ExecZone) as stream:
            await stream.send_request()
            await stream._stream.send_data(data, end_stream=True)
            stream._end_done = True
            async for _ in received(stream):
                pass

    with pytest.raises(RemoteFault, match=words):
        client.run(work())
