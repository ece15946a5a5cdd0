"""What a boot needs, by digest: the zone bundle, and the launch data that reach the zone's init."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.oci import Descriptor, Digest

ARTIFACT_TYPE = "application/vnd.zonewright.bundle.v1"
SPEC = "application/vnd.zonewright.spec.v1+json"
KERNEL_ELF = "application/vnd.zonewright.kernel.v1.elf"
INITRD_SEGMENT = "application/vnd.zonewright.initrd.v1.cpio"
ROOTFS_SQUASHFS = "application/vnd.zonewright.rootfs.v1.squashfs"
ADDONS_SQUASHFS = "application/vnd.zonewright.addons.v1.squashfs"
VOLUME_SQUASHFS = "application/vnd.zonewright.volume.v1.squashfs"
LEAST_MEMORY_MIB = 96  # a zone's kernel, init and a small workload; zones/zone.schema.json has the same number


@dataclass(frozen=True)
class Process:
    """The workload's process, resolved: names are numbers here, and PATH has been searched for nothing yet."""

    argv: tuple[str, ...]
    env: tuple[str, ...]  # "KEY=VALUE"
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    tty: bool = False
    stop_signal: int = 15
    stop_timeout_s: int = 10


@dataclass(frozen=True)
class Module:
    """A kernel module to load, in load order."""

    path: str  # in the initrd, such as /modules/xen-blkfront.ko, or below /run/zone/ext on the addons disk
    parameters: str = ""


@dataclass(frozen=True)
class ModuleWish:
    """A module the spec wants loaded, by its name; what it needs is loaded before it.

    needed_by: what wants it, for what is said where there is none; "": the spec names it.
    """

    name: str
    parameters: str = ""
    needed_by: str = ""


@dataclass(frozen=True)
class ExtensionChoice:
    """An extension image the spec names. override: its files may replace those of what comes before it."""

    image: str
    override: bool = False


@dataclass(frozen=True)
class BundledExtension:
    """Which extension image is in a bundle; its files are in the initrd or on the addons disk."""

    reference: str
    manifest: Digest
    kind: str
    phase: str


@dataclass(frozen=True)
class Resources:
    """Memory and vCPUs; max is what may be reached later by ballooning and hotplug."""

    memory_mib: int = 256
    memory_max_mib: int = 256
    vcpus: int = 1
    vcpus_max: int = 1


@dataclass(frozen=True)
class Port:
    """host_address:host_port on the user's machine leads to zone_port in the zone.

    host_port:  0: one that is free. protocol: tcp or udp.
    """

    host_address: str
    host_port: int
    zone_port: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class RestartPolicy:
    """name: no, on-failure, always, unless-stopped; max_retries is on-failure's, 0 for no limit."""

    name: str = "no"
    max_retries: int = 0


@dataclass(frozen=True)
class Volume:
    """Something mounted at `target`, below the workload's root, besides its image.

    kind:     tmpfs (memory, gone with the zone), squashfs (a file, read-only), block (a device of the zone's host),
              directory (of the zone's host, too, by 9p).
    source:   the file, of which a bundle keeps but the name; device or directory, by its path on that host.
    size_mib: of a tmpfs; 0: half of the memory.
    blob:     the squashfs, in a bundle: it goes where the zone goes.
    """

    target: str
    kind: str = "tmpfs"
    source: str = ""
    readonly: bool = False
    size_mib: int = 0
    blob: Descriptor | None = None


@dataclass(frozen=True)
class Seccomp:
    """Which system calls the workload may make: those of the default profile, unless one of these is said.

    profile:  the `linux.seccomp` of the OCI runtime specification; made a filter on the host that boots the zone.
    """

    unconfined: bool = False
    profile: dict[str, Any] | None = None


@dataclass(frozen=True)
class Capabilities:
    """Of the workload's processes, by names without CAP_.

    bounding:  effective and permitted, too. ambient: what a user other than root keeps, and inherits.
    """

    bounding: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confinement:
    """What a spec says of the workload's container beside its system calls; None and empty: as every one has it.

    namespaces:  of the kinds said, "own" or "zone", or how an own one is made, as the zone's runtime takes it.
    limits:      file of its cgroup -> what is written into it.
    rlimits:     name -> (soft, hard).
    init:        does a reaper run as its first process, and the command under that?
    refuse:      what nobody may ask of the zone's agent; None, and not empty, where that is nothing.
    """

    capabilities: Capabilities | None = None
    no_new_privs: bool | None = None
    namespaces: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    rlimits: dict[str, tuple[int, ...]] = field(default_factory=dict)
    init: bool = False
    refuse: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Healthcheck:
    """A command that is run in the workload's container now and then, and whose exit code says whether it is well.

    start_period_s: after the start, in which failures do not count, and probes come every start_interval_s.
    retries:        failures in a row that make it unhealthy.
    """

    argv: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    start_period_s: float = 0.0
    start_interval_s: float = 5.0
    retries: int = 3


@dataclass(frozen=True)
class HealthWish:
    """What a spec says of the health check. None: as the image says; shell: a text for the image's shell."""

    disable: bool = False
    argv: tuple[str, ...] | None = None
    shell: str | None = None
    interval_s: float | None = None
    timeout_s: float | None = None
    start_period_s: float | None = None
    start_interval_s: float | None = None
    retries: int | None = None


ENGINES = ("splice", "pasta")


@dataclass(frozen=True)
class Network:
    """The zone's one interface, as the spec wants it; addresses are given at launch, unless one is wanted.

    name:      of the network that it shares with other zones; "": a private one.
    isolated:  apart from the others there.
    address:   of either family, of zones' pool, and its number in its network in both; "": any.
    engine:    what moves its bytes, one of ENGINES; "": the first.
    nameservers, search, options: of its resolv.conf.
    egress:  what it may reach, see egress.py; the first rule that matches decides.
    bandwidth_bit_s: of its interface, each way; 0: no limit.
    """

    mtu: int = 1500
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    bandwidth_bit_s: int = 0
    name: str = ""
    isolated: bool = False
    address: str = ""
    engine: str = ""


@dataclass(frozen=True)
class Bundle:
    """Everything a boot needs. Pushed and pulled as one OCI artifact; see `manifest.py` for that form."""

    name: str
    kernel: Descriptor  # uncompressed ELF
    kernel_release: str
    initrd: tuple[Descriptor, ...]  # raw newc segments, in order; the launch segment is added at boot
    modules: tuple[Module, ...]  # loaded from the initrd, before there is a disk
    rootfs: Descriptor
    process: Process
    resources: Resources = Resources()
    network: Network = Network()
    ports: tuple[Port, ...] = ()
    hostname: str = ""
    cmdline: str = ""
    readonly_root: bool = False
    overlay_size_mib: int = 0  # 0: half of the memory
    addons: Descriptor | None = None
    late_modules: tuple[Module, ...] = ()  # loaded once the addons disk is mounted
    extensions: tuple[BundledExtension, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    image: str = ""  # the reference of what it runs, for people
    kernel_image: str = ""
    restart: RestartPolicy = RestartPolicy()
    stdin_open: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    seccomp: Seccomp = Seccomp()
    healthcheck: Healthcheck | None = None
    sysctls: dict[str, str] = field(default_factory=dict)  # of the zone's kernel, before the workload starts
    filesystems: tuple[str, ...] = ()  # that its kernel can mount a disk with, modules loaded; (): not known
    # What takes what is written over the image: a device of the zone's host, a disk that host makes, else memory.
    scratch: str = ""
    scratch_mib: int = 0
    confinement: Confinement | None = (
        None  # none where the spec says nothing of it: such bundles have the bytes they had
    )


@dataclass(frozen=True)
class LaunchNetwork:
    """Addresses with prefix lengths, gateways without.

    rto_min_ms: of the default routes, the least that TCP waits before it sends again; 0 for what the kernel has.
    """

    interface: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    nameservers: tuple[str, ...]
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    rto_min_ms: int = 0


@dataclass(frozen=True)
class Launch:
    """/zone/launch.json of the last initrd segment: what only the host knows at launch.

    seed:  64 hex digits of entropy, mixed into the zone's pool and used for the interpreter's hash seed.
    process: None for a zone that idles until the host has something for it.
    root:  device of the image ("xvda"); addons: device of the addons ("xvdb") or "".
    disks: devices of volumes, which have to be there before the workload starts.
    scratch: device of what is written over the image, and its file system: ("xvdc", "ext4"); (): memory.
    sysctls: set once all modules are loaded; "net.core.somaxconn" or "net/core/somaxconn".
    """

    hostname: str
    seed: str
    modules: tuple[Module, ...]
    process: Process | None
    root: str = "xvda"
    addons: str = ""
    late_modules: tuple[Module, ...] = ()
    readonly_root: bool = False
    overlay_size_mib: int = 0
    network: LaunchNetwork | None = None
    disks: tuple[str, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    scratch: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BundleResult:
    """What the bundle stage leaves: the artifact's manifest, and what stands in it."""

    manifest: Descriptor
    bundle: Bundle
