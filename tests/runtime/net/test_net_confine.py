"""What an engine that serves has given up, seen from outside in /proc, and from inside by trying."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import bpf
from support.networld import DNS4, HOST4, OUTSIDE4, World

from pipeline.bundle.model import Port
from pipeline.seccomp import filters, syscalls
from runtime.net import calls, child
from runtime.net.engine import confine
from runtime.net.engine.model import INSIDE, Listeners
from runtime.net.engine.proxy import ENTRY, ProxyEngine
from runtime.net.errors import EngineFault
from runtime.net.network import ZoneNetwork
from runtime.net.supervise import EngineSupervisor

PROGRAM = bytes.fromhex(calls.engine_filter())
NUMBERS = syscalls.NUMBERS
KILLED = filters.RET_KILL_PROCESS


def pid_of(network: ZoneNetwork) -> int:
    assert network.engine is not None
    return network.engine.pid


def status_of(task: Path) -> dict[str, str]:
    lines = (line.split(":", 1) for line in (task / "status").read_text().splitlines())
    return {name: text.strip() for name, text in lines}


def told(name: str, *arguments: int) -> int:
    """What the filter says to a call."""
    return bpf.ask(PROGRAM, NUMBERS[name], arguments)


# -- from outside ------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_every_thread_of_a_serving_engine_has_given_everything_up(world: World) -> None:
    network = world.up()
    world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    tasks = list(Path(f"/proc/{pid_of(network)}/task").iterdir())
    assert len(tasks) == 2
    for task in tasks:
        fields = status_of(task)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert fields[name] == "0" * 16, name
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"  # SECCOMP_MODE_FILTER, linux/seccomp.h
        assert fields["Uid"].split() == fields["Gid"].split() == ["64007"] * 4
        assert fields["Groups"] == ""


@pytest.mark.root
def test_root_of_a_serving_engine_is_empty_and_read_only_and_all_it_has_mounted(world: World) -> None:
    process = Path(f"/proc/{pid_of(world.up())}")
    assert os.listdir(process / "root") == os.listdir(process / "cwd") == []
    (mounted,) = (process / "mountinfo").read_text().splitlines()
    assert mounted.split()[3:6] == ["/", "/", "ro,nosuid,nodev,noexec,relatime"]
    with pytest.raises(OSError, match="Read-only"):
        (process / "root" / "file").touch()
    assert os.path.samestat(os.stat(process / "root"), os.stat(process / "task" / process.name / "root"))
    assert os.readlink(process / "ns" / "mnt") != os.readlink("/proc/self/ns/mnt")


@pytest.mark.root
def test_serving_engine_has_only_descriptors_it_was_given_or_works_with(world: World) -> None:
    network = world.up()
    ours = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}

    sockets = len(Listeners._fields) + len(INSIDE) + 3

    def descriptors() -> dict[int, str]:
        return {int(entry.name): os.readlink(entry) for entry in Path(f"/proc/{pid_of(network)}/fd").iterdir()}

    # Whoever asked whether it serves has gone, a moment later: what is left are the listeners, the socket that asks for
    # routes and the two that hear of their changes, what events are waited for with, and where the host's ports are
    # counted.
    world.wait_until(lambda: len(descriptors()) == 3 + sockets + 1 + 2)
    found = descriptors()
    log = str(world.directory / "run" / network.name / "log")
    assert [found.pop(fd) for fd in range(3)] == ["/dev/null", "/dev/null", log]
    kinds = sorted(re.sub(r"\[\d+\]", "", target) for target in found.values())
    counted = kinds[:2]
    assert [Path(each).name for each in counted] == ["sockstat", "sockstat6"]
    assert kinds[2:] == ["anon_inode:[eventpoll]", *["socket:"] * sockets]
    assert len(set(found.values()) & ours) >= 6, "the listeners are those its starter has, too"


@pytest.mark.root
def test_socket_made_for_the_zone_may_be_transparent_and_is_in_its_namespace(world: World) -> None:
    """Its namespace's owner is the engine's uid, without any capability: see netns.create."""
    probe = (
        "from runtime.net.engine import main, loop\n"
        "import socket, sys\n"
        "made = []\n"
        "create = main.Server.__init__\n"
        "def keep(self, config, factory, ports, room):\n"
        "    create(self, config, factory, ports, room)\n"
        "    made.append(factory)\n"
        "def run(self):\n"
        "    inside = made[0].make(socket.AF_INET, socket.SOCK_STREAM)\n"
        "    inside.setsockopt(socket.IPPROTO_IP, 19, 1)\n"
        "    inside.bind(('192.0.2.77', 0))\n"
        "    sys.stderr.write('bound ' + inside.getsockname()[0] + '\\n')\n"
        "main.Server.__init__, loop.Loop.run = keep, run\n"
    )
    assert run_as_engine(world, probe) == (0, "bound 192.0.2.77")


@pytest.mark.root
def test_factory_that_is_short_of_memory_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever asks it, which is the engine, would wait for ever."""
    factory = confine.SocketFactory(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            made.append(factory.make(socket.AF_INET, socket.SOCK_DGRAM))
        except OSError as error:
            made.append(error)

    for short in (True, False):
        with monkeypatch.context() as once:
            if short:
                once.setattr(confine, "_transparent", lambda family, kind: bytes(1 << 62))
            asking = threading.Thread(target=make, daemon=True)
            asking.start()
            asking.join(10)
    refused, socket_made = made
    assert isinstance(refused, OSError) and refused.errno == errno.ENOMEM
    assert isinstance(socket_made, socket.socket)
    socket_made.close()


# -- from inside -------------------------------------------------------------------------------------------------------


class ProbeEngine(ProxyEngine):
    """The product's engine in all but its loop, in whose place other code runs."""

    def __init__(self, probe: str) -> None:
        self.code = child.code_of(ENTRY, probe)


def run_as_engine(world: World, probe: str) -> tuple[int, str]:
    """(return code, the last line it wrote) of an engine whose loop is the probe's."""
    world.network = world.new_network(engine=ProbeEngine(probe))
    world.on_host(world.network.create)
    world.wait_until(lambda: not world.network.alive())
    # alive() looks at the first thread, which another may outlive.
    code = world.network.engine._child.wait(60)  # type: ignore[union-attr]
    lines = (world.directory / "run" / world.network.name / "log").read_text().strip().splitlines()
    return code, lines[-1] if lines else ""


def in_place_of_the_loop(code: str) -> str:
    body = "".join(f"    {line}\n" for line in code.splitlines())
    return f"from runtime.net.engine import loop\nimport os, socket, sys\ndef run(self):\n{body}loop.Loop.run = run\n"


@pytest.mark.root
def test_engine_that_makes_a_forbidden_call_is_killed_and_whoever_asks_is_told_why(world: World) -> None:
    assert run_as_engine(world, in_place_of_the_loop("os.fork()"))[0] == -signal.SIGSYS
    with pytest.raises(EngineFault, match="killed for a system call it may not make"):
        world.network.counters()


@pytest.mark.root
@pytest.mark.parametrize(
    "attempt",
    [
        "os.execv('/bin/sh', ['sh'])",
        "os.pidfd_open(1)",
        "os.chroot('/')",
        "os.kill(1, 0)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW)",
        # Headers of one's own making, from anybody's address: IP_HDRINCL, IPV6_HDRINCL.
        "socket.socket().setsockopt(socket.IPPROTO_IP, 3, 1)",
        "socket.socket(socket.AF_INET6).setsockopt(socket.IPPROTO_IPV6, 36, 1)",
        "import threading; threading.Thread(target=print).start()",
    ],
)
def test_forbidden_calls_from_inside_the_engine_end_it(world: World, attempt: str) -> None:
    if "threading" not in attempt:
        attempt = f"sys.stderr.write('begun\\n')\n{attempt}"
    code, line = run_as_engine(world, in_place_of_the_loop(f"{attempt}\nsys.stderr.write('it could\\n')"))
    assert code == -signal.SIGSYS
    assert line in ("", "begun")


@pytest.mark.root
def test_files_are_refused_inside_the_engine_and_its_tracebacks_are_written_all_the_same(world: World) -> None:
    code = """
try:
    open("/etc/passwd")
except OSError as error:
    sys.stderr.write(type(error).__name__ + "\\n")
import logging
try:
    raise ValueError("of the probe")
except ValueError:
    logging.getLogger("x").exception("seen")
"""
    assert run_as_engine(world, in_place_of_the_loop(code)) == (0, "ValueError: of the probe")
    log = (world.directory / "run" / world.network.name / "log").read_text().splitlines()
    assert log[0] == "PermissionError"
    assert log[2] == "Traceback (most recent call last):"


# -- the list ----------------------------------------------------------------------------------------------------------


def test_filter_is_one_the_kernel_takes() -> None:
    bpf.check(PROGRAM)


def test_calls_that_are_on_no_list_kill() -> None:
    named = set(calls._ALLOWED) | set(calls._REFUSED)
    special = {"ioctl", "socket", "mmap", "mprotect", "sched_setaffinity"}
    assert named <= NUMBERS.keys()
    for name in NUMBERS.keys() - named - special:
        assert told(name) == KILLED, name
    assert bpf.ask(PROGRAM, syscalls.LAST + 1) == KILLED
    for name in (
        "execve",
        "fork",
        "clone3",
        "ptrace",
        "kill",
        "setns",
        "unshare",
        "mount",
        "bpf",
        "listen",
        "io_uring_setup",
    ):
        assert told(name) == KILLED


def test_an_engine_may_choose_its_own_cpu_and_nobody_elses() -> None:
    assert told("sched_setaffinity", 0) == filters.RET_ALLOW
    assert told("sched_setaffinity", 1) == told("sched_setaffinity", os.getpid()) == KILLED


def test_memory_never_becomes_code() -> None:
    for name in ("mmap", "mprotect"):
        assert told(name, 0, 4096, 3) == filters.RET_ALLOW
        assert told(name, 0, 4096, 5) == told(name, 0, 4096, 7) == KILLED


def test_sockets_are_of_the_internet_families_and_not_raw() -> None:
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    for family in (socket.AF_INET, socket.AF_INET6):
        assert told("socket", family, socket.SOCK_STREAM | flags) == told("socket", family, socket.SOCK_DGRAM)
        assert told("socket", family, socket.SOCK_STREAM) == filters.RET_ALLOW
        assert told("socket", family, socket.SOCK_RAW) == told("socket", family, socket.SOCK_RAW | flags) == KILLED
    for family in (socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 40, 1 << 32 | 2):
        assert told("socket", family, socket.SOCK_STREAM) == told("socket", family, socket.SOCK_DGRAM) == KILLED


def test_sockets_are_of_tcp_and_udp_alone() -> None:
    """Protocols by number: ICMP, L2TP, SCTP, UDP-Lite, ICMPv6, MPTCP. Of some the kernel loads the module then."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert told("socket", family, kind, 0) == filters.RET_ALLOW
            for protocol in (1, 58, 115, 132, 136, 262):
                assert told("socket", family, kind, protocol) == KILLED


def test_terminals_and_devices_are_not_asked() -> None:
    assert told("ioctl", 3, 0x5421) == filters.RET_ALLOW
    assert told("ioctl", 3, 0x5401) == filters.RET_ERRNO | 25
    for request in (0x5412, 0x8912, 0x400454CA):  # TIOCSTI, SIOCGIFCONF, TUNSETIFF
        assert told("ioctl", 3, request) == KILLED


def test_filter_binds_every_thread(tmp_path: Path) -> None:
    """TSYNC: also one that was there before."""
    root = Path(__file__).parents[3]
    code = f"""
import os, sys, threading
sys.path.insert(0, {str(root)!r})
from runtime.net.engine import confine
go, wanted = threading.Event(), threading.Event()
def other():
    wanted.set()
    go.wait()
    os.getppid()
    os._exit(7)
threading.Thread(target=other, daemon=True).start()
wanted.wait()
confine.forbid_new_privileges() if os.geteuid() == 0 else None
confine.limit_calls(bytes.fromhex({PROGRAM.hex()!r}))
go.set()
while True:
    threading.Event().wait(1)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGSYS, done.stderr


# -- what it is told instead of reading --------------------------------------------------------------------------------


@pytest.mark.root
def test_changed_resolv_conf_reaches_a_running_engine(world: World) -> None:
    """The engine has no files: its supervisor sees the change and tells it."""
    world.resolv_conf.write_text("nameserver 192.0.2.99\n")
    network = world.up()
    server = world.of(world.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((DNS4, 53))
    server.settimeout(0.3)
    supervisor = world.on_host(lambda: EngineSupervisor(resolv_conf=world.resolv_conf))
    try:
        supervisor.add(network)
        fresh = world.directory / "fresh"
        fresh.write_text(f"nameserver {DNS4}\n")
        fresh.rename(world.resolv_conf)
        deadline = time.monotonic() + 60
        query = b""
        while not query and time.monotonic() < deadline:
            ask_gateway(world)
            try:
                query = server.recv(512)
            except TimeoutError:
                pass
        assert query[2:] == QUERY[2:]
    finally:
        supervisor.discard(network)
        supervisor.close()
        server.close()


QUERY = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x07example\x03org\0\0\1\0\1"


def ask_gateway(world: World) -> None:
    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(QUERY, (world.addresses.gateway4, 53))

    world.in_zone(ask)


@pytest.mark.root
def test_connection_is_served_after_a_traceback_was_written(world: World) -> None:
    """Whatever an error makes the interpreter do is on the lists: the engine lives on."""
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    probe = (
        "from runtime.net.engine import acceptor\n"
        "true, seen = acceptor.Acceptor.ready, []\n"
        "def broken(self, source, mask):\n"
        "    if not seen:\n"
        "        seen.append(1)\n"
        "        raise RuntimeError('of the probe')\n"
        "    true(self, source, mask)\n"
        "acceptor.Acceptor.ready = broken\n"
    )
    world.network = world.new_network(engine=ProbeEngine(probe))
    network = world.up()
    with world.connect(OUTSIDE4, 8080) as connection:
        assert connection.recv(10) == b"hi"
    assert network.counters()["faults"] == 1
    assert "RuntimeError: of the probe" in (world.directory / "run" / network.name / "log").read_text()
