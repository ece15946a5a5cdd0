"""Where a zone's network is measured: namespaces of this machine, a veth in the place of a vif.

    zone -- [our network: bridge, rules, engine] -- host ----+
                                                             +-- outside, where all servers are
    natted -- bridge of a router with nft masquerade --------+

Both ways have the same links. All namespaces have the same congestion control, cubic where this machine lets them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run import HERE, NotMeasured
from support.networld import OUTSIDE4, World
from support.sharedworld import Neighbour, SharedNetwork

from runtime.net import commands, netns
from runtime.net.engine.model import Limits

ECHO_PORT, IPERF_PORT = 7007, 5201
OUTSIDE_NAT = "192.0.2.2"
PATIENCE_S = 8.0  # what a client may take beyond its load
PEER = (sys.executable, "-I", "-S", str(HERE / "netpeer.py"))
_INDEX = 99  # of the zone's addresses and of the engine's user: tests that run beside this have others
_PORTS = "10000 65000"
_NAT = """
table ip nat {
 chain postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  oifname "up1" masquerade
 }
}
"""


@dataclass(frozen=True)
class Way:
    """A client's namespace, the address of the server that it reaches in one way, and that server's namespace."""

    name: str
    namespace: str
    server: str
    served: str


class NetPlace:
    """All of it; `ours` and `kernel` are the two ways to the outside."""

    def __init__(self, stack: ExitStack, scratch: Path) -> None:
        self._stack, self._scratch = stack, scratch
        self._pair: tuple[Neighbour, Neighbour] | None = None
        self._tag = f"zwt{os.getpid()}"
        self.world = World(stack, scratch, index=_INDEX)
        self.host, self.outside = self.world.host, self.world.outside
        for name in (self.host, self.outside, self.world.zone):
            _settle(name)
        self.world.network = self.world.new_network(limits=Limits())  # the product's, not the tests'
        self.network = self.world.up()
        _settle(self.network.netns)
        self.ours = Way("ours", self.world.zone, OUTSIDE4, self.outside)
        self.kernel = Way("kernel NAT", self._lay_nat(), OUTSIDE_NAT, self.outside)

    def namespace(self, name: str) -> str:
        """A new one, until the end; its whole name."""
        whole = f"{self._tag}-{name}"
        netns.create(whole)
        self._stack.callback(netns.delete, whole)
        _settle(whole)
        self.world.ip(whole, "link set lo up")
        return whole

    def directory(self, name: str) -> Path:
        """A new one, until the end."""
        made = self._scratch / name
        made.mkdir()
        return made

    def _lay_nat(self) -> str:
        router, natted, ip = self.namespace("router"), self.namespace("natted"), self.world.ip
        ip(
            router,
            f"link add up1 type veth peer name out1 netns {self.outside}",
            "address add 192.0.2.1/24 dev up1",
            "link set up1 up",
            "link add br0 type bridge stp_state 0",
            "address add 10.99.0.1/24 dev br0",
            "link set br0 up",
            f"link add port0 type veth peer name eth0 netns {natted}",
            "link set port0 master br0 up",
        )
        ip(self.outside, f"address add {OUTSIDE_NAT}/24 dev out1", "link set out1 up")
        ip(natted, "address add 10.99.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.99.0.1")
        netns.inside(router, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        netns.inside(router, lambda: commands.feed(["nft", "-f", "-"], _NAT, subject="kernel NAT"))
        return natted

    def pair(self) -> tuple[Neighbour, Neighbour]:
        """Two zones of a network that they share, the same each time."""
        if self._pair is None:
            shared = SharedNetwork(self.world, limits=Limits())
            self._pair = one, two = shared.zone("one", 2), shared.zone("two", 3)
            for name in (one.namespace, two.namespace, shared.segment.netns):
                _settle(name)
        return self._pair

    def neighbours(self) -> tuple[Way, Way]:
        """From a zone to another of a network they share, and the same over a plain bridge."""
        plain, left, right, ip = self.namespace("plain"), self.namespace("left"), self.namespace("right"), self.world.ip
        one, two = self.pair()
        ip(plain, "link add br0 type bridge stp_state 0", "link set br0 up")
        for port, (name, address) in enumerate(((left, "10.98.0.2"), (right, "10.98.0.3"))):
            ip(
                plain,
                f"link add port{port} type veth peer name eth0 netns {name}",
                f"link set port{port} master br0 up",
            )
            ip(name, f"address add {address}/24 dev eth0", "link set eth0 up")
        return (
            Way("zone to zone", one.namespace, two.addresses.zone4, two.namespace),
            Way("plain bridge", left, "10.98.0.3", right),
        )

    def start(self, name: str, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        """A process in a namespace, until the end."""
        process: subprocess.Popen[str] = netns.inside(
            name, lambda: subprocess.Popen([str(word) for word in words], text=True, **options)
        )

        self._stack.callback(end, process)
        return process

    def serve(self, name: str, mark: str, *words: str) -> subprocess.Popen[str]:
        """A server in a namespace, until the end; returns when it says `mark`. Raises NotMeasured."""
        server = self.start(name, *words, stdout=subprocess.PIPE)
        assert server.stdout is not None
        if not any(mark in line for line in server.stdout):
            raise NotMeasured(f"{words[0]}: it does not start to serve")
        return server

    def ask(self, way: Way, *words: str, timeout_s: float) -> dict[str, Any]:
        """The JSON that a client on this way says. Raises NotMeasured."""
        try:
            done = netns.inside(
                way.namespace, lambda: subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotMeasured(f"{way.name}: {error}") from error
        start = done.stdout.find("{")
        if start < 0:
            raise NotMeasured(f"{way.name}: {(done.stderr.strip().splitlines() or ['said nothing'])[-1]}")
        found: dict[str, Any] = json.loads(done.stdout[start:])
        if "error" in found:
            raise NotMeasured(f"{way.name}: {found['error']}")
        return found

    def peer(self, way: Way, role: str, number: int, seconds: float) -> dict[str, Any]:
        """What a client of netpeer.py says. Raises NotMeasured."""
        words = (*PEER, role, way.server, str(ECHO_PORT), str(number), str(seconds))
        return self.ask(way, *words, timeout_s=seconds + PATIENCE_S)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process; harmless twice."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _settle(name: str) -> None:
    """The settings that all namespaces have alike."""

    def write() -> None:
        net = Path("/proc/sys/net/ipv4")
        for control in ("reno", "cubic"):
            with suppress(PermissionError):  # tcp_allowed_congestion_control may leave one of them out
                (net / "tcp_congestion_control").write_text(control)
        (net / "ip_local_port_range").write_text(_PORTS)

    netns.inside(name, write)


@contextmanager
def net_place() -> Iterator[NetPlace]:
    """All namespaces, with an echo server outside. Raises NotMeasured where they cannot be made."""
    if os.geteuid() != 0:
        raise NotMeasured("network namespaces need root")
    for program in ("ip", "nft", "iperf3"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            raise NotMeasured(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="zwt") as scratch, ExitStack() as stack:
        Path(scratch).chmod(0o755)
        place = NetPlace(stack, Path(scratch))
        place.serve(place.outside, "ready", *PEER, "serve", "0.0.0.0", str(ECHO_PORT))
        yield place
