"""Published UDP ports of real zones, from this machine through QEMU, dom0 and the zone's network."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import zoneparts
from support.labzones import get, wait_for
from support.ports import free_port
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = pytest.mark.xen

IMAGE = "recipe:nginx"
NUMBERS = itertools.count()
# What QEMU's network calls this machine.
THIS_MACHINE = "10.0.2.2"
# Answers with who asked, and what; needs no module of perl's.
ECHO = """socket(S,2,2,17);bind(S,pack("SnCCCCx8",2,5353,0,0,0,0))or die;
while($c=recv(S,$b,65536,0)){(undef,$p,@a)=unpack("SnC4",$c);send(S,join(".",@a).":$p $b",0,$c)}"""
PERL = "/tools/lib64/ld-linux-x86-64.so.2 --library-path /tools/lib/x86_64-linux-gnu /tools/bin/perl"
SERVE = f"nginx; sleep 2; exec {PERL} -e '{ECHO}'"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a perl, as the image has none."""
    directory = tmp_path_factory.mktemp("tools")
    return zoneparts.squashfs(zoneparts.small_root(directory / "root", ["perl"]), directory / "tools.squashfs")


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(5)
        yield made


def answer(client: socket.socket, port: int, *, within_s: float = 300) -> bytes | None:
    """What comes back from a port, without the question, which is asked again as long as nothing does.

    What was asked twice may be answered twice: answers to earlier questions are passed over.
    """
    question = b"hello %d" % next(NUMBERS)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        client.sendto(question, ("127.0.0.1", port))
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            while True:
                data, origin = client.recvfrom(4096)
                if data.endswith(b" " + question):
                    assert origin == ("127.0.0.1", port)
                    return data.removesuffix(b" " + question)
    return None


def test_udp_port_is_reached_from_outside_beside_the_tcp_port_of_its_number(
    zone: ZoneCommand, lab: Lab, tools: Path, client: socket.socket
) -> None:
    port = free_port()
    publish = ("-p", f"{port}:80", "-p", f"{port}:5353/udp")
    zone("run", "-d", "--name", "dns", "-m", "128m", "-v", f"{tools}:/tools", *publish, IMAGE, "sh", "-c", SERVE)
    zone("wait", "--until", "ports", "dns")
    expected = f"{THIS_MACHINE}:{client.getsockname()[1]}".encode()
    client.settimeout(120)
    client.sendto(b"hello", ("127.0.0.1", port))
    first = client.recv(4096)
    assert first == expected + b" hello", "the first datagram: whoever has waited for the port need not ask twice"
    assert get(f"http://127.0.0.1:{port}/")
    assert zone("port", "dns").split() == ["80/tcp", "->", f"127.0.0.1:{port}", "5353/udp", "->", f"127.0.0.1:{port}"]

    before = lab.forwards()
    for there in (81, 80):  # in one command, and QEMU's forward stays
        zone("update", "--publish-rm", str(port), "--publish-add", f"{port}:{there}", "dns")
        shown = [line.split() for line in zone("port", "dns").splitlines()]
        assert [f"{there}/tcp", "->", f"127.0.0.1:{port}"] in shown
        assert lab.forwards() == before
    assert get(f"http://127.0.0.1:{port}/")

    other = free_port()
    client.settimeout(5)
    zone("update", "--publish-rm", f"{port}/udp", "--publish-add", f"{other}:5353/udp", "dns")
    assert answer(client, other) == expected
    assert answer(client, port, within_s=10) is None
    assert get(f"http://127.0.0.1:{port}/")
    assert set(lab.forwards()) == {("127.0.0.1", port, "tcp"), ("127.0.0.1", other, "udp")}

    pid = int(lab.call("ping")["zoned"]["pid"])
    assert lab.shell(f"kill -9 {pid}")[0] == 0
    assert answer(client, other) == expected
    wait_for(lambda: lab.call("ping")["zoned"] != {"pid": pid, "state": "serving"}, "end of zoned")
    assert lab.call("ready", {"timeout_s": 120}, timeout_s=180)["pid"] != pid
    zone("update", "--publish-rm", f"{other}/udp", "dns")
    assert set(lab.forwards()) == {("127.0.0.1", port, "tcp")}


def test_udp_port_in_use_on_this_machine_is_refused_before_anything_is_taken(
    zone: ZoneCommand, client: socket.socket
) -> None:
    port = client.getsockname()[1]
    before = zone("ps", "-aq")
    zone("run", "-d", "--name", "taken", "-p", f"{port}:53/udp", IMAGE, "true", code=125)
    assert f"port {port}/udp on 127.0.0.1: expected it free, got in use".encode() in zone.err
    assert zone("ps", "-aq") == before
