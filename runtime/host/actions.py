"""What people ask of a host: boot a zone, stop one, list them. `zone` and doit both come through here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from pipeline.bundle import manifest
from pipeline.bundle.egress import BadRule, parse_rule
from pipeline.bundle.model import Bundle
from pipeline.env import intact
from pipeline.errors import StoreDamaged
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, Digest, canonical_json
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.urls import urls_of
from runtime.net.policy import may_open

if TYPE_CHECKING:
    from runtime.host.api.host_pb2 import BootZoneReply, BootZoneRequest, PortRule, ZoneInfo
    from runtime.host.client.client import HostClient
    from runtime.host.hosts import Host

OCTETS = "application/octet-stream"
ENDED = ("exited", "failed")
# What zoned may take beyond the time a zone is given to stop.
STOP_MARGIN_S = 60.0
CALLED_OFF_S = 10.0
_ON_THE_WAY = ("queued", "creating", "stopping")  # to or from its run
# What a workload may take to start, where somebody waits for it: generous, as hosts may be emulated.
START_TIMEOUT_S = 300.0
# The states a boot goes through while it is waited for, and what each is the end of.
STEPS = {"running": "build domain", "ready": "zone boots"}


class ForeignDevices(RuntimeFault):
    """A bundle of another's that names block devices of the host."""


class ForeignNetwork(RuntimeFault):
    """A bundle of another's that names a network that zones of the host share."""


class ForeignRules(RuntimeFault):
    """A bundle of another's whose egress rules open what is closed to zones unless named."""


@dataclass
class Booted:
    """A zone that is up: where it answers, and how long each step took.

    steps:  (name, start, end) in seconds since the boot was asked for, in order.
    """

    zone: ZoneInfo
    urls: list[str]
    steps: list[tuple[str, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Wishes:
    """How a zone is booted, besides what its bundle says.

    until:   running: its domain runs; ready: its workload does; ports: and every published port is served.
    remove:  zoned forgets the zone once it has ended; attach: and once its output and end have been asked for.
    fresh:   refused where a zone that has ended has the name, rather than that it gives way.
    network: the shared network to join, instead of the bundle's; isolated: apart from the others there.
    start_timeout_s: what its workload may take to run before the zone is ended, 0 for any time; None: START_TIMEOUT_S
             where that is waited for.
    """

    until: str = "ports"
    remove: bool = False
    attach: bool = False
    fresh: bool = False
    network: str = ""
    isolated: bool = False
    start_timeout_s: float | None = None

    @property
    def patience_s(self) -> float:
        """What its workload may take to run; 0 for any time."""
        if self.start_timeout_s is not None:
            return self.start_timeout_s
        return START_TIMEOUT_S if self.attach or self.until != "running" else 0.0


class Timeline:
    """Notes when the steps of a boot began and ended."""

    def __init__(self) -> None:
        self.origin = self._last = time.monotonic()
        self.steps: list[tuple[str, float, float]] = []

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A context that is one step."""
        self._last = time.monotonic()
        yield
        self.ended(name)

    def ended(self, name: str) -> None:
        """A step that began when the one before it ended is over; each counts once."""
        if name not in (noted for noted, *_ in self.steps):
            start, self._last = self._last, time.monotonic()
            self.steps.append((name, round(start - self.origin, 4), round(self._last - self.origin, 4)))


@dataclass(frozen=True)
class Overrides:
    """What whoever boots a bundle says of it.

    devices: one that was not made here may have the block devices of the host that it names.
    egress:  rules in place of its own; None for its own. bandwidth_bit_s: likewise, 0 for no limit.
    scratch: what takes what it writes, as pipeline.bundle.scratch reads it, in place of its own.
    network: the shared network to join, instead of the bundle's; isolated: apart from the others there.
    """

    devices: bool = False
    egress: tuple[str, ...] | None = None
    bandwidth_bit_s: int | None = None
    scratch: tuple[str, int] | None = None
    network: str = ""
    isolated: bool = False


def boot(
    host: Host,
    store: Store,
    name: str,
    *,
    wait: bool = True,
    overrides: Overrides | None = None,
    start_timeout_s: float | None = None,
    progress: Progress,
) -> Booted:
    """Boot the zone `name` from its bundle in the store.

    wait:    return when its workload runs and every published port answers, rather than when its domain runs.
    start_timeout_s: see Wishes.
    Raises:  UnknownName, StoreDamaged, and what the host raises.
    """
    descriptor, bundle = manifest.find(store, name)
    return boot_bundle(
        host,
        store,
        descriptor,
        bundle,
        wait=wait,
        overrides=overrides,
        start_timeout_s=start_timeout_s,
        progress=progress,
    )


def boot_bundle(
    host: Host,
    store: Store,
    descriptor: Descriptor,
    bundle: Bundle,
    *,
    wait: bool = True,
    overrides: Overrides | None = None,
    start_timeout_s: float | None = None,
    progress: Progress,
) -> Booted:
    """Boot a bundle; see `boot`."""
    given = overrides or Overrides()
    bundle = overridden(descriptor, bundle, given)
    until = "ports" if wait else "running"
    wishes = Wishes(until, network=given.network, isolated=given.isolated, start_timeout_s=start_timeout_s)
    timeline = Timeline()
    prepare(host, store, descriptor, bundle, timeline, progress)
    with host.connect() as client:
        return start(client, host, descriptor, bundle, wishes, timeline, progress)


def overridden(descriptor: Descriptor, bundle: Bundle, overrides: Overrides) -> Bundle:
    """A bundle as it is to be booted.

    Whoever published one must not choose among the disks of those who boot it, nor open what this host closes to zones,
    nor say whose neighbour the zone becomes.
    Raises:  ForeignDevices, ForeignRules, ForeignNetwork.
    """
    if overrides.egress is not None:
        bundle = replace(bundle, network=replace(bundle.network, egress=overrides.egress))
    if overrides.bandwidth_bit_s is not None:
        bundle = replace(bundle, network=replace(bundle.network, bandwidth_bit_s=overrides.bandwidth_bit_s))
    if overrides.scratch is not None:
        device, size_mib = overrides.scratch
        bundle = replace(bundle, scratch=device, scratch_mib=size_mib, overlay_size_mib=0)
    origin = descriptor.annotations.get(manifest.ORIGIN)
    if not origin:
        return bundle
    named = [volume.source for volume in bundle.volumes if volume.kind in ("block", "directory")]
    named += [bundle.scratch] if bundle.scratch and overrides.scratch is None else []
    if named and not overrides.devices:
        raise ForeignDevices(
            f"zone {bundle.name} from {origin}",
            expected="no block devices or directories of the host in a bundle that was not made here",
            got=", ".join(named)[:400],
            hint="zone boot --devices gives it these",
        )
    opening = [text for text in bundle.network.egress if _may_open(text)]
    if opening and overrides.egress is None:
        raise ForeignRules(
            f"zone {bundle.name} from {origin}",
            expected="no rules that may open this host or its links in a bundle that was not made here",
            got=", ".join(opening)[:400],
            hint="zone boot --egress says which rules it has instead",
        )
    if bundle.network.name and not overrides.network:
        raise ForeignNetwork(
            f"zone {bundle.name} from {origin}",
            expected="no network of the host's in a bundle that was not made here",
            got=bundle.network.name,
            hint=f"zone boot --network {bundle.network.name} lets it join",
        )
    return bundle


def _may_open(text: str) -> bool:
    try:
        return may_open(parse_rule(text))
    except BadRule:  # zoned refuses it, whoever it is from
        return False


def prepare(
    host: Host, store: Store, descriptor: Descriptor, bundle: Bundle, timeline: Timeline, progress: Progress
) -> None:
    """Check the parts of a bundle, and bring the host up. Raises StoreDamaged, and what the host raises."""
    with timeline.step("check artifacts"):
        for blob in manifest.parts(bundle):
            if not intact(store, blob):
                raise StoreDamaged(
                    f"zone {bundle.name}: {blob.annotations.get(manifest.TITLE, 'a part')} {blob.digest.short}",
                    expected="the bytes of that digest in the store",
                    got="none, or others",
                    hint=_remedy(descriptor, bundle),
                )
    with timeline.step("host up"):
        host.up(progress)


def start(
    client: HostClient,
    host: Host,
    descriptor: Descriptor,
    bundle: Bundle,
    wishes: Wishes,
    timeline: Timeline,
    progress: Progress,
) -> Booted:
    """Boot a checked bundle on a host that is up. A boot that fails while it is waited for leaves no zone that runs."""
    _let_end(client, bundle.name)
    try:
        with contextlib.ExitStack() as held:
            held.enter_context(host.exclusive())  # until zoned knows what the zone uses, nobody may tidy that away
            host.tidy(client)
            with timeline.step("plug disks"):
                host.provide(client, manifest.parts(bundle), progress)
            request = boot_request(descriptor, bundle, host.listen_for(bundle.ports), wishes)
            zone = _follow(client, host, request, bundle.name, timeline, progress, held)
    except BaseException as error:
        with contextlib.suppress(RuntimeFault):
            if not isinstance(error, Exception):
                _let_go(client, bundle.name)
            tidy(host, client)  # what was plugged for it is nobody's
        raise
    urls: list[str] = []
    if wishes.until == "ports":
        with timeline.step("first answer"):
            urls = urls_of(zone.ports)
    return Booted(zone, urls, timeline.steps)


def _let_end(client: HostClient, name: str) -> None:
    """A zone of this name that is on its way out gives back its name and its ports first."""
    from runtime.host.api import host_pb2 as messages

    zones = client.call(client.host.ListZones, messages.ListZonesRequest(all=True)).zones
    if any(zone.name == name and zone.state == "stopping" for zone in zones):
        with contextlib.suppress(RuntimeFault):  # it is gone altogether
            client.call(client.host.WaitZone, messages.WaitZoneRequest(zone=name), timeout_s=STOP_MARGIN_S)


def _let_go(client: HostClient, name: str) -> None:
    """A boot that was left is called off by zoned: until the zone is gone, what was plugged for it is in use."""
    from runtime.host.api import host_pb2 as messages

    zones = client.call(client.host.ListZones, messages.ListZonesRequest(all=True)).zones
    if any(zone.name == name and zone.state in _ON_THE_WAY for zone in zones):
        request = messages.WaitZoneRequest(zone=name, until="removed", timeout_s=CALLED_OFF_S)
        with contextlib.suppress(RuntimeFault):
            client.call(client.host.WaitZone, request, timeout_s=2 * CALLED_OFF_S)


def boot_request(descriptor: Descriptor, bundle: Bundle, ports: list[PortRule], wishes: Wishes) -> BootZoneRequest:
    """The request for a boot, as zoned wants it."""
    from runtime.host.api import host_pb2 as messages

    return messages.BootZoneRequest(
        bundle=canonical_json(to_json(bundle)),
        manifest=str(descriptor.digest),
        ports=ports,
        restart=messages.RestartPolicy(name=bundle.restart.name, max_retries=bundle.restart.max_retries),
        remove=wishes.remove,
        attach=wishes.attach,
        fresh=wishes.fresh,
        stdin_open=bundle.stdin_open,
        labels=bundle.labels,
        until_ready=wishes.until in ("ready", "ports"),
        until_ports_answer=wishes.until == "ports",
        network=wishes.network,
        isolated=wishes.isolated,
        start_timeout_s=wishes.patience_s,
    )


def _follow(
    client: HostClient,
    host: Host,
    request: BootZoneRequest,
    name: str,
    timeline: Timeline,
    progress: Progress,
    held: contextlib.ExitStack,
) -> ZoneInfo:
    """Follow a boot to its end. Left early, by an error or Ctrl-C, the stream is cancelled, and zoned ends the zone."""
    zone: ZoneInfo | None = None
    exposed = False
    replies = cast(Generator["BootZoneReply", None, None], client.stream(client.host.BootZone, request))
    with contextlib.closing(replies), progress.bar(f"zone {name}: booting", unit="steps") as bar:
        for reply in replies:
            bar.advance(1)
            if not reply.HasField("zone"):
                continue
            zone = reply.zone
            if zone.state not in STEPS:
                continue
            held.close()
            for state in list(STEPS)[: list(STEPS).index(zone.state) + 1]:
                timeline.ended(STEPS[state])
            if not exposed and all(rule.port for rule in zone.ports):
                with timeline.step("open ports"):
                    host.expose(zone.ports)
                exposed = True
    if request.until_ports_answer:
        timeline.ended("workload answers")
    if zone is None:
        raise RuntimeFault(f"zone {name}", expected="word of its boot", got="none", hint="zone ps -a")
    return zone


def _remedy(descriptor: Descriptor, bundle: Bundle) -> str:
    """How the parts of a bundle come into the store again."""
    if origin := descriptor.annotations.get(manifest.ORIGIN):
        return f"zone boot {origin}@{descriptor.digest} fetches it again"
    return f"./doit bundle zone={bundle.name} makes it again"


def stop(host: Host, name: str, *, timeout_s: float | None = None, progress: Progress) -> ZoneInfo:
    """Stop a zone and take back its ports and disks; raises RemoteFault when the host has none of that name."""
    with host.connect() as client, progress.bar(f"zone {name}: stopping", unit="steps"):
        zone = client.run(stop_zone(client, name, timeout_s))
        tidy(host, client)
    return zone


async def stop_zone(client: HostClient, name: str, timeout_s: float | None) -> ZoneInfo:
    """Stop a zone; what the host keeps for it is taken back by `tidy`."""
    from runtime.host.api.host_pb2 import StopZoneRequest

    # Without a timeout of ours the zone's own counts, which only zoned knows.
    wait_s = None if timeout_s is None else timeout_s + STOP_MARGIN_S
    request = StopZoneRequest(zone=name, timeout_s=timeout_s)
    return await client.acall(client.host.StopZone, request, timeout_s=wait_s)


def tidy(host: Host, client: HostClient) -> None:
    """Take back ports and disks that no zone uses any more."""
    with host.exclusive():
        host.tidy(client)


def bring_again(host: Host, client: HostClient, store: Store, names: Iterable[str], progress: Progress) -> None:
    """Make what zones that have ended run from reachable once more, before they start again.

    The host may have let go of it; what this machine's store does not have, the host has to have kept.
    """
    from runtime.host.api.host_pb2 import ListZonesRequest

    wanted = tuple(names)
    for zone in client.call(client.host.ListZones, ListZonesRequest(all=True)).zones:
        if zone.state not in ENDED or not (zone.name in wanted or zone.id.startswith(wanted)):
            continue
        found = [(digest, store.path(digest)) for digest in map(Digest.parse, zone.blobs)]
        blobs = [Descriptor(OCTETS, digest, path.stat().st_size) for digest, path in found if path.is_file()]
        with host.exclusive():
            host.provide(client, blobs, progress)


def stopped_line(zone: ZoneInfo) -> str:
    """`zone nginx is stopped: exit code 0`."""
    return f"zone {zone.name} is stopped{': ' + zone.exit.text if zone.exit.text else ''}"


def up_line(booted: Booted) -> str:
    """`zone nginx is up: http://127.0.0.1:8080/`."""
    where = ", ".join(booted.urls) or ", ".join(booted.zone.addresses)
    return f"zone {booted.zone.name} is up: {where}"


def zones(host: Host) -> list[ZoneInfo]:
    """Every zone of a host that is up; none when it is not. Raises HostDown where one that is up does not answer."""
    from runtime.host.api.host_pb2 import ListZonesRequest

    if not host.is_up():
        return []
    with host.connect() as client:
        return list(client.call(client.host.ListZones, ListZonesRequest(all=True)).zones)
