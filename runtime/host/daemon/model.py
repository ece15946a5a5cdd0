"""What goes into and comes out of the manager: frozen, no I/O. Fields mean what they mean in api/host.proto."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipeline.bundle.model import Bundle, Volume
from pipeline.oci import Descriptor
from runtime.net.engine.flows import Flow


class State(Enum):
    """Where a zone is in its life."""

    QUEUED = "queued"  # accepted; waits for its turn
    CREATING = "creating"  # network and domain are being made
    RUNNING = "running"  # the domain runs
    READY = "ready"  # the workload runs
    STOPPING = "stopping"
    RESTARTING = "restarting"  # ended; comes again after a pause
    EXITED = "exited"
    FAILED = "failed"  # never came to run its workload

    @property
    def live(self) -> bool:
        """Does it hold, or will it soon hold, anything of the host?"""
        return self not in (State.EXITED, State.FAILED)

    @property
    def up(self) -> bool:
        """Does its domain run?"""
        return self in (State.RUNNING, State.READY, State.STOPPING)


@dataclass(frozen=True)
class PortRule:
    """host_address:host_port of the user's machine leads to address:port here, and that to zone_port in the zone.

    port:       0 lets zoned choose. host_port: 0: the same as port is then.
    protocol:   tcp or udp.
    """

    zone_port: int
    address: str = "127.0.0.1"
    port: int = 0
    host_address: str = ""
    host_port: int = 0
    protocol: str = "tcp"


@dataclass(frozen=True)
class RestartPolicy:
    """name: no, on-failure, always, unless-stopped; max_retries is on-failure's, 0 for no limit."""

    name: str = "no"
    max_retries: int = 0


@dataclass(frozen=True)
class BootRequest:
    """One zone, wanted.

    ports:        None: the bundle's own, listened for on this host.
    reservation:  the id of a reservation of addresses to use; "" for any free ones.
    until_ready:  `boot` returns when the workload runs rather than when the domain does; until_ports_answer: and every
                  published port answers.
    attach:       whoever asks attaches next: with `remove`, the zone is kept until they have seen its end.
    network:      the shared network to join; "": the bundle's, if it names one. isolated: apart from others in it.
    start_timeout_s: how long after each start its workload may take to run, before the zone is ended; 0: as long as it
                  likes.
    fresh:        refused where a zone that has ended has its name, which otherwise gives way.
    """

    bundle: Bundle
    manifest: str = ""
    ports: tuple[PortRule, ...] | None = None
    restart: RestartPolicy = RestartPolicy()
    remove: bool = False
    stdin_open: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    reservation: str = ""
    until_ready: bool = False
    until_ports_answer: bool = False
    attach: bool = False
    network: str = ""
    isolated: bool = False
    start_timeout_s: float = 0.0
    fresh: bool = False

    @property
    def network_name(self) -> str:
        """The shared network it joins; "" for a private one."""
        return self.network or self.bundle.network.name

    @property
    def is_isolated(self) -> bool:
        """Is it to be kept from the other zones there?"""
        return self.isolated or self.bundle.network.isolated


@dataclass(frozen=True)
class ExitStatus:
    """How a process, or a zone by its workload, ended. code is 128 + n after a signal n.

    reason:  a failed boot's word, such as "command-127"; text: one phrase for people.
    """

    code: int = 0
    signal: int = 0
    oom: bool = False
    crashed: bool = False
    reason: str = ""
    text: str = ""

    @property
    def clean(self) -> bool:
        """Did it end as it should?"""
        return not (self.code or self.signal or self.oom or self.crashed or self.reason)


@dataclass(frozen=True)
class VolumeInfo:
    """Something mounted in a zone besides its image.

    source:  a file's name, the path of a device of the zone's host, or tmpfs; type: the file system, as far as known.
    device:  the disk it is in the zone; "" for a tmpfs. size_mib: of a tmpfs; 0: half of the memory.
    """

    source: str
    target: str
    type: str
    readonly: bool
    device: str = ""
    size_mib: int = 0


@dataclass(frozen=True)
class DeviceInfo:
    """A device Xen gives a zone.

    name:    in the zone; kind: disk or network; purpose: rootfs, addons, scratch, volume TARGET, network.
    source:  what is behind it: a digest, the path of a device of the zone's host, a MAC address.
    """

    name: str
    kind: str
    source: str
    purpose: str
    readonly: bool


@dataclass(frozen=True)
class ZoneInfo:
    """A zone as it is now."""

    id: str
    name: str
    state: State
    domain_uuid: str = ""
    domid: int = 0
    image: str = ""
    kernel: str = ""
    manifest: str = ""
    memory_mib: int = 0
    memory_max_mib: int = 0
    memory_seen_mib: int = 0
    vcpus: int = 0
    vcpus_max: int = 0
    vcpus_seen: int = 0
    addresses: tuple[str, ...] = ()
    mac: str = ""
    gateways: tuple[str, ...] = ()
    ports: tuple[PortRule, ...] = ()
    exit: ExitStatus | None = None
    restart: RestartPolicy = RestartPolicy()
    restarts: int = 0
    created_unix_s: float = 0.0
    started_unix_s: float = 0.0
    ready_unix_s: float = 0.0
    finished_unix_s: float = 0.0
    remove: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    zone_timings: Mapping[str, float] = field(default_factory=dict)
    blobs: tuple[str, ...] = ()
    console_tail: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: str = ""
    tty: bool = False
    network: str = ""
    egress: tuple[str, ...] = ()
    bandwidth_bit_s: int = 0
    agent: bool = False  # its agent answers: exec, copies and metrics work
    reservation: str = ""
    volumes: tuple[VolumeInfo, ...] = ()
    devices: tuple[DeviceInfo, ...] = ()
    paused: bool = False  # its workload stands still
    limits: Mapping[str, str] = field(default_factory=dict)
    refuse: tuple[str, ...] = ()


@dataclass(frozen=True)
class BootProgress:
    """A step of a boot. stage: queued, plan, network, build, wire, running, workload, port, ready."""

    stage: str
    text: str = ""
    zone: ZoneInfo | None = None


Emit = Callable[[BootProgress], None]


@dataclass(frozen=True)
class Event:
    """Something that happened; token names it for `events(since=…)`."""

    token: str
    unix_s: float
    kind: str
    zone_id: str = ""
    zone: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogEntry:
    """A line of output with its end, or a piece of one. stream: stdout, stderr, console, of which unix_s is 0."""

    unix_s: float
    stream: str
    data: bytes


@dataclass(frozen=True)
class TerminalSize:
    """Rows and columns."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class ProcessStart:
    """What to attach to, or to execute. Empty fields of an exec: the workload's own."""

    zone: str
    workload: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    size: TerminalSize | None = None
    replay: bool = False
    detach: bool = False
    outside: bool = False  # of every container: in the zone itself


@dataclass(frozen=True)
class Output:
    """What a session says. kind: started, stdout, stderr, exit (the last one)."""

    kind: str
    data: bytes = b""
    exit: ExitStatus | None = None


@dataclass(frozen=True)
class Metric:
    """One figure of a zone. unit: bytes, count, seconds, percent."""

    name: str
    value: float
    unit: str = "count"


@dataclass(frozen=True)
class ZoneProcess:
    """A process in a zone."""

    pid: int
    parent: int
    uid: int
    state: str
    resident_kib: int
    cpu_s: float
    command: str


@dataclass(frozen=True)
class NetworkInfo:
    """A network and the zones in it. shared: others may join. engine: "" while no zone is in it."""

    name: str
    ipv4: str
    ipv6: str
    gateway4: str
    gateway6: str
    engine: str = ""
    zones: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    shared: bool = False


@dataclass(frozen=True)
class ZoneFlows:
    """What passes through a zone's network now, and what has been counted since its engine was started.

    problem:  why there is nothing of both.
    """

    zone: str
    flows: tuple[Flow, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class HostStatus:
    """This host and its zoned. missing: what stands in the way of zones, a sentence each."""

    host_id: str
    version: str
    xen_version: str
    kernel: str
    python: str
    free_memory_kib: int
    total_memory_kib: int
    cpus: int
    zones_running: int
    zones_total: int
    missing: tuple[str, ...]
    started_unix_s: float
    zoned_rss_kib: int
    pid: int


@dataclass(frozen=True)
class DiskUsageRow:
    """One kind of thing on the host's disk."""

    what: str
    count: int
    size_bytes: int
    reclaimable_bytes: int


@dataclass(frozen=True)
class Pruned:
    """What a prune removed, or would remove."""

    removed: tuple[str, ...]
    freed_bytes: int


@dataclass(frozen=True)
class Update:
    """Changes to a zone; None leaves a thing as it is. remove_ports are named by address and port.

    egress:  all of its rules, in place of those it has. bandwidth_bit_s: 0 for no limit.
    limits:  of its workload's cgroup, file -> what is written into it, beside those it has.
    """

    memory_mib: int | None = None
    vcpus: int | None = None
    restart: RestartPolicy | None = None
    add_ports: tuple[PortRule, ...] = ()
    remove_ports: tuple[PortRule, ...] = ()
    egress: tuple[str, ...] | None = None
    bandwidth_bit_s: int | None = None
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reservation:
    """Addresses kept for zones that ask for them by this id. zone_id: who uses them now; "" for nobody."""

    id: str
    ipv4: str
    ipv6: str
    mac: str
    gateway4: str
    gateway6: str
    gateway_mac: str
    prefix4: int
    prefix6: int
    zone_id: str = ""


class WorkloadState(Enum):
    """Where a workload is in its life."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    COMPLETED = "completed"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    FAILED = "failed"


@dataclass(frozen=True)
class WorkloadRequest:
    """One container, wanted in a zone that runs.

    rootfs:     its image as a disk of its own; None: the zone's own image.
    container:  the spec as the zone's container runtime takes it, without `root.device`, which zoned fills in.
    mounts:     directories of this host; what the spec says of them zoned fills in, too.
    """

    name: str
    zone: str
    rootfs: Descriptor | None = None
    container: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Volume, ...] = ()


@dataclass(frozen=True)
class WorkloadInfo:
    """A workload as it is now; `request` as it was asked for.

    device:  its image's disk in the zone, such as xvdc. tags: by which the zone mounts what `request.mounts` names.
    """

    id: str
    name: str
    zone_id: str
    state: WorkloadState
    request: WorkloadRequest
    exit: ExitStatus | None = None
    error: str = ""
    device: str = ""
    tags: tuple[str, ...] = ()
    created_unix_s: float = 0.0
    started_unix_s: float = 0.0
    finished_unix_s: float = 0.0
