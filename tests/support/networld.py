"""A small world of network namespaces: an outside, a host between, a zone; a veth stands in for the vif."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from runtime.net import commands, netns
from runtime.net.addresses import plan_addresses
from runtime.net.engine.model import Limits
from runtime.net.engine.relay import let_reset
from runtime.net.errors import NetworkFault
from runtime.net.network import ZoneNetwork, teardown
from support.namespaces import require_user_namespaces
from support.tools import require

T = TypeVar("T")
OUTSIDE4, OUTSIDE6 = "203.0.113.2", "2001:db8:1::2"
HOST4, HOST6 = "203.0.113.1", "2001:db8:1::1"
DNS4 = "203.0.113.53"
SILENT_DNS = "198.51.100.53"
BLACK_HOLE, BLACK_HOLE6 = "198.51.100.7", "2001:db8:77ff::7"
VIF = "vif7.0"
# All that stay, but those of multicast, which the kernel has there when it says something of itself.
NEIGHBOURS = "(ip neigh show nud permanent; ip neigh show nud noarp; ip neigh show proxy) | grep -v ^ff0 || true"
TPROXY_PROBE = """
table inet probe {
 chain c {
  type filter hook prerouting priority mangle; policy accept;
  meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:1 accept
 }
}
table netdev probe {
 chain c {
  type filter hook ingress device "lo" priority 0; policy accept;
 }
}
"""


class World:
    """Namespaces `host`, `outside` and `zone`; `network` is the zone's, made in `host` and recorded in `records`."""

    def __init__(self, stack: ExitStack, directory: Path, index: int = 7) -> None:
        tag = f"zwt{os.getpid()}"
        self.stack, self.directory = stack, directory
        self.host, self.outside, self.zone = f"{tag}-host", f"{tag}-out", f"{tag}-zone"
        self.addresses = plan_addresses(index)
        self.beyond = ""
        self.records: list[dict[str, Any]] = []
        self.resolv_conf = directory / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {SILENT_DNS}\nnameserver {DNS4}\n")
        for name in (self.host, self.outside, self.zone):
            netns.create(name)
            stack.callback(netns.delete, name)
        self.ip(
            self.host,
            "link set lo up",
            f"link add up0 type veth peer name out0 netns {self.outside}",
            f"address add {HOST4}/24 dev up0",
            f"address add {HOST6}/64 dev up0 nodad",
            "address add 203.0.113.9/24 dev up0",
            "link set up0 up",
            f"route add default via {OUTSIDE4}",
            f"route add {BLACK_HOLE6} via {OUTSIDE6}",
            f"link add {VIF} type veth peer name eth0 netns {self.zone}",
        )
        self.ip(
            self.outside,
            "link set lo up",
            f"address add {OUTSIDE4}/24 dev out0",
            f"address add {DNS4}/24 dev out0",
            f"address add {OUTSIDE6}/64 dev out0 nodad",
            "link set out0 up",
            f"route add blackhole {BLACK_HOLE6}",  # over IPv6 who is no router says so
        )
        zone = self.addresses
        self.ip(
            self.zone,
            "link set lo up",
            f"link set eth0 address {zone.zone_mac}",
            f"address add {zone.zone4}/{zone.prefix4} dev eth0",
            f"address add {zone.zone6}/{zone.prefix6} dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {zone.gateway4}",
            f"route add ::/0 via {zone.gateway6}",
        )
        self.network = self.new_network()

    def new_network(self, **options: Any) -> ZoneNetwork:
        options.setdefault("limits", Limits(connect_timeout_s=1.5, dns_try_s=0.3, connections=64))
        network = ZoneNetwork(
            f"t{os.getpid()}{options.pop('name', '')}",
            self.addresses,
            1500,
            lambda kind, **fields: self.records.append({"kind": kind, **fields}),
            run_directory=self.directory / "run",
            resolv_conf=self.resolv_conf,
            **options,
        )
        self.stack.callback(lambda: teardown(self.records))
        self.stack.callback(network.destroy)
        return network

    def ip(self, name: str, *lines: str) -> None:
        netns.inside(name, lambda: commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject="test"))

    def on_host(self, work: Callable[[], T]) -> T:
        return netns.inside(self.host, work)

    def in_zone(self, work: Callable[[], T]) -> T:
        return netns.inside(self.zone, work)

    def of(self, name: str, work: Callable[[], T]) -> T:
        return netns.inside(name, work)

    def shell(self, name: str, line: str) -> str:
        """The output of a shell line in a namespace."""
        return netns.inside(name, lambda: _shell(line))

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Return when the condition holds; fails the test when it never does."""
        wait_until(condition, timeout_s)

    def up(self) -> ZoneNetwork:
        self.on_host(self.network.create)
        self.on_host(lambda: self.network.attach(VIF))
        self.on_host(self.network.serve)
        wait_for_links(self.zone, "eth0")
        return self.network

    @contextmanager
    def one_syn_each(self, *names: str) -> Iterator[None]:
        """One SYN leaves each of these namespaces meanwhile: what comes of a connection is the first one's doing."""
        bare = "tcp flags & (syn | ack) == syn"
        once = f"type filter hook output priority 0; {bare} limit rate over 1/day burst 1 packets drop"
        for name in names:
            self.shell(name, f"nft 'table inet once {{ chain c {{ {once}; }}; }}'")
        yield
        for name in names:
            self.shell(name, "nft delete table inet once")

    def behind_a_narrow_link(self, *addresses: str) -> None:
        """Make the outside a router, and behind it, over a link with MTU 1300, `beyond` with these addresses."""
        self.beyond = self.outside.replace("-out", "-far")
        netns.create(self.beyond)
        self.stack.callback(netns.delete, self.beyond)
        self.shell(self.outside, "cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding")
        self.ip(
            self.outside,
            f"link add far0 mtu 1300 type veth peer name near0 netns {self.beyond}",
            "address add 192.0.2.1/24 dev far0",
            "address add 2001:db8:9::1/64 dev far0 nodad",
            "link set far0 up",
        )
        self.ip(
            self.beyond,
            "link set lo up",
            "link set near0 mtu 1300 up",
            *(f"address add {item}/{'64' if ':' in item else '24'} dev near0 nodad" for item in addresses),
            "address add 192.0.2.2/24 dev near0",
            "address add 2001:db8:9::2/64 dev near0 nodad",
            "route add default via 192.0.2.1",
            "route add ::/0 via 2001:db8:9::1",
        )

    def meet(self, *others: str) -> None:
        """Return when host and outside know each other: the first IPv6 packet of a new link may wait for a second."""
        for address in (OUTSIDE4, OUTSIDE6, *others):
            try:
                self.on_host(lambda a=address: socket.create_connection((a, 9), 30)).close()
            except ConnectionRefusedError:
                pass

    def neighbour(self, **options: Any) -> tuple[ZoneNetwork, str]:
        """A second zone on this host, with a network that is up, and its namespace."""
        name, zone = self.zone.replace("-zone", "-next"), plan_addresses(8)
        netns.create(name)
        self.stack.callback(netns.delete, name)
        self.ip(self.host, f"link add vif8.0 type veth peer name eth0 netns {name}")
        self.ip(
            name,
            "link set lo up",
            f"link set eth0 address {zone.zone_mac}",
            f"address add {zone.zone4}/{zone.prefix4} dev eth0",
            f"address add {zone.zone6}/{zone.prefix6} dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {zone.gateway4}",
            f"route add ::/0 via {zone.gateway6}",
        )
        first, self.addresses = self.addresses, zone
        network = self.new_network(name="next", **options)
        self.addresses = first
        self.on_host(network.create)
        self.on_host(lambda: network.attach("vif8.0"))
        self.on_host(network.serve)
        wait_for_links(name, "eth0")
        return network, name

    def abandon(self, network: ZoneNetwork) -> None:
        """What the kernel does when the process that holds a network is killed: its descriptors go, no more."""
        for listener in network._inside:
            listener.close()
        network._inside.clear()
        network._ports.forget_all()

    def replace_vif(self, name: str) -> None:
        """The zone was restarted: its old vif is gone with its domain, a new one of another name waits on the host."""
        zone = self.addresses
        self.ip(self.network.netns, f"link del {self.network.vif}")
        self.ip(self.host, f"link add {name} type veth peer name eth0 netns {self.zone}")
        self.ip(
            self.zone,
            f"link set eth0 address {zone.zone_mac}",
            f"address add {zone.zone4}/{zone.prefix4} dev eth0",
            f"address add {zone.zone6}/{zone.prefix6} dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {zone.gateway4}",
        )

    def connect(self, address: str, port: int, *, source: str | None = None, timeout_s: float = 30.0) -> socket.socket:
        """A connection that the zone makes."""
        origin = (source, 0) if source else None
        return self.in_zone(lambda: socket.create_connection((address, port), timeout_s, origin))

    def serve(self, name: str, address: str, port: int, handle: Callable[[socket.socket], None]) -> int:
        """A TCP server in a namespace, each connection in a thread of its own; returns its port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = netns.inside(name, lambda: socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)

        def one(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(20)
                try:
                    handle(connection)
                except TimeoutError:
                    let_reset(connection)  # one that gives up has not said all: that is no end of stream
                except OSError:
                    pass  # what the other side sees of it is what the tests look at

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()

        def stop() -> None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()

        self.stack.callback(stop)
        number: int = listener.getsockname()[1]
        return number

    def at_rest(self) -> None:
        """Return when the host's own interface has all that a new one gets by and by, of which its kernel tells."""
        settled = "ip -6 -o address show dev up0 scope link | grep -v tentative | grep -q . && echo yes || true"
        self.wait_until(lambda: self.on_host(lambda: _shell(settled)) == "yes\n")

    def state_of_host(self) -> dict[str, str]:
        """What a zone network must not change."""
        self.at_rest()
        questions = {
            "links": "ip -o link | grep -v vif | sed 's/@.*//'",
            "rules": "ip rule; ip -6 rule",
            "routes": "ip route show table all; ip -6 route show table all",
            "nft": "nft list ruleset",
            # Old tables beside nft's own, where the host has the programs for them.
            "iptables": "for each in iptables ip6tables arptables; do $each-legacy-save 2>/dev/null || true; done",
            "neighbours": NEIGHBOURS,
            "traffic control": "for each in qdisc class filter; do tc $each show | grep -v vif || true; done",
            "sockets": "ss -Hlntu",
            # All of them, but those of the vif itself, which comes and goes.
            "settings": "grep -rs '' /proc/sys/net | grep -v vif | sort",
        }
        return {name: self.on_host(lambda line=line: _shell(line)) for name, line in questions.items()}


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return when the condition holds; fails the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def wait_for_links(name: str, *devices: str) -> None:
    """Return when these of a namespace are up: a worker of the kernel sees to that, what is sent before is dropped."""

    def up(device: str) -> bool:
        return " state UP " in netns.inside(name, lambda: _shell(f"ip -o link show dev {device}"))

    wait_until(lambda: all(map(up, devices)))


@contextmanager
def make_world() -> Iterator[World]:
    """A world; skips the test, naming what is missing, where there cannot be one."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    require("ip", "nft", "ss")
    require_user_namespaces()
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="zwt"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # the engine reads resolv.conf as an unprivileged user
        made = World(stack, directory)
        try:
            made.on_host(lambda: commands.feed(["nft", "-f", "-"], TPROXY_PROBE, subject="nft tproxy"))
            made.on_host(lambda: commands.feed(["nft", "flush ruleset"], "", subject="nft"))
        except NetworkFault as error:
            pytest.skip(f"needs a kernel with nft_tproxy: {error}")
        yield made


def _shell(line: str) -> str:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout


def receive_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def digest_then_echo(connection: socket.socket) -> None:
    """Read to the half-close, answer with the hash of what came, then with all of it."""
    data = receive_all(connection)
    connection.sendall(hashlib.sha256(data).digest())
    connection.sendall(data)
