"""ControlService by a plain gRPC client: what goes both ways."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.controlserver import ControlServer
from test_control_zones import create, platform_in, refusal

from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.model import TerminalSize, WorkloadRequest
from runtime.host.serve.control.messages import spec_label
from runtime.init.channel import frames


@pytest.fixture
def ready(control: ControlServer) -> ControlServer:
    control.platform.save(platform_in(control.store))
    create(control, name="one")
    return control


class Requests:
    """Requests that a test sends one by one."""

    def __init__(self, *first: Any) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for message in first:
            self.send(message)

    def send(self, message: Any) -> None:
        self._queue.put(message)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def start(**process: Any) -> pb.ExecuteZoneCommandRequest:
    spec = common.ProcessSpec(command=["cat", "-"], **process)
    return pb.ExecuteZoneCommandRequest(start=pb.ExecuteZoneCommandStart(zone_id="one", process=spec))


def stdin(data: bytes = b"", *, closed: bool = False) -> pb.ExecuteZoneCommandRequest:
    return pb.ExecuteZoneCommandRequest(stdin=pb.ExecuteZoneCommandStdin(stdin=data, closed=closed))


def test_a_command_has_input_sizes_output_and_an_exit(ready: ControlServer) -> None:
    size = common.TerminalSize(rows=40, columns=120)
    requests = Requests(
        start(
            environment=[common.EnvironmentVariableSpec(key="A", value="1")],
            working_directory="/srv",
            user=common.IdOrNameValue(name="web"),
            tty=True,
            stdin=True,
            terminal_size=size,
        )
    )
    replies = ready.stub.ExecuteZoneCommand(iter(requests), timeout=120)
    requests.send(stdin(b"hello"))
    assert next(replies).output.stdout == b"hello"
    resize = pb.ExecuteZoneCommandTerminalResize(size=common.TerminalSize(rows=10, columns=20))
    requests.send(pb.ExecuteZoneCommandRequest(terminal_resize=resize))
    assert next(replies).output.stderr == b"10x20"
    requests.send(stdin(closed=True))
    assert next(replies).exited.exit_code == 7
    requests.send(None)
    assert list(replies) == []
    (asked,) = ready.manager.started
    assert (asked.argv, asked.env, asked.cwd, asked.user) == (("cat", "-"), ("A=1",), "/srv", "web")
    assert (asked.tty, asked.stdin, asked.size) == (True, True, TerminalSize(40, 120))
    assert ready.manager.sessions[0].ended.is_set()


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ({}, ["out", "err"]),
        ({"stdout": True}, ["out"]),
        ({"stderr": True}, ["err"]),
        ({"stdout": True, "stderr": True}, ["out", "err"]),
        ({"stderr": True, "tty": True}, ["out", "err"]),
    ],
    ids=["neither named", "stdout", "stderr", "both", "a terminal's"],
)
def test_outputs_that_are_not_wanted_are_left_out(ready: ControlServer, wanted: Any, seen: list[str]) -> None:
    size = pb.ExecuteZoneCommandTerminalResize(size=common.TerminalSize(rows=1, columns=2))
    resize = pb.ExecuteZoneCommandRequest(terminal_resize=size)
    requests = [start(stdin=True, **wanted), stdin(b"x"), resize, stdin(closed=True)]
    *replies, last = ready.stub.ExecuteZoneCommand(iter(requests), timeout=120)
    assert ["out" if reply.output.stdout else "err" for reply in replies] == seen
    assert last.exited.exit_code == 7


def test_a_workloads_outputs_that_are_not_wanted_are_left_out(ready: ControlServer) -> None:
    spec = common.WorkloadSpec(name="web", process=common.ProcessSpec(stderr=True))
    ready.run(ready.manager.create_workload(WorkloadRequest("web", "one", labels=spec_label(spec))))
    size = pb.WorkloadConsoleRequest(terminal_resize=common.TerminalSize(rows=1, columns=2))
    first = pb.WorkloadConsoleRequest(workload_id="web", stdin=b"a")
    requests = [first, size, pb.WorkloadConsoleRequest(stdin_closed=True)]
    (reply,) = ready.stub.AttachWorkloadConsole(iter(requests), timeout=120)
    assert (reply.stdout, reply.stderr) == (b"", b"1x2")


def test_without_stdin_a_command_finds_its_end_at_once(ready: ControlServer) -> None:
    (reply,) = ready.stub.ExecuteZoneCommand(iter([start()]), timeout=120)
    assert reply.exited.exit_code == 7


def test_the_end_of_the_requests_is_the_end_of_input(ready: ControlServer) -> None:
    output, exit = ready.stub.ExecuteZoneCommand(iter([start(stdin=True), stdin(b"a")]), timeout=120)
    assert (output.output.stdout, exit.exited.exit_code) == (b"a", 7)


@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ([], "INVALID_ARGUMENT"),
        ([stdin(b"a")], "INVALID_ARGUMENT"),
        ([start(stdin=True), start()], "INVALID_ARGUMENT"),
        ([pb.ExecuteZoneCommandRequest(start=pb.ExecuteZoneCommandStart(zone_id="one"))], "INVALID_ARGUMENT"),
        (
            [pb.ExecuteZoneCommandRequest(start={"zone_id": "two", "process": {"command": ["a"]}})],
            "NOT_FOUND",
        ),
    ],
)
def test_what_is_no_command_is_refused(ready: ControlServer, requests: list[Any], code: str) -> None:
    assert refusal(ready.stub.ExecuteZoneCommand, iter(requests))[0].name == code


def test_a_caller_that_leaves_closes_the_session(ready: ControlServer) -> None:
    requests = Requests(start(stdin=True), stdin(b"a"))
    replies = ready.stub.ExecuteZoneCommand(iter(requests), timeout=120)
    next(replies)
    replies.cancel()
    requests.send(None)
    (session,) = ready.manager.sessions
    assert session.ended.wait(120)


def test_the_console_brings_what_was_kept_where_it_is_wanted(ready: ControlServer) -> None:
    ready.manager.console = [b"kept\n"]

    def console(replay: bool) -> list[bytes]:
        first = pb.ZoneConsoleRequest(zone_id="one", replay_history=replay)
        return [reply.data for reply in ready.stub.AttachZoneConsole(iter([first]), timeout=120)]

    assert console(True) == [b"kept\n", b"live\n"]
    assert console(False) == [b"live\n"]


def test_a_workloads_streams_are_joined(ready: ControlServer) -> None:
    made = ready.run(ready.manager.create_workload(WorkloadRequest("web", "one")))
    requests = Requests(pb.WorkloadConsoleRequest(workload_id="web", stdin=b"a"))
    replies = ready.stub.AttachWorkloadConsole(iter(requests), timeout=120)
    assert [next(replies).stdout for _ in range(2)] == [b"kept\n", b"a"]
    requests.send(pb.WorkloadConsoleRequest(terminal_resize=common.TerminalSize(rows=1, columns=2)))
    assert next(replies).stderr == b"1x2"
    requests.send(pb.WorkloadConsoleRequest(stdin_closed=True))
    requests.send(None)
    assert list(replies) == []
    assert (ready.manager.started[0].workload, ready.manager.started[0].replay) == (made.id, True)


def test_who_only_watches_a_workload_leaves_its_input_open(ready: ControlServer) -> None:
    ready.run(ready.manager.create_workload(WorkloadRequest("web", "one")))
    replies = ready.stub.AttachWorkloadConsole(iter([pb.WorkloadConsoleRequest(workload_id="web")]), timeout=120)
    assert next(replies).stdout == b"kept\n"
    (session,) = ready.manager.sessions
    ready.run(session.write_stdin(b"more"))
    assert next(replies).stdout == b"more"  # the fake's process ends with its input
    replies.cancel()


def test_a_socket_is_dialled_in_the_zone(ready: ControlServer) -> None:
    def data(content: bytes) -> pb.DialNetworkSocketRequest:
        return pb.DialNetworkSocketRequest(data=pb.DialNetworkSocketData(content=content))

    first = pb.DialNetworkSocketRequest(start=pb.DialNetworkSocketStart(zone_id="one", address="127.0.0.1", port=80))
    replies = ready.stub.DialNetworkSocket(iter([first, data(b"GET"), data(b"")]), timeout=120)
    assert [reply.data.content for reply in replies] == [b"GET"]
    assert ready.manager.dialled == ("one", "127.0.0.1", 80)
    wrong = pb.DialNetworkSocketRequest(start=pb.DialNetworkSocketStart(zone_id="one", address="::1", port=70000))
    assert refusal(ready.stub.DialNetworkSocket, iter([wrong]))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_snooping_brings_whole_frames_with_both_ends(ready: ControlServer) -> None:
    long = b'{"method":"' + b"p" * 5000 + b'"}'
    ready.manager.frames = [
        ("zone-id", (">", frames.OPEN, 0, 1, long)),
        ("", 3),
        ("zone-id", ("<", frames.DATA, 2, 1, b"abc")),
        ("zone-id", ("<", frames.LOST, 0, 0, b"\xffjunk")),
    ]
    stream = ready.stub.SnoopIdm(pb.SnoopIdmRequest(), timeout=120)
    packets: list[pb.SnoopIdmPacket] = []
    skipped = 0
    while len(packets) < 3:
        reply = next(stream)
        packets += reply.packets
        skipped += reply.skipped
    stream.cancel()
    assert skipped == 3
    ends = [(getattr(packet, "from"), packet.to) for packet in packets]
    assert ends == [("host", "zone-id"), ("zone-id", "host"), ("zone-id", "host")]
    assert frames.Parser().feed(packets[0].packet) == [(frames.OPEN, 0, 1, long)]
    assert frames.Parser().feed(packets[1].packet) == [(frames.DATA, 2, 1, b"abc")]
    assert packets[2].packet == b"\xffjunk"
