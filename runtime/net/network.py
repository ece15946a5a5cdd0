"""A zone's network, from nothing to running and back: its own private one, or its place in one that zones share.

Order, as zoned drives it:
    network = ZoneNetwork(name, plan_addresses(allocate_index(used)), mtu, record)      # a private one, or with
    network = ZoneNetwork(name, addresses, mtu, record, segment=segment)                # one that others are in, too
    network.create()            # namespace, bridge, engine started (not waited for) where it is private; sockets, rules
    network.listen(ports)       # conflicts show here, before any domain runs
    ... build the domain, wait for vifN.0 ...
    network.attach("vifN.0")    # before hotplug-status and unpause
    network.serve()             # waits for the engine, which starts beside all this
    ... the zone runs, ends, its domain is destroyed ...
    network.attach("vifM.0")    # again, where the zone is restarted: ports and addresses were kept all the while
    network.destroy()
Ports come and go at any time (`publish`, `unpublish`). This process keeps duplicates of all sockets, so connections
wait for the next engine instead of being refused; a later zoned gets them back from the engine (`adopt`).
What is taken is told to `record` before it is taken; `teardown(records)` alone ends all of it, any number of times.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Port
from runtime.errors import RuntimeFault
from runtime.net import furnish, guardcounter, linkcounter, netlink, netns, plan
from runtime.net.addresses import ZoneAddresses
from runtime.net.bandwidth import Bandwidth, device_of
from runtime.net.capture import Capture, CaptureRequest, Captures
from runtime.net.engine.flows import Flow
from runtime.net.engine.interface import Engine, EngineHandle
from runtime.net.engine.model import Limits, ZonePart
from runtime.net.errors import EngineFault, NetworkFault, OutdatedEngine, UnknownToEngine
from runtime.net.published import Published, PublishedPorts, key_of
from runtime.net.resolvers import RESOLV_CONF
from runtime.net.segment import RUN_DIRECTORY, Record, Segment
from runtime.net.teardown import current, teardown

log = logging.getLogger(__name__)

ENGINE_READY_TIMEOUT_S = 60.0

_OF_SEGMENT = ("net.directory", "net.netns", "net.engine")

__all__ = ["Record", "ZoneNetwork", "teardown"]


class ZoneNetwork:
    """One zone's network.

    segment:   the shared one that it joins; without, it makes a private one, for which the options from `deny` on are.
    isolated:  of a shared one: the zone reaches the gateway only, and none of the others reaches it.
    egress:    what the zone may reach, see pipeline.bundle.egress.
    bandwidth_bit_s: of its vif, each way; 0: no limit.
    Effects: none before `create`. Every method raises RuntimeFault; create and the first attach tear down when they do.
    Threads: any; the host's side is the namespace of the thread that calls create, publish and revive.
    """

    def __init__(
        self,
        name: str,
        addresses: ZoneAddresses,
        mtu: int,
        record: Record,
        *,
        segment: Segment | None = None,
        isolated: bool = False,
        egress: Sequence[str] = (),
        bandwidth_bit_s: int = 0,
        deny: Sequence[str] = (),
        limits: Limits | None = None,
        engine: Engine | None = None,
        run_directory: Path = RUN_DIRECTORY,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        self.name, self.addresses = name, addresses
        self.vif = ""
        self._record = record
        self.segment = segment or Segment(
            name,
            addresses,
            mtu,
            self._record_for_segment,
            deny=deny,
            limits=limits,
            engine=engine,
            run_directory=run_directory,
            resolv_conf=resolv_conf,
        )
        self._isolated = isolated
        self._part = ZonePart(name, addresses.zone4, addresses.zone6, addresses.echo_identifier, tuple(egress))
        # What is wrong in them is said here, not by the engine.
        self.segment.layout.check_egress(self._part.rules(), f"network of zone {name}")
        self._limit = device_of(addresses.host)
        subject = f"network of zone {name}"
        self._bandwidth = Bandwidth(self.netns, self._limit, self.mtu, bandwidth_bit_s, subject=subject)
        self._records: list[dict[str, Any]] = []
        self._inside: list[socket.socket] = []
        self._ports = PublishedPorts(name, self._take)
        self._admitted = False
        self._captures = Captures()

    def _record_for_segment(self, kind: str, **fields: Any) -> None:
        self._record(kind, **fields)

    def _take(self, kind: str, **fields: Any) -> None:
        self._record(kind, **fields)
        self._records = current([*self._records, {"kind": kind, **fields}])

    @property
    def _private(self) -> bool:
        return not self.segment.shared

    @property
    def netns(self) -> str:
        """The namespace."""
        return self.segment.netns

    @property
    def mtu(self) -> int:
        """Of the zone's link."""
        return self.segment.mtu

    @property
    def place(self) -> plan.Place:
        """See segment.Zone."""
        doors = furnish.doors_of(self._inside) if self._inside else plan.Doors(0, 0, 0, 0)
        return plan.Place(self.addresses, doors, self._isolated)

    # -- making --------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the namespace with bridge and gateway and start the engine, where they are its own; take its place."""
        with self.segment.lock:
            self.segment.expect(self.name)
            if self._private:
                self.segment.create()
            try:
                if not self._private:
                    network, control = self.segment.name, str(self.segment.control)
                    limit = {"limit": self._limit, "netns": self.netns}
                    self._take("net.member", network=network, zone=self.name, control=control, **limit)
                self._open_inside()
                self.segment.join(self)
            except BaseException:
                self.destroy()
                raise

    def _open_inside(self) -> None:
        layout = self.segment.layout
        inside = netns.inside(self.netns, lambda: layout.open_sockets(self.name, self.addresses))
        try:
            self._inside = [*inside, *layout.open_echoes(self.name, self.addresses)]
        except BaseException:
            for item in inside:
                item.close()
            raise

    def attach(self, vif: str) -> None:
        """Move the vif in, make it the bridge's port, bring it up. The zone's connections wait for `serve`.

        A network that had a vif before stays as it is when this one cannot be attached.
        """
        with self.segment.lock:
            try:
                self._running()
                self._take("net.vif", vif=vif, netns=self.netns)
                furnish.move_vif(vif, self.netns, self.addresses, self.mtu)
                self._bandwidth.attach(vif)
                self.vif = vif
            except BaseException:
                if not self.vif:
                    self.vif = vif  # it may be in, and a port
                    self.destroy()
                raise

    def limit(self, bandwidth_bit_s: int) -> None:
        """Hold the zone to this rate each way from now on; 0 for none. Raises NetworkFault; all is as before then."""
        with self.segment.lock:
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
        with self.segment.lock:
            return self._ports.listen(ports)

    def use(self, listeners: Iterable[tuple[Port, socket.socket]]) -> None:
        """Lead connections to listeners of the caller's to their ports' zone_port, from `serve` on.

        They stay the caller's, who may hold them longer than this network lives.
        """
        with self.segment.lock:
            self._ports.use(listeners)

    def serve(self) -> None:
        """Wait for the engine, make the zone known to it, and lead every connection to a port listened on to its
        zone_port. Raises EngineFault.
        """
        with self.segment.lock:
            handle = self._running()
            handle.wait_ready(ENGINE_READY_TIMEOUT_S)
            if not self._admitted:
                handle.admit(self._part, self._inside)
                self._admitted = True
            for item in self._ports:
                if not item.served:
                    item.asked = True
                    handle.publish(self.name, item.listener, item.key, item.zone_port)
                    item.served = True
            handle.settle(self.name)

    def unpublish(self, address: str, port: int, protocol: str = "tcp") -> None:
        """Stop listening there; connections that run go on.

        Raises:  NetworkFault where nothing is published; EngineFault, and the port is published still.
        """
        with self.segment.lock:
            handle = self._running()
            item = self._ports.find(key_of(address, port, protocol))
            if (item.served or item.asked) and handle.alive():
                try:
                    handle.unpublish(self.name, item.key)
                except UnknownToEngine:
                    pass  # it did so before, and its answer did not come
                except EngineFault:
                    if item.served and handle.alive():
                        raise
            self._ports.close(item.key)
            self._ports.tell_gone(item)

    def published(self) -> tuple[Published, ...]:
        """The ports published now."""
        return tuple(self._ports)

    # -- the engine ----------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> EngineHandle | None:
        """The network's engine, running or not."""
        return self.segment.engine

    @property
    def restarts(self) -> int:
        """How often the engine was replaced."""
        return self.segment.restarts

    def alive(self) -> bool:
        """Does the engine run?"""
        return self.segment.alive()

    def revive(self, *, only_dead: bool = False) -> None:
        """See Segment.revive."""
        self.segment.revive(only_dead=only_dead)

    @property
    def whole(self) -> bool:
        """See segment.Zone."""
        return bool(self._inside) or not self.segment.layout.has_sockets

    def open_again(self) -> RuntimeFault | None:
        """See segment.Zone."""
        if not self.whole:
            self._open_inside()
            if self.vif:  # an earlier version did not say whose port it is
                netns.inside(self.netns, lambda: furnish.plug_vif(self.vif, self.addresses, self.mtu))
        return self._ports.open_again()

    def forget_engine(self) -> None:
        """See segment.Zone."""
        self._admitted = False
        for item in self._ports:
            item.served = item.asked = False

    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool:
        """Take over, from its ledger, a network that an earlier zoned made; False when its engine does not serve.

        An engine of another version is ended, as nothing could be put in its place later without its descriptors; so is
        one that does not answer. Whoever cares for the network has a new one in its place.
        What the records name is this object's from here on: `destroy` ends it, `revive` gives it an engine again.
        A shared one is adopted before the zones in it.
        """
        with self.segment.lock:
            mine = current(records)
            if self._private:
                self.segment.adopt(mine)
            for record in mine:
                if record["kind"] == "net.vif":
                    self.vif = record["vif"]
                elif record["kind"] == "net.listener":
                    self._ports.know(record)
            self._records = [record for record in mine if record["kind"] not in _OF_SEGMENT]
            self.segment.zones[self.name] = self
            return self.alive() and self._take_back()

    def _take_back(self) -> bool:
        """Get duplicates of the engine's sockets for this zone; gives it what it was never told of."""
        try:
            handback = self._running().handback(self.name)
        except UnknownToEngine:  # that zoned died between a zone's coming and its engine's being told
            if failure := self.open_again():
                log.warning("%s", failure)
            self.segment.renew_rules()
        except EngineFault as fault:
            log.warning("%s", fault)
            if fault.temporary or isinstance(fault, OutdatedEngine):
                # Nobody replaces one that runs, and one that says nothing serves no zone.
                self._running().stop()
            return False
        else:
            self._admitted = True
            self._inside = handback.inside
            self._ports.take_back(handback.published)
            if failure := self.open_again():
                log.warning("%s", failure)
        try:
            self.serve()
            # They may have changed while there was no zoned, or as it ended.
            self.resolve_again()
            self.judge_by(self._part.egress)
        except EngineFault as fault:
            log.warning("%s", fault)
        return True

    def resolve_again(self) -> None:
        """See Segment.resolve_again."""
        self.segment.resolve_again()

    def judge_by(self, egress: Sequence[str]) -> None:
        """Let the zone reach what these rules say, from now on; connections that run go on. Raises EngineFault."""
        with self.segment.lock:
            part = self._part._replace(egress=tuple(egress))
            self.segment.layout.check_egress(part.rules(), f"network of zone {self.name}")
            if self._admitted:  # else it is told with the zone
                self._running().judge_by(self.name, part.egress)
            self._part = part

    def counters(self) -> dict[str, int]:
        """What the engine counted for this zone, see engine.model.COUNTERS. Raises EngineFault.

        Shape:   with `refused`, the frames that the guard dropped since its rules were loaded, as zones came or went;
                 and with what passed the zone's interface, see linkcounter.passed.
        """
        counters = self._running().counters(self.name)

        def of_the_kernel() -> dict[str, int]:
            refused = {"refused": guardcounter.refused(self.addresses.host)}
            return refused | linkcounter.passed(self.vif, self._limit)

        with contextlib.suppress(OSError, NetworkFault):
            counters |= netns.inside(self.netns, of_the_kernel)
        return counters

    def flows(self) -> list[Flow]:
        """What passes through the engine for this zone now. Raises EngineFault."""
        return self._running().flows(self.name)

    def capture(self, request: CaptureRequest) -> Capture:
        """Begin to record what passes the vif; `destroy` ends it, if its reader has not. Raises NetworkFault."""
        with self.segment.lock:
            return self._captures.begin(self.name, self.netns, self.vif, self.segment.uid, request)

    def answers(self, zone_port: int, *, timeout_s: float = 1.0) -> bool:
        """Does something in the zone listen on this TCP port? Asked from the gateway, past the engine."""

        def connect() -> bool:
            ends = (self.addresses.zone4, self.addresses.zone6)
            for address, probe in zip(ends, self.segment.layout.probes, strict=True):
                with contextlib.suppress(OSError):
                    source = (probe, 0) if probe else None
                    socket.create_connection((address, zone_port), timeout_s, source).close()
                    return True
            return False

        return netns.inside(self.netns, connect)

    # -- the end -------------------------------------------------------------------------------------------------------

    def destroy(self) -> None:
        """Give everything back; harmless twice, and after a `create` that failed anywhere. Others' is left alone."""
        with self.segment.lock, contextlib.ExitStack() as last:
            for item in self._inside:
                item.close()
            self._ports.forget_all()
            self._inside.clear()
            self._captures.stop()
            self._admitted = False
            # Also where something of its own could not be given back: else its name and its rules would stay for good.
            last.callback(self._leave)
            teardown(self._records)
            self._records.clear()

    def _leave(self) -> None:
        if self._private:
            self.segment.destroy()
        else:
            if self.vif and netns.path_of(self.netns).exists():
                # Its domain has taken it along, unless this is the way back out of a boot that failed.
                netns.inside(self.netns, lambda: netlink.release_link(self.vif))
            self.segment.leave(self)
        self.vif = ""

    def __enter__(self) -> ZoneNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def _running(self) -> EngineHandle:
        return self.segment.running
