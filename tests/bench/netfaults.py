"""What a network costs while it idles or a zone floods it, and how long it is away when its engine is killed."""

from __future__ import annotations

import json
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from netplace import ECHO_PORT, PEER, NetPlace, end
from run import Measure, NotMeasured
from support.networld import BLACK_HOLE
from support.sharedworld import Neighbour

from runtime.net import netns
from runtime.net.engine import processes
from runtime.net.engine.interface import EngineHandle
from runtime.net.supervise import EngineSupervisor

IDLE = 1000
KILLS = 5
_PATIENCE_S = 20.0
_PING_EVERY_S = 0.02
_PING_TIMEOUT_S = 0.5
_CONNECTIONS, _FLOODED = 500, 2000
# Ten thousand a second, as far as the machine can: more would measure who gets its cores.
_FLOOD = """
import socket, sys, time
held, due = [], time.monotonic()
while True:
    for address in sys.argv[1:] * 10:
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex((address, 9))
        held.append(each)
    del held[:-400]
    due = max(due + 0.002, time.monotonic() - 0.1)
    time.sleep(max(0, due - time.monotonic()))
"""


def idle_memory(place: NetPlace) -> list[Measure]:
    """Resident memory of the engine's process, with none and with a thousand connections that were used once."""
    before = _resident_mib(_engine(place).pid)
    words = (*PEER, "hold", place.ours.server, str(ECHO_PORT), str(IDLE), "0")
    holder = place.start(place.world.zone, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    answered = json.loads(holder.stdout.readline() or '{"answered": 0}')["answered"]
    active = place.network.counters()["active"]
    if (answered, active) != (IDLE, IDLE):
        raise NotMeasured(f"{answered} of {IDLE} connections were answered, {active} are open")
    with_all = _resident_mib(_engine(place).pid)
    end(holder)
    return [Measure("idle_memory", with_all, "MiB"), Measure("idle_memory_none", before, "MiB")]


def flooded(place: NetPlace) -> list[Measure]:
    """Connections that a zone opens, asks and closes one after the other, 99th percentile: while another zone of its
    network opens ten thousand a second, to a port that refuses and to a black hole, against the same before.
    """
    greedy, modest = place.pair()
    quiet = netns.inside(modest.namespace, lambda: _percentile99(place.ours.server))
    flood = place.start(greedy.namespace, sys.executable, "-c", _FLOOD, place.ours.server, BLACK_HOLE)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while greedy.network.counters()["limited"] < _FLOODED:
            if time.monotonic() > deadline:
                raise NotMeasured("the flood does not come about")
        began, before = time.monotonic(), _asked_of(greedy)
        during = netns.inside(modest.namespace, lambda: _percentile99(place.ours.server))
        rate = (_asked_of(greedy) - before) / (time.monotonic() - began)
    finally:
        end(flood)
    return [
        Measure("flood_p99_ratio", round(during / quiet, 2), "ratio"),
        Measure("flood_p99", round(during * 1000, 2), "ms"),
        Measure("flood_p99_quiet", round(quiet * 1000, 2), "ms"),
        Measure("flood_rate", round(rate), "/s"),
    ]


def _percentile99(server: str) -> float:
    taken = []
    for _ in range(_CONNECTIONS):
        began = time.monotonic()
        with socket.create_connection((server, ECHO_PORT), 5) as connection:
            connection.sendall(b"x")
            connection.recv(1)
        taken.append(time.monotonic() - began)
    return sorted(taken)[len(taken) * 99 // 100]


def _asked_of(zone: Neighbour) -> int:
    counters = zone.network.counters()
    return counters["failed"] + counters["limited"]


def killed(place: NetPlace) -> list[Measure]:
    """kill -9 of the engine under its supervisor: seconds until a new connection is answered, the slowest of a few;
    meanwhile the zone pings its gateway without a pause.
    """
    pinging = Pinging(place)
    try:
        taken = [_kill(place) for _ in range(KILLS)]
    finally:
        sent, lost = pinging.stop()
    return [
        Measure("killed_served_again", round(max(taken), 3), "s"),
        Measure("killed_served_again_median", round(statistics.median(taken), 3), "s"),
        Measure("killed_pings_lost", lost if sent else None, "pings", why="" if sent else "none was sent"),
        Measure("killed_pings_sent", sent, "pings"),
    ]


def _kill(place: NetPlace) -> float:
    # One supervisor for each: it lets an engine that died a moment ago wait, and every death here is to be the first.
    supervisor = place.world.on_host(EngineSupervisor)
    try:
        supervisor.add(place.network)
        engine = _engine(place)
        start = time.monotonic()
        processes.kill(engine.pid, engine.start_time)
        while time.monotonic() < start + _PATIENCE_S:
            with suppress(OSError):
                if place.world.in_zone(lambda: _asks(place.ours.server)):
                    return time.monotonic() - start
            time.sleep(0.01)
        raise NotMeasured(f"nothing is served {_PATIENCE_S:g} s after the engine was killed")
    finally:
        supervisor.discard(place.network)
        supervisor.close()


def _asks(server: str) -> bool:
    with socket.create_connection((server, ECHO_PORT), 5) as connection:
        connection.send(b"q")
        return connection.recv(1) == b"q"


class Pinging:
    """A zone that pings its gateway, from now until `stop`."""

    def __init__(self, place: NetPlace) -> None:
        self.sent = self.lost = 0
        self._stopping = threading.Event()
        self._socket = place.world.in_zone(_ping_socket)
        self._socket.connect((place.world.addresses.gateway4, 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(_PING_EVERY_S):
            self.sent += 1
            try:
                self._socket.send(_echo_request(self.sent))
                while self._socket.recv(4096)[6:8] != struct.pack("!H", self.sent & 0xFFFF):
                    pass  # the answer to one that was given up
            except OSError:
                self.lost += 1

    def stop(self) -> tuple[int, int]:
        """How many were sent, and how many got no answer."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()
        return self.sent, self.lost


def _ping_socket() -> socket.socket:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    made.settimeout(_PING_TIMEOUT_S)
    return made


def _echo_request(number: int) -> bytes:
    return struct.pack("!BBHHH", 8, 0, 0, 0, number & 0xFFFF)


def _engine(place: NetPlace) -> EngineHandle:
    engine = place.network.engine
    if engine is None:
        raise NotMeasured("the network has no engine")
    return engine


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)
