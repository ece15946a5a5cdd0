"""Parts of the engine that need no namespace."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from support.failinghandler import FailingHandler

from runtime.net import netlink
from runtime.net.engine import main
from runtime.net.engine.acceptor import Acceptor, Traffic
from runtime.net.engine.control import ControlServer, ask
from runtime.net.engine.dns import failure
from runtime.net.engine.loop import READ, WRITE, Loop
from runtime.net.engine.model import COUNTERS, EngineConfig, Limits, Listeners, dump, load
from runtime.net.engine.processes import start_time_of
from runtime.net.engine.relay import Relay, Target
from runtime.net.errors import EngineFault
from runtime.net.segment import MOST_ZONES

CONFIG = EngineConfig(
    whose="zone nginx",
    netns="/run/netns/zw-nginx",
    uid=64003,
    zones=1,
    subnets=("10.75.3.0/24", "fd5a:6f6e:6577:3::/64"),
    resolvers=("192.0.2.1", "fe80::1%2"),
    gateway4="10.75.3.1",
    gateway6="fd5a:6f6e:6577:3::1",
    mtu=1500,
    deny=("10.0.2.0/24",),
    seccomp="0600000000000080",
    limits=Limits(connections=7),
    listeners=Listeners._make(range(3, 3 + len(Listeners._fields))),
    pools=("10.75.0.0/16", "fd5a:6f6e:6577::/48"),
)


def test_config_survives_the_wire() -> None:
    assert load(dump(CONFIG)) == CONFIG


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"zone": "x"}', "nonsense"])
def test_config_that_is_none_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(EngineFault, match="engine config: expected one JSON object"):
        load(text)


def test_servfail_of_any_bytes_is_a_response_with_its_id() -> None:
    dice = random.Random(5)
    for _ in range(5000):
        query = dice.randbytes(dice.randrange(12, 60))
        answer = failure(query)
        assert answer[:2] == query[:2]
        assert answer[2] & 0x80
        assert answer[3] & 0x0F == 2
        assert len(answer) <= len(query)


def test_zones_of_a_full_network_have_room_below_what_the_kernel_gives_a_process() -> None:
    """1,048,576 descriptors where nobody has changed it: fs.nr_open, proc_sys_fs(5)."""
    wanted = MOST_ZONES * main._descriptors(Limits()) + main._OF_THE_ENGINE
    assert wanted < 1 << 20
    assert main._room(wanted, Limits()) == MOST_ZONES
    assert main._room(4096, Limits()) == 1, "a host that gives less still has private networks"


def test_exception_of_a_handler_ends_that_handler_only() -> None:
    loop = Loop()
    handler = FailingHandler(loop)
    near, far = socket.socketpair()
    with near, far:
        loop.watch(near, handler, READ)
        far.send(b"x")
        loop.run()
        loop.forget(near)
    assert (handler.aborted, loop.faults) == (1, 1)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def relayed(listener: socket.socket, loop: Loop, limits: Limits) -> tuple[Relay, socket.socket, list[bool]]:
    """A relay from a connection accepted on `listener` to that listener, which accepts no more; the client of it."""
    outcome: list[bool] = []
    client = socket.create_connection(listener.getsockname())
    near, _ = listener.accept()
    target = Target(socket.AF_INET, listener.getsockname(), socket.socket)
    relay = Relay(loop, limits, near, [target], lambda _, connected: outcome.append(connected))
    relay.start()
    return relay, client, outcome


def test_idle_connection_is_reset_when_its_time_is_over(listener: socket.socket) -> None:
    loop = Loop()
    relay, client, outcome = relayed(listener, loop, Limits(idle_timeout_s=50))
    far = relay._far
    assert far is not None
    relay.ready(far, WRITE)
    relay.tick(time.monotonic() + 49)
    assert outcome == []
    relay.tick(time.monotonic() + 51)
    assert outcome == [True]
    assert not loop.patient
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_connect_that_takes_too_long_is_given_up_once(listener: socket.socket) -> None:
    loop = Loop()
    relay, client, outcome = relayed(listener, loop, Limits(connect_timeout_s=5))
    relay.tick(time.monotonic() + 6)
    relay.abort()
    assert outcome == [False]
    assert not loop.urgent
    client.close()


class FullListener(socket.socket):
    """A listener whose process has no descriptor left."""

    def _accept(self):
        raise OSError(24, "Too many open files")


def test_listener_pauses_when_descriptors_run_out() -> None:
    loop = Loop()
    with FullListener() as listener:
        acceptor = Acceptor(loop, Traffic(Limits()), listener, lambda near, peer: [], counter="accepted")
        assert listener.fileno() in loop._watched
        acceptor.ready(listener, READ)
        assert listener.fileno() not in loop._watched
        acceptor.tick(time.monotonic())
        assert listener.fileno() not in loop._watched
        acceptor.tick(time.monotonic() + 2)
        assert listener.fileno() in loop._watched
        acceptor.close()


class FullControl(socket.socket):
    """The same, of the control socket."""

    def accept(self):
        raise OSError(24, "Too many open files")


def test_control_pauses_when_descriptors_run_out() -> None:
    loop = Loop()
    with FullControl(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        server = ControlServer(loop, listener, lambda request, passed, back: {})
        server.ready(listener, READ)
        assert listener.fileno() not in loop._watched, "a client that waits would keep the loop busy"
        assert server in loop.urgent
        server.tick(time.monotonic())
        assert listener.fileno() not in loop._watched
        server.tick(time.monotonic() + 2)
        assert listener.fileno() in loop._watched
        assert server not in loop.urgent


def test_accepted_connection_waits_for_no_more_and_is_reset_where_it_leads_nowhere(listener: socket.socket) -> None:
    loop, seen = Loop(), []

    def nowhere(near: socket.socket, peer: tuple[str, int]) -> list[Target]:
        delayed = not near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        seen.append((near.family, near.getpeername() == peer, os.get_inheritable(near.fileno()), delayed))
        return []

    Acceptor(loop, Traffic(Limits()), listener, nowhere, counter="accepted").ready(listener, READ)
    with socket.create_connection(listener.getsockname()) as client:
        client.settimeout(30)
        assert select.select([listener], [], [], 30)[0]
        loop._watched[listener.fileno()][1].ready(listener, READ)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert seen == [(socket.AF_INET, True, False, False)]


def test_control_answers_nonsense_and_goes_on(tmp_path) -> None:
    loop = Loop()

    def operate(request, passed, back):
        if request["op"] == "stop":
            loop.stop()
        return {"ok": request["op"]}

    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        server = ControlServer(loop, listener, operate)
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        assert "error" in ask(path, {}, timeout_s=5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
            client.send(b"\xff\xfe not json")
            assert b"error" in client.recv(1000)
            client.send(b"[1]")
            assert b"error" in client.recv(1000)
        assert ask(path, {"op": "x"}, timeout_s=5) == {"ok": "x"}
        assert ask(path, {"op": "stop"}, timeout_s=5) == {"ok": "stop"}
        thread.join(5)
        assert server is not None


def test_netlink_attribute_is_padded_to_four_bytes() -> None:
    assert netlink.attribute(8, b"\0") == struct.pack("=HH", 5, 8) + b"\0\0\0\0"
    assert len(netlink.link_request(3)) == 16


def test_own_address_is_a_local_route() -> None:
    with netlink.Rtnetlink() as kernel:
        assert kernel.route_type(socket.inet_aton("127.0.0.1")) == "local"


def test_process_that_is_gone_has_no_start_time() -> None:
    assert start_time_of(1) is not None
    assert start_time_of(2**22 + 1) is None


def test_counters_are_documented() -> None:
    assert {*Traffic(Limits()).snapshot(), "faults"} == set(COUNTERS)
