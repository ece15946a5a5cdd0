"""A network: one namespace, one bridge, one engine, and the zones that are in it.

A zone's private network has one zone and goes with it; a shared one is made before its first zone and outlives any.
Zones come and go by `join` and `leave`, which network.ZoneNetwork calls. An engine that died is replaced by `revive`
(supervise.py calls it) and gets all zones again: their sockets are held here beside it.
What is taken is told to `record` before it is taken.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from runtime.errors import RuntimeFault
from runtime.net import layouts, netns, plan
from runtime.net.addresses import ZoneAddresses
from runtime.net.calls import engine_filter
from runtime.net.engine.interface import Engine, EngineHandle, Prepared
from runtime.net.engine.model import EngineConfig, Limits, Listeners
from runtime.net.engine.proxy import ProxyEngine
from runtime.net.errors import EngineFault, NetworkFault
from runtime.net.pool import pools
from runtime.net.resolvers import NONE_NAMED, RESOLV_CONF, read_resolvers
from runtime.net.teardown import current, teardown

log = logging.getLogger(__name__)

RUN_DIRECTORY = Path("/run/zonewright/net")
FIRST_UID = 64000
MOST_ZONES = 64  # of a shared network: the engine's bound on descriptors grows with it
LOG = "log"  # of its engine, in a network's directory
SHARED = "@"  # begins the names of shared networks' namespaces and directories: no zone's name begins with it


class Record(Protocol):
    """How an outside resource gets into the ledger."""

    def __call__(self, kind: str, **fields: Any) -> Any: ...


class Zone(Protocol):
    """A zone in a network, as network.ZoneNetwork is one."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> plan.Place:
        """Where it is, with sockets that are open."""

    @property
    def whole(self) -> bool:
        """Are its sockets here?"""

    def open_again(self) -> RuntimeFault | None:
        """Make anew what died with every process that held it; what could not be, with all else done."""

    def forget_engine(self) -> None:
        """The engine has nothing of it any more."""

    def serve(self) -> None:
        """Give the engine what it lacks of it."""


class Segment:
    """One network.

    addresses:  any of it.
    shared:     zones of several names join; else it is the private one of the zone that has its name.
    Effects: none before `create`. Every method raises RuntimeFault; create tears down when it does.
    Threads: any; the host's side is the namespace of the thread that calls create and revive.
    """

    def __init__(
        self,
        name: str,
        addresses: ZoneAddresses,
        mtu: int,
        record: Record,
        *,
        shared: bool = False,
        deny: Sequence[str] = (),
        limits: Limits | None = None,
        engine: Engine | None = None,
        run_directory: Path = RUN_DIRECTORY,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        self.name, self.addresses, self.mtu, self.shared = name, addresses, mtu, shared
        self.whose = f"network {name}" if shared else f"zone {name}"
        plan.check_mtu(self.whose, mtu)
        identity = SHARED + name if shared else name
        self.netns = plan.netns_name(identity)
        self.restarts = 0
        self.zones: dict[str, Zone] = {}
        self.lock = threading.RLock()
        self.record, self._deny = record, tuple(deny)
        self._limits = limits or Limits()
        self._engine: Engine = engine or ProxyEngine()
        self.layout = layouts.layout_of(self._engine.name)
        if shared and not self.layout.shareable:
            hint = "a private network, or the engine splice"
            raise NetworkFault(self.whose, expected="an engine for several zones", got=self._engine.name, hint=hint)
        self._directory = run_directory / identity
        self.control, self._log_file = self._directory / "control", self._directory / LOG
        self._resolv_conf, self._resolvers = resolv_conf, NONE_NAMED
        self._records: list[dict[str, Any]] = []
        self._handle: EngineHandle | None = None
        self._prepared: Prepared | None = None
        self._rules_due = False

    @property
    def uid(self) -> int:
        """The network's own user: its engine's, and the owner of its namespace. Nothing of this host belongs to it."""
        return FIRST_UID + self.addresses.index

    def _take(self, kind: str, **fields: Any) -> None:
        self.record(kind, **fields)
        self._records = current([*self._records, {"kind": kind, **fields}])

    # -- making --------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the namespace with bridge and gateway, and start the engine; nobody is in it yet."""
        subject = f"network of {self.whose}"
        if netns.path_of(self.netns).exists():
            raise NetworkFault(subject, expected="none yet", got="it exists", hint="stop it first")
        with self.lock:
            try:
                self._take("net.directory", path=str(self._directory))
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._take("net.netns", name=self.netns)
                netns.create(self.netns, owner=self.uid, mapped=self.layout.mapped)
                netns.inside(self.netns, lambda: self.layout.lay_out(self.whose, self.addresses, self.mtu))
                self._start_engine()
            except OSError as error:
                self.destroy()
                raise NetworkFault(subject, expected="it made", got=str(error)) from error
            except BaseException:
                self.destroy()
                raise

    def _start_engine(self) -> None:
        self.control.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.bind(str(self.control))
            control.listen(8)
            inherited = (control.fileno(),)
            config = EngineConfig(
                whose=self.whose,
                netns=str(netns.path_of(self.netns)),
                uid=self.uid,
                zones=MOST_ZONES if self.shared else 1,
                subnets=self.addresses.subnets,
                resolvers=self._read_resolvers(),
                gateway4=self.addresses.gateway4,
                gateway6=self.addresses.gateway6,
                mtu=self.mtu,
                deny=self._deny,
                seccomp=engine_filter(),
                limits=self._limits,
                listeners=Listeners._make(inherited),
                pools=(str(pools().v4), str(pools().v6)),
            )
            config.denied()  # what is wrong in it is said here, not by a process that ends
            prepared = self._prepared = self._engine.prepare(inherited, self.control, self._log_file)
            self._take("net.engine", engine=self._engine.name, pid=prepared.pid, start_time=prepared.start_time)
            self._handle = prepared.start(config)

    # -- zones ---------------------------------------------------------------------------------------------------------

    def expect(self, name: str) -> None:
        """Raises NetworkFault where a zone of this name has no place."""
        if name in self.zones:
            raise NetworkFault(f"zone {name}", expected=f"it not in the network of {self.whose} yet", got="it is")
        for other in self.zones:
            if other.lower() == name.lower():  # one name to the engine's name server, as to any
                expected = f"a name that no zone of {self.whose} has in any case of letters"
                raise NetworkFault(f"zone {name}", expected=expected, got=f"that of zone {other}")
        if self.shared and len(self.zones) >= MOST_ZONES:
            hint = "use another network for more"
            raise NetworkFault(self.whose, expected=f"at most {MOST_ZONES} zones", got="one more", hint=hint)

    def join(self, zone: Zone) -> None:
        """Let an expected zone in, whose sockets are open; the engine knows it from its `serve` on.

        Raises:  NetworkFault.
        """
        with self.lock:
            self.zones[zone.name] = zone
            try:
                self.load_rules()
            except BaseException:
                del self.zones[zone.name]
                raise

    def leave(self, zone: Zone) -> None:
        """Let a zone go; harmless where it is not in. Its addresses may be another's when this returns."""
        with self.lock:
            if self.zones.get(zone.name) is not zone:
                return
            del self.zones[zone.name]
            if self.shared and netns.path_of(self.netns).exists():
                self.load_rules()

    def load_rules(self) -> None:
        """The rules for the zones that are in. Raises NetworkFault."""
        places = [zone.place for zone in self.zones.values()]
        netns.inside(self.netns, lambda: self.layout.load_rules(self.whose, self.addresses, places))
        self._rules_due = False

    def renew_rules(self) -> None:
        """Have rules for an adopted zone whose sockets are new; of a shared network when all are in, `forget_others`:
        rules are loaded as a whole, and zones that are not adopted yet would be without. Raises NetworkFault.
        """
        with self.lock:
            self._rules_due = True
            if not self.shared:
                self.load_rules()

    # -- the engine ----------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> EngineHandle | None:
        """The engine, running or not."""
        return self._handle

    @property
    def running(self) -> EngineHandle:
        """The engine of a network that has been made. Raises EngineFault."""
        if self._handle is None:
            raise EngineFault(f"network of {self.whose}", expected="it created", got="it is not")
        return self._handle

    def alive(self) -> bool:
        """Does the engine run?"""
        return self._handle is not None and self._handle.alive()

    def revive(self, *, only_dead: bool = False) -> None:
        """Put a new engine in the place of one that died or does not answer, for the same zones and ports.

        Sockets that died with it and a zoned before this one are made anew.
        only_dead: one that runs stays: of two that see its death, one has had it replaced.
        Raises:  EngineFault, NetworkFault. After all else serves: EngineFault where the new engine refuses a zone,
                 PortTaken where another program has a port by now. A temporary EngineFault: it does not answer.
        """
        with self.lock:
            old = self.running
            if only_dead and old.alive():
                return
            old.stop()
            self._take("net.engine.gone", pid=old.pid, start_time=old.start_time)
            zones = list(self.zones.values())
            lost = any(not zone.whole for zone in zones)
            failures = [failure for zone in zones if (failure := zone.open_again()) is not None]
            if lost:
                # The namespace may be the work of an earlier version.
                netns.inside(self.netns, lambda: self.layout.renew(self.whose, self.addresses))
            self.load_rules()  # an engine wants those of its own version
            self._start_engine()
            self.restarts += 1
            # Of all of them first: what comes to nothing below must not be taken for done.
            for zone in zones:
                zone.forget_engine()
            failures = [*self._serve(zones), *failures]
        for failure in failures[1:]:
            log.warning("%s", failure)
        if failures:
            raise failures[0]

    def _serve(self, zones: Iterable[Zone]) -> list[RuntimeFault]:
        """Give a new engine all zones; what it said against some, or that it says nothing."""
        refused: list[RuntimeFault] = []
        for zone in zones:
            try:
                zone.serve()
            except EngineFault as fault:
                if fault.temporary:  # each of the others would wait for it as long
                    return [fault, *refused]
                refused.append(fault)
        return refused

    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool:
        """Take over, from its ledger, a network that an earlier zoned made; False when its engine does not run.

        What the records name is this object's from here on: `destroy` ends it, `revive` gives it an engine again.
        """
        with self.lock:
            self._records = current(records)
            for record in self._records:
                if record["kind"] == "net.engine":
                    pid, start_time = record["pid"], record["start_time"]
                    self._handle = self._engine.adopt(self.whose, pid, start_time, self.control, self._log_file)
            return self.alive()

    def forget_others(self) -> None:
        """When all zones have been adopted: have the engine end what it has of others, left by a zoned that died.

        Raises:  EngineFault, NetworkFault.
        """
        with self.lock:
            # Those of a zone whose sockets are the engine's alone would lead nowhere.
            if self._rules_due and all(zone.whole for zone in self.zones.values()):
                self.load_rules()
            for name in self.running.zones():
                if name not in self.zones:
                    self.running.leave(name)

    def resolve_again(self) -> None:
        """Tell the engine the host's name servers as they are now. Raises EngineFault."""
        with self.lock:
            self.running.resolve_by(self._read_resolvers())

    def _read_resolvers(self) -> tuple[str, ...]:
        self._resolvers = read_resolvers(self._resolv_conf) or self._resolvers
        return self._resolvers

    # -- the end -------------------------------------------------------------------------------------------------------

    def destroy(self) -> None:
        """Give everything back; harmless twice, and after a `create` that failed anywhere."""
        with self.lock:
            if self._handle is not None:
                self._handle.stop()
            elif self._prepared is not None:
                self._prepared.stop()
            self._handle = self._prepared = None
            self.zones.clear()
            teardown(self._records)
            self._records.clear()
