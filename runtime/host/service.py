"""What zoned does: its methods, over the zones of this host.

Every method takes a JSON object of parameters and its `Call`, through which it tells events, and gives a JSON object.
Errors are RuntimeFaults, which travel with their fields.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle, Port
from pipeline.jsonmodel import from_json, to_json
from runtime.boot.build import build_domain
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Domid
from runtime.boot.teardown import teardown as teardown_domain
from runtime.boot.watch import Deaths
from runtime.boot.xenstore import XenStore
from runtime.errors import RuntimeFault
from runtime.host.ledger import Ledger, LedgerDir
from runtime.host.wire import Call, Method
from runtime.host.zone import CONSOLE_TAIL_LINES, Published, Zone, ZoneState, console_tail, exit_text
from runtime.net.addresses import allocate_index, plan_addresses
from runtime.net.network import ZoneNetwork
from runtime.net.network import teardown as teardown_network

log = logging.getLogger(__name__)

PAGES_PER_MIB = 256
WORKLOAD_TIMEOUT_S = 180.0
PORT_TIMEOUT_S = 120.0
CANCEL_TIMEOUT_S = 60.0
LOG_CHUNK_BYTES = 256 * 1024
ZONE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}")

Json = dict[str, Any]


class UnknownZone(RuntimeFault):
    """No zone of that name on this host."""


class ZoneBusy(RuntimeFault):
    """A zone of that name runs already."""


class BootCancelled(RuntimeFault):
    """A boot that somebody stopped, or that nobody waits for any more."""


class BadRequest(RuntimeFault):
    """A request zoned cannot make sense of."""


class Service:
    """All zones of one host. Methods may be called from several threads.

    deny:  networks no zone of this host may reach, beside those closed to every zone.
    """

    def __init__(self, run_dir: Path, hypervisor: Hypervisor, xenstore: XenStore, *, deny: Sequence[str] = ()) -> None:
        self.run_dir = run_dir
        self.deny = tuple(deny)
        self.hypervisor, self.xenstore = hypervisor, xenstore
        self.ledgers = LedgerDir(run_dir / "ledger")
        self.consoles = run_dir / "console"
        self.consoles.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.zones: dict[str, Zone] = {}
        self._lock = threading.RLock()
        self._deaths: Deaths | None = None
        # Building fills memory as fast as one core can: more at once would only make each slower.
        self._building = threading.Semaphore(2)

    def start(self) -> None:
        """End what a zoned that died left behind, then watch for deaths."""
        for ledger in self.ledgers.all():
            log.warning("ending zone %s: its zoned is gone", ledger.name)
            self._teardown(ledger)
        self._deaths = Deaths(self.hypervisor, self.xenstore, self._died)

    def methods(self) -> dict[str, Method]:
        """The table the wire serves."""
        return {
            "ping": self.ping,
            "status": self.status,
            "boot": self.boot,
            "wait": self.wait,
            "confirm": self.confirm,
            "stop": self.stop,
            "list": self.list_zones,
            "logs": self.logs,
        }

    # -- methods -------------------------------------------------------------------------------------------------------

    def ping(self, params: Json, call: Call) -> Json:
        """Alive?"""
        return {"pong": True}

    def status(self, params: Json, call: Call) -> Json:
        """The hypervisor, this domain, how much memory is left for zones."""
        return {
            "xen": self.hypervisor.xen_version(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "free_mib": self.hypervisor.free_pages() // PAGES_PER_MIB,
            "zones": len([zone for zone in self.zones.values() if zone.state is ZoneState.RUNNING]),
        }

    def boot(self, params: Json, call: Call) -> Json:
        """Build a zone's domain and start it; returns when it runs, see `wait` for more.

        params:  bundle, manifest, sources {digest: source} and
                 listen [{host_address, host_port, address, port, zone_port}].
        Raises:  ZoneBusy, and whatever building and wiring raise; nothing is left then.
        """
        bundle = from_json(Bundle, params["bundle"], subject="boot request")
        if not ZONE_NAME.fullmatch(bundle.name):
            raise BadRequest(f"zone {bundle.name!r}", expected="a name of letters, digits, - and _", got="another")
        with self._lock:
            known = self.zones.get(bundle.name)
            if known is not None and known.state in (ZoneState.CREATING, ZoneState.RUNNING):
                raise ZoneBusy(
                    f"zone {bundle.name}",
                    got="it runs already" if known.state is ZoneState.RUNNING else "it is being booted already",
                    hint=f"./doit stop zone={bundle.name}",
                )
            self._finish_teardown(bundle.name)
            index = allocate_index({zone.addresses.index for zone in self.zones.values() if not zone.ended.is_set()})
            zone = Zone(
                name=bundle.name,
                bundle=bundle,
                manifest=params.get("manifest", ""),
                addresses=plan_addresses(index),
                ledger=self.ledgers.create(bundle.name),
                console_path=self.consoles / f"{bundle.name}.log",
            )
            self.zones[bundle.name] = zone
        try:
            self._bring_up(zone, params, call)
        except BaseException as error:
            zone.state, zone.exit = ZoneState.FAILED, f"failed boot {error}"
            self._let_go(zone)
            raise
        return self._describe(zone)

    def _bring_up(self, zone: Zone, params: Json, call: Call) -> None:
        clock = Stopwatch(zone.timings)
        zone.console_path.unlink(missing_ok=True)
        # The engine's process takes as long to start as the domain to build, and neither needs the other.
        with ThreadPoolExecutor(1, f"network of {zone.name}") as beside:
            network = beside.submit(self._make_network, zone, params.get("listen", []), clock)
            with clock("plan"):
                plan = zone.plan(params["sources"])
            call(stage="plan", text=str(plan))
            with self._building, clock("build"):
                zone.domain = build_domain(
                    plan, self.hypervisor, self.xenstore, zone.ledger.record, console_log=zone.console_path
                )
            zone.network = network.result()
        call(stage="build", phases=zone.domain.timings)
        with clock("wire"):
            zone.network.attach(zone.domain.wait_vif())
            zone.domain.connect_vif()
        if call.gone or zone.cancelled.is_set():
            raise BootCancelled(f"zone {zone.name}", got="its boot was called off")
        assert self._deaths is not None
        self._deaths.add(zone.domain.domid, zone.domain.uuid)
        with clock("unpause"):
            zone.started_at = time.time()
            zone.state = ZoneState.RUNNING  # before it runs: it may be dead as soon as it does
            zone.domain.unpause()
        with clock("engine"):
            zone.network.serve()

    def _make_network(self, zone: Zone, rules: list[Json], clock: Stopwatch) -> ZoneNetwork:
        mtu = zone.bundle.network.mtu
        with clock("network"):
            made = zone.network = ZoneNetwork(zone.name, zone.addresses, mtu, zone.ledger.record, deny=self.deny)
            made.create()
        with clock("ports"):
            wanted = [Port(rule["address"], rule["port"], rule["zone_port"]) for rule in rules]
            for rule, (address, port) in zip(rules, made.listen(wanted), strict=True):
                zone.published.append(
                    Published(rule["host_address"], rule["host_port"], address, port, rule["zone_port"])
                )
        return made

    def wait(self, params: Json, call: Call) -> Json:
        """Wait for a zone's workload to run, then for each of its published ports to answer."""
        zone = self._zone(params["name"])
        zone.wait_workload(params.get("timeout_s", WORKLOAD_TIMEOUT_S))
        call(stage="workload", timings=zone.guest_timings)
        if params.get("ports", True):
            for published in zone.published:
                zone.wait_port(published.zone_port, params.get("timeout_s", PORT_TIMEOUT_S))
                call(stage="port", port=published.zone_port)
        return self._describe(zone)

    def confirm(self, params: Json, call: Call) -> Json:
        """Whoever booted the zone has seen it up: from here on it is nobody's half-finished work."""
        zone = self._zone(params["name"])
        zone.confirmed = True
        return self._describe(zone)

    def stop(self, params: Json, call: Call) -> Json:
        """Stop a zone: its stop signal, its timeout, then the end; an exited one is forgotten."""
        zone = self._zone(params["name"])
        if zone.state is ZoneState.CREATING:
            zone.cancelled.set()
            zone.ended.wait(CANCEL_TIMEOUT_S)
        if zone.domain is not None and not zone.ended.is_set():
            process = zone.bundle.process
            timeout_s = params.get("timeout_s", process.stop_timeout_s)
            with contextlib.suppress(RuntimeFault):  # a zone that is already going has no node to ask through
                zone.domain.request_stop(process.stop_signal, timeout_s)
            call(stage="stopping", signal=process.stop_signal, timeout_s=timeout_s)
            if not zone.ended.wait(timeout_s + 5):
                zone.exit = zone.exit or "signal 9"
                self._let_go(zone)
        with self._lock:
            self.zones.pop(zone.name, None)
        return self._describe(zone)

    def list_zones(self, params: Json, call: Call) -> Json:
        """Every zone of this host, exited ones included until they are stopped or booted again."""
        with self._lock:
            zones = sorted(self.zones.values(), key=lambda zone: zone.name)
        return {"zones": [self._describe(zone) for zone in zones]}

    def logs(self, params: Json, call: Call) -> Json:
        """A zone's console: from `offset` on, or its last `tail` lines."""
        zone = self._zone(params["name"])
        if "offset" not in params:
            tail = console_tail(zone.console_path, params.get("tail", CONSOLE_TAIL_LINES))
            size = zone.console_path.stat().st_size if zone.console_path.exists() else 0
            return {"text": "\n".join(tail), "offset": size, "ended": zone.ended.is_set()}
        ended = zone.ended.is_set()  # asked first: what came after it would otherwise be lost
        try:
            with open(zone.console_path, "rb") as file:
                file.seek(params["offset"])
                data = file.read(LOG_CHUNK_BYTES)
        except FileNotFoundError:
            data = b""
        return {"text": data.decode("utf-8", "replace"), "offset": params["offset"] + len(data), "ended": ended}

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _died(self, domid: Domid, reason: str) -> None:
        for zone in list(self.zones.values()):
            if zone.domain is not None and zone.domain.domid == domid and not zone.ended.is_set():
                with contextlib.suppress(RuntimeFault):
                    zone.refresh()
                zone.exit = zone.exit or f"failed {reason} the domain ended: {reason}"
                self._let_go(zone)

    def _let_go(self, zone: Zone) -> None:
        """Give back everything a zone holds, by its ledger."""
        with zone.letting_go:
            if zone.ended.is_set():
                return
            if zone.domain is not None and self._deaths is not None:
                self._deaths.discard(zone.domain.domid)
            try:
                if zone.domain is not None:
                    zone.domain.destroy()
                if zone.network is not None:
                    zone.network.destroy()
                self._teardown(zone.ledger)
            except RuntimeFault as error:
                # Its ledger stays: the next boot of this name, or the next zoned, goes on from there.
                log.error("zone %s: %s", zone.name, error)
            finally:
                for loop in zone.loops:
                    loop.close()
            zone.state = zone.state if zone.state is ZoneState.FAILED else ZoneState.EXITED
            zone.ended.set()

    def _finish_teardown(self, name: str) -> None:
        """Go on with a teardown that Xen had not let finish; raises while it still does not."""
        for ledger in self.ledgers.all():
            if ledger.name == name:
                self._teardown(ledger)

    def _teardown(self, ledger: Ledger) -> None:
        records = ledger.records()
        try:
            teardown_domain(records, self.hypervisor, self.xenstore)
        finally:
            teardown_network(records)
        ledger.close()

    # -- describing ----------------------------------------------------------------------------------------------------

    def _zone(self, name: str) -> Zone:
        with self._lock:
            if (zone := self.zones.get(name)) is None:
                known = ", ".join(sorted(self.zones)) or "none"
                raise UnknownZone(f"zone {name}", got="no such zone on this host", hint=f"there are: {known}")
            return zone

    def _describe(self, zone: Zone) -> Json:
        if zone.state is ZoneState.RUNNING:
            with contextlib.suppress(RuntimeFault):
                zone.refresh()
        return {
            "name": zone.name,
            "uuid": zone.uuid,
            "domid": zone.domain.domid if zone.domain is not None else None,
            "state": zone.state.value,
            "confirmed": zone.confirmed,
            "exit": zone.exit,
            "exit_text": exit_text(zone.exit) if zone.exit else "",
            "manifest": zone.manifest,
            "image": str(zone.bundle.rootfs.digest),
            "kernel": zone.bundle.kernel_release,
            "memory_mib": zone.bundle.resources.memory_mib,
            "vcpus": zone.bundle.resources.vcpus,
            "addresses": [str(zone.addresses.zone4), str(zone.addresses.zone6)],
            "published": [to_json(published) for published in zone.published],
            "started_at": zone.started_at,
            "timings": zone.timings,
            "build_phases": zone.domain.timings if zone.domain is not None else {},
            "zone_timings": zone.guest_timings,
            "blobs": [str(part.digest) for part in zone.blobs()],
        }


class Stopwatch:
    """When each phase began and ended, in seconds since the stopwatch was made; phases may run beside each other."""

    def __init__(self, into: dict[str, tuple[float, float]]) -> None:
        self._into = into
        self._origin = time.monotonic()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Any:
        """A context whose begin and end are noted under `phase`."""
        start = time.monotonic() - self._origin
        yield
        self._into[phase] = (round(start, 4), round(time.monotonic() - self._origin, 4))
