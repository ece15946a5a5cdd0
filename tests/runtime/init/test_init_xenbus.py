"""The guest's xenstore client against a scripted xenstored on a socket pair."""

import contextlib
import posix
import socket
import struct
import threading

import pytest

from runtime.init import boot, launch, modules, mounts, network, report, supervise, xenbus
from runtime.init.agent import cgroup, device


class Xenstored(threading.Thread):
    """Answers writes, reads and watches from a dictionary, in odd portions; `refuse` makes writes fail."""

    def __init__(self, refuse: str = "") -> None:
        super().__init__(daemon=True)
        ours, self.theirs = socket.socketpair()
        self.sock, self.nodes, self.refuse, self.order = ours, {}, refuse, []
        self.sending = threading.Lock()  # a test may send as well
        self.start()

    def run(self) -> None:
        data = b""
        while chunk := self.sock.recv(4096):
            data += chunk
            while len(data) >= 16:
                kind, number, _, length = struct.unpack_from("=IIII", data)
                if len(data) < 16 + length:
                    break
                payload, data = data[16 : 16 + length], data[16 + length :]
                with contextlib.suppress(OSError):  # the test has hung up
                    self.answer(kind, number, payload)

    def answer(self, kind: int, number: int, payload: bytes) -> None:
        path, _, value = payload.partition(b"\0")
        reply_kind, reply = kind, b"OK\0"
        if kind == xenbus.WRITE:
            if self.refuse:
                reply_kind, reply = xenbus.ERROR, self.refuse.encode() + b"\0"
            else:
                self.nodes[path.decode()] = value.decode()
                self.order.append((path.decode(), value.decode()))
        elif kind == xenbus.READ:
            found = self.nodes.get(path.decode())
            reply_kind, reply = (kind, found.encode()) if found is not None else (xenbus.ERROR, b"ENOENT\0")
        self.send(reply_kind, number, reply)
        if kind == xenbus.WATCH:
            self.send(xenbus.WATCH_EVENT, 0, payload)

    def send(self, kind: int, number: int, payload: bytes) -> None:
        message = struct.pack("=IIII", kind, number, 0, len(payload)) + payload
        with self.sending:
            for at in range(0, len(message), 7):
                self.sock.sendall(message[at : at + 7])


@pytest.fixture
def serve():
    """Xenstored, hung up at the end."""
    with contextlib.ExitStack() as stack:

        def make(**keywords):
            made = Xenstored(**keywords)
            stack.callback(made.sock.close)
            stack.callback(made.join)
            stack.callback(made.theirs.close)
            return made

        yield make


@pytest.fixture
def reporter():
    def make(store: Xenstored) -> report.Reporter:
        made = report.Reporter()
        made.bus = xenbus.Xenbus(store.theirs.fileno())
        made.bus.watch(report.STOP)
        return made

    return make


def test_phases_timings_and_exit_reach_the_host_in_order(serve, reporter, capfd):
    store = serve()
    told = reporter(store)
    told.phase("init")
    told.phase("modules")
    told.exit("code 3")
    assert store.nodes["zone/state/exit"] == "code 3"
    assert [value for path, value in store.order if path == "zone/state/phase"] == ["init", "modules", "exited"]
    names = [word.partition("=")[0] for word in store.nodes["zone/state/timings"].split()]
    assert names == ["init", "modules", "exited"]
    assert "zone: the workload exited with code 3\n" in capfd.readouterr().err


def test_a_stop_request_is_read_once_the_host_writes_it(serve, reporter):
    store = serve()
    told = reporter(store)
    told.bus.settle(5)
    assert not told.stop_request()
    store.nodes[report.STOP] = "15 10"
    store.send(xenbus.WATCH_EVENT, 0, b"zone/control/stop\0zone\0")
    assert told.bus.read("zone/none", 5) is None  # what was sent before this answer has arrived now
    assert told.stop_request() == "15 10"
    assert told.stop_request() is None


def test_a_stop_request_that_arrives_while_another_is_read_is_not_lost(serve, reporter):
    store = serve()
    told = reporter(store)
    told.bus.settle(5)
    told.stop_request()
    store.nodes[report.STOP] = "15 10"
    answer = store.answer

    def answer_and_change(kind, number, payload):
        if kind == xenbus.READ and store.nodes[report.STOP] == "15 10":
            store.send(xenbus.WATCH_EVENT, 0, payload + b"zone\0")  # comes before the answer that is waited for
            answer(kind, number, payload)
            store.nodes[report.STOP] = "9 0"
        else:
            answer(kind, number, payload)

    store.answer = answer_and_change
    told.bus._events = 1
    assert told.stop_request() == "9 0"


def test_a_stop_request_whose_event_is_still_on_its_way_is_found_by_asking(serve, reporter):
    store = serve()
    told = reporter(store)
    told.bus.settle(5)
    assert told.stop_request(sure=True) is None
    store.nodes[report.STOP] = "15 10"
    assert told.stop_request() is None
    assert told.stop_request(sure=True) == "15 10"


def test_a_stop_request_that_changes_while_it_is_asked_for_is_not_lost(serve, reporter):
    store = serve()
    told = reporter(store)
    told.bus.settle(5)
    told.stop_request()
    store.nodes[report.STOP] = "15 10"
    answer, changes = store.answer, ["9 0"]

    def answer_and_change(kind, number, payload):
        if kind == xenbus.READ and changes:
            store.send(xenbus.WATCH_EVENT, 0, payload + b"zone\0")
            answer(kind, number, payload)
            store.nodes[report.STOP] = changes.pop()
        else:
            answer(kind, number, payload)

    store.answer = answer_and_change
    assert told.stop_request(sure=True) == "9 0"


def test_a_zone_that_was_asked_to_stop_does_not_start_its_workload(serve, reporter, monkeypatch):
    """The host takes a phase before "network", seen behind its request, as a promise of that."""
    store = serve()
    store.nodes[report.STOP] = "15 10"
    told = reporter(store)
    data = launch.check(b'{"process":{"argv":["serve"]},"root":""}')
    nothing = {
        mounts: ("early", "switch"),
        modules: ("load_all",),
        network: ("configure",),
        cgroup: ("enable_controllers", "spare"),
        boot: ("seed_entropy", "set_hostname"),
    }
    for module, names in nothing.items():
        for name in names:
            monkeypatch.setattr(module, name, lambda *given: None)
    monkeypatch.setattr(told, "connect", lambda: None)
    monkeypatch.setattr(launch, "load", lambda: data)
    monkeypatch.setattr(device, "open_link", lambda path: None)
    monkeypatch.setattr(posix, "fork", lambda: pytest.fail("the agent is forked"))
    monkeypatch.setattr(supervise, "prepare", lambda: (-1, None, None))
    channel = boot.Channel()
    outcome = boot.boot(told, channel)
    assert outcome == "failed cancelled it was stopped before its workload started" and not channel.taken
    assert [value for path, value in store.order if path == report.PHASE][-1] == "network"


def test_a_refused_report_is_said_on_the_console(serve, reporter, capfd):
    told = reporter(serve(refuse="EACCES"))
    told.exit("signal 9")
    assert "xenstore did not take the report: EACCES" in capfd.readouterr().err


def test_a_broken_connection_does_not_stop_the_zone(serve, reporter, capfd):
    store = serve()
    told = reporter(store)
    store.theirs.shutdown(socket.SHUT_RDWR)
    told.bus.fd = -1
    told.phase("init")
    told.phase("modules")
    assert told.bus is None
    assert capfd.readouterr().err.count("xenstore is gone") == 1


def test_values_are_printable_and_bounded():
    assert xenbus.printable("käse\n\0 ok") == b"k?se?? ok"
    assert len(xenbus.printable("x" * 9000)) == xenbus.MAX_VALUE_BYTES


def test_a_stream_that_is_none_is_refused():
    with pytest.raises(ValueError):
        xenbus.messages(bytearray(b"\xff" * 16))
