"""One zone's network, from nothing to running and back: the thin edge that does what plan.py says.

Order, as zoned drives it:
    network = ZoneNetwork(name, plan_addresses(allocate_index(used)), mtu, record)
    network.create()            # namespace, bridge, rules, engine started (not waited for)
    network.listen(ports)       # conflicts show here, before any domain runs
    ... build the domain, wait for vifN.0 ...
    network.attach("vifN.0")    # before hotplug-status and unpause
    network.serve()             # waits for the engine, which starts beside all this
    ... the zone runs, ends, its domain is destroyed ...
    network.attach("vifM.0")    # again, where the zone is restarted: ports and addresses were kept all the while
    network.destroy()
Ports come and go at any time (`publish`, `unpublish`). An engine that died is replaced by `revive` (supervise.py calls
it): this process keeps duplicates of all listeners, so connections wait instead of being refused; a later zoned gets
them back from the engine (`adopt`).
What is taken is told to `record` before it is taken; `teardown(records)` alone ends all of it, any number of times.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.bundle.model import Port
from runtime.errors import RuntimeFault
from runtime.net import furnish, netns, plan
from runtime.net.addresses import ZoneAddresses
from runtime.net.bandwidth import Bandwidth
from runtime.net.calls import engine_filter
from runtime.net.capture import Capture, CaptureRequest, Captures
from runtime.net.engine.flows import Flow
from runtime.net.engine.interface import Engine, EngineHandle, Prepared
from runtime.net.engine.model import EngineConfig, Limits, Listeners
from runtime.net.engine.proxy import ProxyEngine
from runtime.net.errors import EngineFault, NetworkFault, OutdatedEngine, PortTaken
from runtime.net.published import Published, key_of, listen_on, protocol_of
from runtime.net.resolvers import NONE_NAMED, RESOLV_CONF, read_resolvers
from runtime.net.sockets import echo_socket
from runtime.net.teardown import current, teardown

log = logging.getLogger(__name__)

RUN_DIRECTORY = Path("/run/zonewright/net")
FIRST_UID = 64000
ENGINE_READY_TIMEOUT_S = 60.0

__all__ = ["Record", "ZoneNetwork", "teardown"]


class Record(Protocol):
    """How an outside resource gets into the ledger."""

    def __call__(self, kind: str, **fields: Any) -> Any: ...


class ZoneNetwork:
    """A private network of one zone.

    Effects: none before `create`. Every method raises RuntimeFault; create and the first attach tear down when they do.
    Threads: any, one at a time; the host's side is the namespace of the thread that calls create, publish and revive.
    """

    def __init__(
        self,
        name: str,
        addresses: ZoneAddresses,
        mtu: int,
        record: Record,
        *,
        deny: Sequence[str] = (),
        egress: Sequence[str] = (),
        bandwidth_bit_s: int = 0,
        limits: Limits | None = None,
        engine: Engine | None = None,
        run_directory: Path = RUN_DIRECTORY,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        plan.check_mtu(name, mtu)
        self.name, self.addresses, self.mtu = name, addresses, mtu
        self.netns = plan.netns_name(name)
        self.vif = ""
        self.restarts = 0
        self._record, self._deny, self._egress = record, tuple(deny), tuple(egress)
        self._limits = limits or Limits()
        self._bandwidth = Bandwidth(self.netns, mtu, bandwidth_bit_s, subject=f"network of zone {name}")
        self._engine: Engine = engine or ProxyEngine()
        self._directory = run_directory / name
        self._control, self._log_file = self._directory / "control", self._directory / "log"
        self._resolv_conf, self._resolvers = resolv_conf, NONE_NAMED
        self._records: list[dict[str, Any]] = []
        self._handle: EngineHandle | None = None
        self._prepared: Prepared | None = None
        self._inside: list[socket.socket] = []
        self._published: dict[str, Published] = {}
        self._captures = Captures()
        self._lock = threading.RLock()

    @property
    def uid(self) -> int:
        """The network's own user: its engine's, and the owner of its namespace. Nothing of this host belongs to it."""
        return FIRST_UID + self.addresses.index

    def _take(self, kind: str, **fields: Any) -> None:
        self._record(kind, **fields)
        self._records.append({"kind": kind, **fields})

    # -- making --------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the namespace with bridge, gateway and rules, and start the engine."""
        if netns.path_of(self.netns).exists():
            raise NetworkFault(
                f"network of zone {self.name}", expected="none yet", got="it exists", hint="stop it first"
            )
        with self._lock:
            try:
                self._take("net.directory", path=str(self._directory))
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._take("net.netns", name=self.netns)
                netns.create(self.netns, owner=self.uid)
                netns.inside(self.netns, lambda: furnish.lay_out(self.name, self.addresses, self.mtu))
                self._open_inside()
                self._start_engine()
            except OSError as error:
                self.destroy()
                raise NetworkFault(f"network of zone {self.name}", expected="it made", got=str(error)) from error
            except BaseException:
                self.destroy()
                raise

    def _open_inside(self) -> None:
        self._inside = netns.inside(self.netns, lambda: furnish.open_listeners(self.name, self.addresses))

    def _start_engine(self) -> None:
        path = self._control
        path.unlink(missing_ok=True)
        identifier = secrets.randbelow(1 << 16)
        with contextlib.ExitStack() as stack:
            families = (socket.AF_INET, socket.AF_INET6)
            echoes = [stack.enter_context(echo_socket(family, identifier)) for family in families]
            control = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            control.bind(str(path))
            control.listen(8)
            inherited = tuple(item.fileno() for item in (*self._inside, *echoes, control))
            config = EngineConfig(
                zone=self.name,
                netns=str(netns.path_of(self.netns)),
                uid=self.uid,
                zone4=self.addresses.zone4,
                zone6=self.addresses.zone6,
                resolvers=self._read_resolvers(),
                gateway4=self.addresses.gateway4,
                gateway6=self.addresses.gateway6,
                mtu=self.mtu,
                echo_identifier=identifier,
                deny=self._deny,
                egress=self._egress,
                seccomp=engine_filter(),
                limits=self._limits,
                listeners=Listeners._make(inherited),
            )
            config.denied(), config.rules()  # what is wrong in them is said here, not by a process that ends
            prepared = self._prepared = self._engine.prepare(inherited, path, self._log_file)
            self._take("net.engine", engine=self._engine.name, pid=prepared.pid, start_time=prepared.start_time)
            self._handle = prepared.start(config)

    def attach(self, vif: str) -> None:
        """Move the vif in, make it the bridge's port, bring it up. The zone's connections wait for `serve`.

        A network that had a vif before stays as it is when this one cannot be attached.
        """
        with self._lock:
            try:
                self._running()
                self._take("net.vif", vif=vif, netns=self.netns)
                furnish.move_vif(vif, self.netns, self.mtu)
                self._bandwidth.attach(vif)
                self.vif = vif
            except BaseException:
                if not self.vif:
                    self.destroy()
                raise

    def limit(self, bandwidth_bit_s: int) -> None:
        """Hold the zone to this rate each way from now on; 0 for none. Raises NetworkFault; all is as before then."""
        with self._lock:
            self._bandwidth.change(self.vif, bandwidth_bit_s)

    # -- ports ---------------------------------------------------------------------------------------------------------

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
        with self._lock:
            taken: list[Published] = []
            try:
                for port in ports:
                    taken.append(listen_on(self.name, port))
                for item in taken:
                    self._take("net.listener", **item.fields())
            except BaseException:
                for item in taken:
                    item.listener.close()
                raise
            self._published |= {item.key: item for item in taken}
            return tuple((item.address, item.port) for item in taken)

    def use(self, listeners: Iterable[tuple[Port, socket.socket]]) -> None:
        """Lead connections to listeners of the caller's to their ports' zone_port, from `serve` on.

        They stay the caller's, who may hold them longer than this network lives.
        """
        with self._lock:
            for port, listener in listeners:
                address, number = listener.getsockname()[:2]
                item = Published(address, number, port.zone_port, listener.dup(), protocol=port.protocol)
                self._take("net.listener", **item.fields())
                self._published[item.key] = item

    def serve(self) -> None:
        """Wait for the engine, and lead every connection to a port listened on to its zone_port. Raises EngineFault."""
        with self._lock:
            handle = self._running()
            handle.wait_ready(ENGINE_READY_TIMEOUT_S)
            for item in self._published.values():
                if not item.served:
                    handle.publish(item.listener, item.key, item.zone_port)
                    item.served = True

    def unpublish(self, address: str, port: int, protocol: str = "tcp") -> None:
        """Stop listening there; connections that run go on. Raises NetworkFault where nothing is published."""
        with self._lock:
            handle = self._running()
            key = key_of(address, port, protocol)
            item = self._published.pop(key, None)
            if item is None:
                got = ", ".join(self._published) or "none"
                subject = f"port {key} of zone {self.name}"
                raise NetworkFault(subject, expected="one that is published", got=got)
            item.listener.close()
            if item.served and handle.alive():
                handle.unpublish(item.key)
            self._take("net.listener.gone", **item.fields())

    def published(self) -> tuple[Published, ...]:
        """The ports published now."""
        return tuple(self._published.values())

    # -- the engine ----------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> EngineHandle | None:
        """The engine, running or not."""
        return self._handle

    def alive(self) -> bool:
        """Does the engine run?"""
        return self._handle is not None and self._handle.alive()

    def revive(self) -> None:
        """Put a new engine in the place of one that died or does not answer, with the same listeners.

        Those that died with it and a zoned before this one are made anew.
        Raises:  EngineFault, NetworkFault; PortTaken, after all else serves, where another program has a port by now.
        """
        with self._lock:
            old = self._running()
            old.stop()
            self._take("net.engine.gone", pid=old.pid, start_time=old.start_time)
            if not self._inside:
                # The namespace may be the work of an earlier version.
                netns.inside(self.netns, lambda: furnish.renew(self.name, self.addresses))
                self._open_inside()
            lost = self._listen_again()
            self._start_engine()
            self.restarts += 1
            for item in self._published.values():
                item.served = False
            self.serve()
        if lost is not None:
            raise lost

    def _listen_again(self) -> RuntimeFault | None:
        failure: RuntimeFault | None = None
        for key, item in list(self._published.items()):
            if item.listener.fileno() >= 0:
                continue
            try:
                port = Port(item.address, item.port, item.zone_port, item.protocol)
                self._published[key] = listen_on(self.name, port)
            except (PortTaken, NetworkFault) as fault:
                del self._published[key]
                self._take("net.listener.gone", **item.fields())
                failure = failure or fault
        return failure

    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool:
        """Take over, from its ledger, a network that an earlier zoned made; False when its engine does not serve.

        An engine of another version is ended, as nothing could be put in its place later without its descriptors.
        What the records name is this object's from here on: `destroy` ends it, `revive` gives it an engine again.
        """
        with self._lock:
            self._records = current(records)
            for record in self._records:
                if record["kind"] == "net.engine":
                    pid, start_time = record["pid"], record["start_time"]
                    self._handle = self._engine.adopt(self.name, pid, start_time, self._control, self._log_file)
                elif record["kind"] == "net.vif":
                    self.vif = record["vif"]
                elif record["kind"] == "net.listener":
                    protocol = record.get("protocol", "tcp")
                    item = Published.lost(record["address"], record["port"], record["zone_port"], protocol)
                    self._published[item.key] = item
            return self.alive() and self._take_back()

    def _take_back(self) -> bool:
        """Get duplicates of the engine's listeners; gives it those it was never told of."""
        try:
            handback = self._running().handback()
        except OutdatedEngine as fault:
            log.warning("%s", fault)
            self._running().stop()
            return False
        except EngineFault as fault:
            log.warning("%s", fault)
            return False
        self._inside = handback.inside
        for key, zone_port, listener in handback.published:
            address, port = listener.getsockname()[:2]
            protocol = protocol_of(listener)
            self._published[key] = Published(address, port, zone_port, listener, served=True, protocol=protocol)
        if failure := self._listen_again():
            log.warning("%s", failure)
        self.serve()
        try:
            # They may have changed while there was no zoned, or as it ended.
            self.resolve_again()
            self._running().judge_by(self._egress)
        except EngineFault as fault:
            log.warning("%s", fault)
        return True

    def resolve_again(self) -> None:
        """Tell the engine the host's name servers as they are now. Raises EngineFault."""
        with self._lock:
            self._running().resolve_by(self._read_resolvers())

    def judge_by(self, egress: Sequence[str]) -> None:
        """Let the zone reach what these rules say, from now on; connections that run go on. Raises EngineFault."""
        with self._lock:
            self._running().judge_by(tuple(egress))
            self._egress = tuple(egress)

    def _read_resolvers(self) -> tuple[str, ...]:
        self._resolvers = read_resolvers(self._resolv_conf) or self._resolvers
        return self._resolvers

    def counters(self) -> dict[str, int]:
        """What the engine counted, see engine.model.COUNTERS. Raises EngineFault."""
        return self._running().counters()

    def flows(self) -> list[Flow]:
        """What passes through the engine now. Raises EngineFault."""
        return self._running().flows()

    def capture(self, request: CaptureRequest) -> Capture:
        """Begin to record what passes the vif; `destroy` ends it, if its reader has not. Raises NetworkFault."""
        with self._lock:
            return self._captures.begin(self.name, self.netns, self.vif, self.uid, request)

    def answers(self, zone_port: int, *, timeout_s: float = 1.0) -> bool:
        """Does something in the zone listen on this TCP port? Asked from the gateway, past the engine."""

        def connect() -> bool:
            for address in (self.addresses.zone4, self.addresses.zone6):
                with contextlib.suppress(OSError):
                    socket.create_connection((address, zone_port), timeout=timeout_s).close()
                    return True
            return False

        return netns.inside(self.netns, connect)

    # -- the end -------------------------------------------------------------------------------------------------------

    def destroy(self) -> None:
        """Give everything back; harmless twice, and after a `create` that failed anywhere."""
        with self._lock:
            for listener in (*self._inside, *(item.listener for item in self._published.values())):
                listener.close()
            self._inside.clear()
            self._published.clear()
            if self._handle is not None:
                self._handle.stop()
            elif self._prepared is not None:
                self._prepared.stop()
            self._handle = self._prepared = None
            self._captures.stop()
            self.vif = ""
            teardown(self._records)
            self._records.clear()

    def __enter__(self) -> ZoneNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def _running(self) -> EngineHandle:
        if self._handle is None:
            raise EngineFault(f"network of zone {self.name}", expected="it created", got="it is not")
        return self._handle
