"""A zone's network over real netback: our engine beside the kernel's NAT, both in dom0, in one run.

    zone `ours` --- netback --- its network, as zoned made it ---- dom0 ---+
                                                                           +--- outside, a namespace of dom0
    zone `kernel` - netback --- its network, turned into a router ---------+

A network is turned into a router by taking its rules away and giving it a veth to the outside, forwarding and nft
masquerade. $BENCH_ROUNDS says how many pairs are taken (5), $BENCH_SECONDS how long each load runs (5).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench_zone import World, free_port, world
from run import Measure, NotMeasured
from soak import disk_in_dom0
from support import zoneparts
from support.zonecommand import ZoneCommand

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
PAGES = 20
IMAGE = "recipe:nginx"
OURS, KERNEL = "ours", "kernel"
OUTSIDE, OUTSIDE_NAT, ROUTER = "198.51.100.7", "192.0.2.2", "192.0.2.1"  # of documentation: RFC 5737
TOOLS = "/mnt/tools"
# Debian's iperf3 with Debian's libraries, in the zone and in dom0 alike.
IPERF = (
    "{0}/lib64/ld-linux-x86-64.so.2 --library-path {0}/lib/x86_64-linux-gnu:{0}/usr/lib/x86_64-linux-gnu {0}/bin/iperf3"
)
LAY = f"""set -e
mkdir -p {TOOLS}; mount -t squashfs -o ro $DISK {TOOLS}
ip netns add outside
ip link add to-outside type veth peer name eth0 netns outside
ip address add 198.51.100.1/24 dev to-outside; ip link set to-outside up
ip -n outside address add {OUTSIDE}/24 dev eth0; ip -n outside link set eth0 up; ip -n outside link set lo up
ip -n outside route add default via 198.51.100.1
ip netns exec outside setsid {IPERF.format(TOOLS)} --server >/dev/null 2>&1 </dev/null &
"""
TURN = f"""set -e
ip netns exec $NET nft flush ruleset
ip -n $NET route delete local 0.0.0.0/0 dev lo table local
ip link add out1 netns outside type veth peer name up1 netns $NET
ip -n $NET address add {ROUTER}/24 dev up1; ip -n $NET link set up1 up
ip -n outside address add {OUTSIDE_NAT}/24 dev out1; ip -n outside link set out1 up
ip netns exec $NET sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
ip netns exec $NET nft -f - <<END
table ip nat {{
 chain prerouting {{ type nat hook prerouting priority dstnat; iifname "up1" tcp dport 8080 dnat to $ZONE:80; }}
 chain postrouting {{ type nat hook postrouting priority srcnat; oifname "up1" masquerade; }}
}}
END
"""
# Runs outside: the median of so many pages, each with a connection of its own, in milliseconds.
FETCH = """
import statistics, sys, time, urllib.request
def one():
    begin = time.monotonic()
    with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
        assert b"Served by nginx" in answer.read()
    return time.monotonic() - begin
one()
print(statistics.median(one() for _ in range(int(sys.argv[2]))) * 1000)
"""


def measure(out: Path) -> Iterator[Measure]:
    """All measures, in a lab that is gone afterwards."""
    with world() as here:
        zones = Zones(here)
        try:
            for name, unit in (("up", "Mbit/s"), ("down", "Mbit/s"), ("page", "ms")):
                yield from compared(zones, name, unit)
        finally:
            zones.command.close()


def compared(zones: Zones, name: str, unit: str) -> Iterator[Measure]:
    """A load through both, in turn: the median ratio of the pairs, and the medians."""
    pairs: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        print(f"netback: {name}, round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        first, second = (OURS, KERNEL) if number % 2 == 0 else (KERNEL, OURS)
        taken = {first: zones.take(name, first), second: zones.take(name, second)}
        pairs.append((taken[OURS], taken[KERNEL]))
    yield Measure(f"{name}_ratio", round(statistics.median(our / their for our, their in pairs), 3), "ratio")
    yield Measure(f"{name}_ours", round(statistics.median(our for our, _ in pairs), 1), unit)
    yield Measure(f"{name}_kernel", round(statistics.median(their for _, their in pairs), 1), unit)


class Zones:
    """Two zones that serve a page and have iperf3, and the outside."""

    def __init__(self, here: World) -> None:
        self._lab = here.host.lab
        self.command = ZoneCommand(f"lab:{self._lab.state.directory.name}")
        with tempfile.TemporaryDirectory(prefix="zb") as directory:
            tools = zoneparts.squashfs(
                zoneparts.small_root(Path(directory, "root"), ["iperf3"]), Path(directory, "tools.squashfs")
            )
            port = free_port()
            for name, publish in ((OURS, ("-p", f"{port}:80")), (KERNEL, ())):
                self.command("run", "-d", "--name", name, "-m", "160m", "-v", f"{tools}:/tools", *publish, IMAGE)
            self.command("wait", "--until", "ports", OURS)
            self._dom0(LAY, DISK=disk_in_dom0(self._lab, here.store.put_file(tools))[0])
        address = self._dom0("ip -4 -o address show dev eth0").split()[3].split("/")[0]
        zone = self.command.json("inspect", KERNEL)[0]["addresses"][0]
        self._dom0(TURN, NET=f"zw-{KERNEL}", ZONE=zone)
        dom0_port = self._lab.forwards()["127.0.0.1", port, "tcp"]
        self._pages = {OURS: f"http://{address}:{dom0_port}/", KERNEL: f"http://{ROUTER}:8080/"}

    def take(self, load: str, name: str) -> float:
        """Mbit/s received, or milliseconds of a page."""
        if load == "page":
            return float(self._dom0(f"ip netns exec outside python3 -c '{FETCH}' {self._pages[name]} {PAGES}"))
        server = OUTSIDE if name == OURS else OUTSIDE_NAT
        words = ["--client", server, "--json", "--time", f"{SECONDS:g}", *(["--reverse"] if load == "down" else [])]
        found = json.loads(self.command("exec", name, *IPERF.format("/tools").split(), *words))
        if "error" in found:
            raise NotMeasured(f"iperf3 from zone {name}: {found['error']}")
        return float(found["end"]["sum_received"]["bits_per_second"]) / 1e6

    def _dom0(self, script: str, **variables: str) -> str:
        settings = "".join(f"{key}={value}\n" for key, value in variables.items())
        code, said = self._lab.shell(settings + script)
        if code:
            raise NotMeasured(f"dom0: {said.strip()[-300:]}")
        return said
