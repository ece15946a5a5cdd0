"""One zone's network, from nothing to running and back: the thin edge that does what plan.py says.

Order, as zoned drives it:
    network = ZoneNetwork(name, plan_addresses(allocate_index(used)), mtu, record)
    network.create()            # namespace, bridge, rules, engine started (not waited for)
    network.listen(ports)       # conflicts show here, before any domain runs
    ... build the domain, wait for vifN.0 ...
    network.attach("vifN.0")    # before hotplug-status and unpause
    network.serve()             # waits for the engine, which starts beside all this
    ... the zone runs, ends, its domain is destroyed ...
    network.destroy()
What is taken is told to `record` before it is taken; `teardown(records)` alone ends all of it, any number of times.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.bundle.model import Port
from runtime.net import commands, netlink, netns, plan
from runtime.net.addresses import ZoneAddresses
from runtime.net.engine import processes
from runtime.net.engine.interface import Engine, EngineHandle, Prepared
from runtime.net.engine.model import EngineConfig, Limits, Listeners
from runtime.net.engine.proxy import ProxyEngine
from runtime.net.errors import EngineFault, NetworkFault, PortTaken
from runtime.net.sockets import bind_udp, listen

log = logging.getLogger(__name__)

RUN_DIRECTORY = Path("/run/zonewright/net")
RESOLV_CONF = Path("/etc/resolv.conf")
FIRST_UID = 64000
ENGINE_READY_TIMEOUT_S = 60.0


class Record(Protocol):
    """How an outside resource gets into the ledger."""

    def __call__(self, kind: str, **fields: Any) -> Any: ...


class ZoneNetwork:
    """A private network of one zone.

    Effects: none before `create`. Every method raises RuntimeFault; create and attach tear down when they do.
    Threads: the host's side is the network namespace of the thread that calls `create` and `publish`.
    """

    def __init__(
        self,
        name: str,
        addresses: ZoneAddresses,
        mtu: int,
        record: Record,
        *,
        deny: Sequence[str] = (),
        limits: Limits | None = None,
        engine: Engine | None = None,
        run_directory: Path = RUN_DIRECTORY,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        plan.check_mtu(name, mtu)
        self.name, self.addresses, self.mtu = name, addresses, mtu
        self.netns = plan.netns_name(name)
        self._record, self._deny = record, tuple(deny)
        self._limits = limits or Limits()
        self._engine: Engine = engine or ProxyEngine()
        self._directory = run_directory / name
        self._control, self._log_file = self._directory / "control", self._directory / "log"
        self._resolv_conf = resolv_conf
        self._records: list[dict[str, Any]] = []
        self._handle: EngineHandle | None = None
        self._prepared: Prepared | None = None
        self._outside6 = False
        self._listeners: list[tuple[Port, socket.socket]] = []

    def _take(self, kind: str, **fields: Any) -> None:
        self._record(kind, **fields)
        self._records.append({"kind": kind, **fields})

    def create(self) -> None:
        """Make the namespace with bridge, gateway and rules, and start the engine."""
        if netns.path_of(self.netns).exists():
            raise NetworkFault(
                f"network of zone {self.name}", expected="none yet", got="it exists", hint="stop it first"
            )
        # Asked here: this thread is in the host's namespace.
        self._outside6 = plan.has_outside6(Path("/proc/thread-self/net/ipv6_route").read_text())
        try:
            self._take("net.directory", path=str(self._directory))
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take("net.netns", name=self.netns)
            netns.create(self.netns)
            made = netns.inside(self.netns, self._furnish)
            try:
                self._start_engine(made)
            finally:
                for item in made:
                    item.close()
        except OSError as error:
            self.destroy()
            raise NetworkFault(f"network of zone {self.name}", expected="it made", got=str(error)) from error
        except BaseException:
            self.destroy()
            raise

    def _furnish(self) -> list[socket.socket]:
        """Everything inside the namespace; returns the engine's listeners there, in the order of Listeners."""
        subject = f"network of zone {self.name}"
        sysctl(plan.early_sysctls(), subject)
        sysctl((item for item in plan.optional_sysctls() if Path("/proc/sys/net", item[0]).exists()), subject)
        commands.feed(["ip", "-batch", "-"], "\n".join(plan.ip_lines(self.addresses, self.mtu)) + "\n", subject=subject)
        netlink.add_mark_rule(plan.MARK, plan.TABLE)
        sysctl(plan.late_sysctls(), subject)
        made: list[socket.socket] = []
        try:
            made.append(listen("127.0.0.1", 0, transparent=True))
            made.append(listen("::1", 0, transparent=True))
            gateways = (self.addresses.gateway4, self.addresses.gateway6)
            made.extend(bind_udp(gateway, plan.DNS_PORT) for gateway in gateways)
            made.extend(listen(gateway, plan.DNS_PORT) for gateway in gateways)
            ruleset = plan.nft_ruleset(
                self.addresses,
                tproxy4=made[0].getsockname()[1],
                tproxy6=made[1].getsockname()[1],
                outside6=self._outside6,
            )
            commands.feed(["nft", "-f", "-"], ruleset, subject=subject)
        except BaseException as error:
            for item in made:
                item.close()
            if isinstance(error, OSError):
                raise NetworkFault(subject, expected="its listeners made", got=str(error)) from error
            raise
        return made

    def _start_engine(self, made: Sequence[socket.socket]) -> None:
        path = self._control
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.bind(str(path))
            control.listen(8)
            inherited = (*(item.fileno() for item in made), control.fileno())
            config = EngineConfig(
                zone=self.name,
                netns=str(netns.path_of(self.netns)),
                uid=FIRST_UID + self.addresses.index,
                zone4=self.addresses.zone4,
                zone6=self.addresses.zone6,
                resolv_conf=str(self._resolv_conf),
                deny=self._deny,
                limits=self._limits,
                listeners=Listeners._make(inherited),
            )
            config.denied()
            prepared = self._prepared = self._engine.prepare(inherited, path, self._log_file)
            self._take("net.engine", engine=self._engine.name, pid=prepared.pid, start_time=prepared.start_time)
            self._handle = prepared.start(config)

    def publish(self, ports: Iterable[Port]) -> tuple[tuple[str, int], ...]:
        """`listen`, then `serve`."""
        bound = self.listen(ports)
        self.serve()
        return bound

    def listen(self, ports: Iterable[Port]) -> tuple[tuple[str, int], ...]:
        """Take host_address:host_port of this host for each port, all of them or none; connections wait for `serve`.

        Shape:   the addresses listened on, in order; host_port 0 lets the kernel choose.
        Raises:  PortTaken, NetworkFault.
        """
        taken: list[tuple[Port, socket.socket]] = []
        try:
            for port in ports:
                taken.append((port, listener_for(self.name, port)))
            bound = tuple((item.getsockname()[0], item.getsockname()[1]) for _, item in taken)
            for (port, _), (address, number) in zip(taken, bound, strict=True):
                self._take("net.listener", address=address, port=number, zone_port=port.zone_port)
        except BaseException:
            for _, item in taken:
                item.close()
            raise
        self._listeners += taken
        return bound

    def use(self, listeners: Iterable[tuple[Port, socket.socket]]) -> None:
        """Lead connections to these listeners, which stay the caller's, to their ports' zone_port from `serve` on."""
        for port, item in listeners:
            address, number = item.getsockname()[:2]
            self._take("net.listener", address=address, port=number, zone_port=port.zone_port)
            self._listeners.append((port, item.dup()))

    def serve(self) -> None:
        """Wait for the engine, and lead every connection to a port listened on to its zone_port. Raises EngineFault."""
        handle = self._running()
        try:
            handle.wait_ready(ENGINE_READY_TIMEOUT_S)
            for port, item in self._listeners:
                address, number = item.getsockname()[:2]
                handle.publish(item, f"{address}:{number}", port.zone_port)
        finally:
            self._drop_listeners()

    def _drop_listeners(self) -> None:
        for _, item in self._listeners:
            item.close()
        self._listeners.clear()

    def unpublish(self, address: str, port: int) -> None:
        """Stop listening there; connections that run go on. Raises EngineFault."""
        self._running().unpublish(f"{address}:{port}")

    def attach(self, vif: str) -> None:
        """Move the vif in, make it the bridge's port, bring it up. The zone's connections wait for `serve`."""
        try:
            self._running()
            self._take("net.vif", vif=vif, netns=self.netns)
            fd = os.open(netns.path_of(self.netns), os.O_RDONLY | os.O_CLOEXEC)
            try:
                netlink.move_link(vif, fd)
            finally:
                os.close(fd)
            netns.inside(self.netns, lambda: netlink.enslave_link(vif, plan.BRIDGE, self.mtu))
        except BaseException:
            self.destroy()
            raise

    def answers(self, zone_port: int, *, timeout_s: float = 1.0) -> bool:
        """Does something in the zone listen on this TCP port? Asked from the gateway, past the engine."""

        def connect() -> bool:
            for address in (self.addresses.zone4, self.addresses.zone6):
                try:
                    socket.create_connection((address, zone_port), timeout=timeout_s).close()
                    return True
                except OSError:
                    continue
            return False

        return netns.inside(self.netns, connect)

    def alive(self) -> bool:
        """Does the engine run?"""
        return self._handle is not None and self._handle.alive()

    def counters(self) -> dict[str, int]:
        """What the engine counted, see engine.model.COUNTERS. Raises EngineFault."""
        return self._running().counters()

    def destroy(self) -> None:
        """Give everything back; harmless twice, and after a `create` that failed anywhere."""
        self._drop_listeners()
        if self._handle is not None:
            self._handle.stop()
        elif self._prepared is not None:
            self._prepared.stop()
        self._handle = self._prepared = None
        teardown(self._records)
        self._records.clear()

    def __enter__(self) -> ZoneNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool:
        """Take over, from its ledger, a network that an earlier zoned made; False when its engine does not run.

        What the records name is this object's from here on: `destroy` ends it, running engine or not.
        """
        self._records = [dict(record) for record in records if str(record["kind"]).startswith("net.")]
        for record in self._records:
            if record["kind"] == "net.engine":
                pid, start_time = record["pid"], record["start_time"]
                self._handle = self._engine.adopt(self.name, pid, start_time, self._control, self._log_file)
        return self.alive()

    def _running(self) -> EngineHandle:
        if self._handle is None:
            raise EngineFault(f"network of zone {self.name}", expected="it created", got="it is not")
        return self._handle


def listener_for(zone: str, port: Port) -> socket.socket:
    """Listen at host_address:host_port in the calling thread's network namespace. Raises PortTaken, NetworkFault."""
    subject = f"port {port.host_address}:{port.host_port} of zone {zone}"
    if port.protocol != "tcp":
        raise NetworkFault(subject, expected="protocol tcp", got=port.protocol)
    try:
        return listen(port.host_address, port.host_port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "choose another one, or stop what uses it"
            raise PortTaken(subject, expected="it free", got="taken by another program", hint=hint) from None
        raise NetworkFault(subject, expected="to listen there", got=str(error)) from error


def teardown(records: Iterable[Mapping[str, Any]]) -> None:
    """End all that these ledger records name, newest first; records of other kinds are passed over.

    Listeners end with their engine and the vif leaves with the namespace (the kernel gives a device without link
    operations of its own back to the host's namespace), so both are told to the ledger for people only.
    Raises:  the first failure, after everything was tried.
    """
    failure: Exception | None = None
    for record in reversed(list(records)):
        try:
            match record["kind"]:
                case "net.engine":
                    processes.kill(record["pid"], record["start_time"])
                case "net.netns":
                    netns.delete(record["name"])
                case "net.directory":
                    shutil.rmtree(record["path"], ignore_errors=True)
        except Exception as error:
            log.warning("teardown of %s: %s", record["kind"], error)
            failure = failure or error
    if failure is not None:
        raise failure


def sysctl(settings: Iterable[tuple[str, str]], subject: str) -> None:
    """Write settings below /proc/sys/net, which is the calling thread's network namespace's. Raises NetworkFault."""
    for key, value in settings:
        try:
            Path("/proc/sys/net", key).write_text(value)
        except OSError as error:
            raise NetworkFault(subject, expected=f"sysctl net/{key} = {value}", got=str(error)) from error
