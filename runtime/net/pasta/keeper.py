"""The process behind the engine `pasta`: starts pasta, keeps the network's rules in step with this host, ends with it.

It is the first process of a process namespace of its own, so that nothing of it is left when it is killed. It outlives
zoned, as an engine does: what the host's own addresses are has to be known while there is no zoned, too. It reads its
config, the control socket and the kernel's word of the host's routes; nothing that a zone has sent.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Port
from runtime.errors import RuntimeFault
from runtime.net import commands, netlink, netns
from runtime.net.addresses import GATEWAY_MAC, ZoneAddresses, parse_static, plan_addresses
from runtime.net.engine.confine import MS_PRIVATE
from runtime.net.engine.control import PACKET_BYTES
from runtime.net.engine.model import EngineConfig, ZonePart, load
from runtime.net.errors import EngineFault
from runtime.net.pasta import hostaddresses, plan
from runtime.net.plan import BRIDGE
from runtime.net.pool import parse_pools, use

log = logging.getLogger(__name__)

Answer = dict[str, Any]

NS_GET_USERNS = 0xB7 << 8 | 1  # linux/nsfs.h, _IO(NSIO, 0x1)
CLONE_NEWNS = 0x20000  # linux/sched.h
_READY_TIMEOUT_S = 15.0  # less than whoever asks for it waits
_CLIENT_TIMEOUT_S = 5.0
# Every host has it; in this process's mount namespace it is another one. And it is where Debian's AppArmor profile of
# pasta lets it read and write.
_PRIVATE = Path("/tmp")
_TUN = Path("/dev/net/tun")
_TUN_DEVICE = os.makedev(10, 200)  # Documentation/admin-guide/devices.txt
_FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_STARTED_WITH = "a zone's ports are pasta's from its start"


class Keeper:
    """The one zone of a network, and pasta, which runs from the moment that zone has its ports."""

    def __init__(self, config: EngineConfig, program: str, private: Path = _PRIVATE) -> None:
        """private: an empty directory that no other process sees."""
        self._config, self._program, self._private = config, program, private
        self._subject = f"network engine of {config.whose}"
        self._name = Path(config.netns).name
        self._listener = socket.socket(fileno=config.listeners.control)
        self._news = netlink.listen_for_changes()
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(self._news, select.EPOLLIN)
        self._part: ZonePart | None = None
        self._ports: dict[str, tuple[Port, socket.socket]] = {}
        self._resolvers = plan.choose_resolvers(config.resolvers)
        self._pasta: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._failure: RuntimeFault | None = None
        self._host = hostaddresses.read()
        self._hide()

    def _hide(self) -> None:
        """What pasta opens, as its own user, and this host has not or has for root alone."""
        # Root's: the directory stays root's, and pasta has these opened before it leaves for its empty root.
        namespace = os.open(self._config.netns, os.O_RDONLY | os.O_CLOEXEC)
        owner = fcntl.ioctl(namespace, NS_GET_USERNS)
        try:
            (self._private / "userns").touch()
            netns.mount(f"/proc/self/fd/{owner}", self._private / "userns", "none", netns.MS_BIND)
            (self._private / "netns").touch()
            netns.mount(self._config.netns, self._private / "netns", "none", netns.MS_BIND)
        finally:
            os.close(owner)
            os.close(namespace)
        os.mknod(self._private / "tun", 0o020666, _TUN_DEVICE)
        (self._private / "tun").chmod(0o666)
        netns.mount(str(self._private / "tun"), _TUN, "none", netns.MS_BIND)
        os.mkfifo(self._private / "ready")

    # -- questions -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until pasta ends. Raises EngineFault then, and when the rules cannot be kept in step."""
        self._load()
        while True:
            for fd, _ in self._poll.poll():
                # Asked again: the number may be a new one's, which took the place of the one that ended.
                if fd == self._pidfd and self._pasta is not None and self._pasta.poll() is not None:
                    raise self._ended()
                if fd == self._news.fileno():
                    self._look_at_host()
                elif fd == self._listener.fileno():
                    self._serve_client()
            if self._failure is not None:
                raise self._failure  # whoever asked has been told; without pasta there is to be a new keeper

    def _serve_client(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        with client:
            client.settimeout(_CLIENT_TIMEOUT_S)
            try:
                packet, descriptors, _, _ = socket.recv_fds(client, PACKET_BYTES, 1)
                passed = [socket.socket(fileno=fd) for fd in descriptors]
                back: list[socket.socket] = []
                answer = self._answer(packet, passed, back)
                socket.send_fds(client, [json.dumps(answer).encode()], [item.fileno() for item in back])
            except OSError as error:
                log.warning("a question: %s", error)

    def _answer(self, packet: bytes, passed: list[socket.socket], back: list[socket.socket]) -> Answer:
        kept: list[socket.socket] = []
        try:
            request = json.loads(packet)
            return self._operate(request, passed, kept, back)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f"bad request: {error!r}"}
        except RuntimeFault as fault:
            return {"error": str(fault)}
        finally:
            for item in passed:
                if item not in kept:
                    item.close()

    def _operate(
        self, request: Answer, passed: list[socket.socket], kept: list[socket.socket], back: list[socket.socket]
    ) -> Answer:
        operation, name = request["op"], str(request.get("zone", ""))
        if operation == "status" and not name:
            return {"zones": [self._part.name] if self._part is not None else []}
        if operation == "resolve":
            return self._resolve(tuple(map(str, request["resolvers"])))
        if operation == "admit":
            zone4, zone6 = map(str, request["addresses"])
            return self._admit(ZonePart(name, zone4, zone6, int(request["echo"]), tuple(map(str, request["egress"]))))
        if self._part is None or self._part.name != name:
            return {"error": f"no zone {name!r} here", "unknown": True}
        if operation == "status":
            return {"counters": {}}
        if operation == "settle":
            return self._settle()
        if operation == "publish":
            (listener,) = passed
            problem = self._publish(str(request["key"]), int(request["zone_port"]), listener)
            kept += [] if problem else [listener]
            return {"error": problem} if problem else {}
        if operation == "unpublish":
            return self._unpublish(str(request["key"]))
        if operation == "egress":
            return self._judge_by(tuple(map(str, request["rules"])))
        if operation == "handback":
            back += [listener for _, listener in self._ports.values()]
            return {"inside": [], "published": [[key, port.zone_port] for key, (port, _) in self._ports.items()]}
        if operation == "leave":
            self._leave()
            return {}
        return {"error": f"unknown operation {operation!r}"}

    def _admit(self, part: ZonePart) -> Answer:
        # The same one again is of who got no answer.
        if self._part is not None and self._part._replace(egress=()) != part._replace(egress=()):
            return {"error": f"zone {self._part.name!r} is here, and pasta is for one"}
        plan.check_egress(part.rules(), self._subject)
        zone = _addresses_of(part)
        lines = [*plan.route_lines(zone), *plan.neighbour_lines(zone)]
        self._inside(lambda: commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject=self._subject))
        self._load(part)
        self._part = part
        return {}

    def _judge_by(self, egress: tuple[str, ...]) -> Answer:
        assert self._part is not None
        part = self._part._replace(egress=egress)
        plan.check_egress(part.rules(), self._subject)
        self._load(part)
        self._part = part
        return {}

    def _publish(self, key: str, zone_port: int, listener: socket.socket) -> str:
        if self._pasta is not None:
            return f"port {key}: {_STARTED_WITH}; restart the zone, or use the engine splice"
        protocol = "udp" if listener.type == socket.SOCK_DGRAM else "tcp"
        address, number = listener.getsockname()[:2]
        ports = [port for port, _ in self._ports.values()]
        port = Port(address, number, zone_port, protocol)
        plan.check_ports([*ports, port], self._subject)
        if protocol == "tcp":
            # It no longer listens, and stays bound: the port is for pasta, which may reuse addresses, until it listens.
            # Source: net/ipv4/inet_connection_sock.c, inet_csk_bind_conflict; net/ipv4/af_inet.c, inet_shutdown.
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it did not listen: another engine of this zone's had it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._ports[key] = (port, listener)
        return ""

    def _unpublish(self, key: str) -> Answer:
        if self._pasta is not None:
            return {"error": f"port {key}: {_STARTED_WITH}; restart the zone, or use the engine splice"}
        found = self._ports.pop(key, None)
        if found is None:
            return {"error": f"{key} is not published", "unknown": True}
        found[1].close()
        return {}

    def _resolve(self, resolvers: tuple[str, ...]) -> Answer:
        chosen = plan.choose_resolvers(resolvers)
        if chosen != self._resolvers:
            self._resolvers = chosen
            self._load()
            if self._pasta is not None:  # it is told when it starts, and at no other time
                self._stop_pasta()
                self._start_pasta()
        return {}

    def _leave(self) -> None:
        self._stop_pasta()
        for _, listener in self._ports.values():
            listener.close()
        self._ports.clear()
        self._part = None
        self._load()

    # -- rules ---------------------------------------------------------------------------------------------------------

    def _inside(self, work: Callable[[], None]) -> None:
        netns.inside(self._name, work)

    def _load(self, part: ZonePart | None = None) -> None:
        """The rules as they should be now, in one transaction. Raises NetworkFault."""
        part = part or self._part
        index, _ = parse_static(self._config.gateway4.rpartition(".")[0] + ".2")
        text = plan.ruleset(
            plan_addresses(index),
            _addresses_of(part) if part is not None else None,
            rules=part.rules() if part is not None else (),
            deny=self._config.denied(),
            host=self._host,
            resolvers=self._resolvers,
        )
        self._inside(lambda: commands.feed(["nft", "-f", "-"], "flush ruleset\n" + text, subject=self._subject))

    def _look_at_host(self) -> None:
        netlink.drain(self._news)
        host = hostaddresses.read()
        if host != self._host:
            self._host = host
            self._load()

    # -- pasta ---------------------------------------------------------------------------------------------------------

    def _settle(self) -> Answer:
        if self._pasta is None:
            self._start_pasta()
        return {}

    def _start_pasta(self) -> None:
        """Start it and return when it serves. Raises EngineFault, NetworkFault; this process ends soon then."""
        try:
            self._start_and_plug()
        except RuntimeFault as fault:
            self._stop_pasta()
            self._failure = fault
            raise

    def _start_and_plug(self) -> None:
        assert self._part is not None
        ready = os.open(self._private / "ready", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        said = self._private / "said"
        try:
            argv = plan.pasta_argv(
                self._program,
                _addresses_of(self._part),
                [port for port, _ in self._ports.values()],
                uid=self._config.uid,
                mtu=self._config.mtu,
                resolvers=self._resolvers,
                userns=str(self._private / "userns"),
                netns=str(self._private / "netns"),
                ready=str(self._private / "ready"),
            )
            with open(said, "wb", buffering=0) as output:
                self._pasta = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"LC_ALL": "C"}, cwd="/"
                )
            self._pidfd = os.pidfd_open(self._pasta.pid)
            wait = select.poll()
            wait.register(ready, select.POLLIN)
            wait.register(self._pidfd, select.POLLIN)
            events = dict(wait.poll(_READY_TIMEOUT_S * 1000))
            if events.get(ready) == select.POLLHUP:  # a process that ends closes what it has before it is seen to end
                wait.unregister(ready)
                events = dict(wait.poll(_READY_TIMEOUT_S * 1000))
            if ready not in events or self._pidfd in events:
                raise self._ended() if self._pidfd in events else self._silent()
        except OSError as error:
            raise EngineFault(f"{self._subject}, pasta", expected="it started", got=str(error)) from error
        finally:
            os.close(ready)
        mtu = self._config.mtu
        self._inside(lambda: netlink.enslave_link(plan.TAP, BRIDGE, mtu, group=0, mac=GATEWAY_MAC))
        self._poll.register(self._pidfd, select.EPOLLIN)

    def _stop_pasta(self) -> None:
        if self._pasta is None:
            return
        self._pasta.kill()
        self._pasta.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)  # and epoll forgets it
        self._pasta, self._pidfd = None, -1

    def _ended(self) -> EngineFault:
        assert self._pasta is not None
        code = self._pasta.wait()
        try:
            lines = (self._private / "said").read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        said_last = "; ".join(line.strip() for line in lines[-2:])[:300]  # why, and what comes of it
        got = f"it ended by signal {-code}" if code < 0 else f"it ended: {said_last or f'exit {code}'}"
        hint = plan.hint_of_low_ports([port for port, _ in self._ports.values()], _first_free_port(), got)
        return EngineFault(f"{self._subject}, pasta", expected="it to serve", got=got, hint=hint, temporary=True)

    def _silent(self) -> EngineFault:
        expected = f"it to serve within {_READY_TIMEOUT_S:.0f} s"
        return EngineFault(f"{self._subject}, pasta", expected=expected, got="it does not")


def _addresses_of(part: ZonePart) -> ZoneAddresses:
    index, host = parse_static(part.zone4)
    return plan_addresses(index, host=host)


def _first_free_port() -> int:
    """Below it ports are root's. Source: ip-sysctl.rst, ip_unprivileged_port_start, 1024 where nothing was set."""
    try:
        return int(_FIRST_FREE_PORT.read_text())
    except (OSError, ValueError):
        return 1024


def main() -> None:
    """Run a keeper. Effects: a mount namespace of this process's own."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    text = sys.stdin.readline()
    if not text:
        return  # whoever started this died before it said what to do
    document = json.loads(text)
    config = load(json.dumps(document["config"]))
    use(parse_pools(*config.pools))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        _made(config, document["program"]).run()
    except RuntimeFault as fault:
        log.error("%s", fault)  # and it ends, which is what its watcher looks at


def _made(config: EngineConfig, program: str) -> Keeper:
    """A keeper in a mount namespace of its own. Raises EngineFault, NetworkFault."""
    try:
        netns.call("unshare", CLONE_NEWNS)
        netns.mount("", "/", "", netns.MS_REC | MS_PRIVATE)
        netns.mount("none", _PRIVATE, "tmpfs", 0, "size=64k,nr_inodes=16,mode=711")
        return Keeper(config, program)
    except OSError as error:  # such as no /dev/net/tun
        subject = f"network engine of {config.whose}"
        raise EngineFault(subject, expected="a place for pasta made", got=str(error)) from error
