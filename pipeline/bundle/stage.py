"""The bundle stage: image config and zone spec become the launch data; every part is named by digest."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.assemble.model import AssembleResult
from pipeline.bundle import VERSION as VERSION
from pipeline.bundle import manifest
from pipeline.bundle.errors import BadSpec
from pipeline.bundle.health import resolve_health
from pipeline.bundle.model import Bundle, BundleResult
from pipeline.bundle.process import image_of, inner, resolve_process
from pipeline.bundle.spec import ZoneSpec
from pipeline.bundle.volumes import bundled
from pipeline.env import Env
from pipeline.fetch.model import FetchResult
from pipeline.initrd.model import InitrdResult
from pipeline.oci import Descriptor
from pipeline.squash.model import SquashResult
from pipeline.store import Store
from pipeline.unpack.model import UnpackResult

# Console first: what the kernel says must reach it. panic=-1 makes a panic end the domain at once; the rest are the
# measured savings of a zone's boot (self-tests, RCU grace periods; with one vCPU, patching every lock prefix away took
# a sixth of it under emulation) and what a guest leaves to its hypervisor.
CMDLINE = (
    "console=hvc0 panic=-1 mitigations=off noreplace-smp cryptomgr.notests rcupdate.rcu_expedited=1 "
    "random.trust_cpu=on printk.devkmsg=on"
)
CMDLINE_LIMIT_BYTES = 1023


@dataclass(frozen=True)
class BundleParams:
    """The spec and the results of the stages before."""

    spec: ZoneSpec
    fetch: FetchResult
    unpack: UnpackResult
    squash: SquashResult
    initrd: InitrdResult
    assemble: AssembleResult


def run(params: BundleParams, env: Env) -> BundleResult:
    """Write the bundle's config and manifest to the store and name them `zones/NAME`. Raises as `resolve`."""
    bundle = resolve(params, env.store)
    return BundleResult(manifest.write(env.store, bundle), bundle)


def run_unnamed(params: BundleParams, env: Env) -> BundleResult:
    """As `run`, without the name: for a zone that is made once, and whose bundle goes when nothing runs from it."""
    bundle = resolve(params, env.store)
    return BundleResult(manifest.put(env.store, bundle), bundle)


def resolve(params: BundleParams, store: Store) -> Bundle:
    """The bundle of a spec and its parts. Raises BadImageConfig, NoSuchUser, BadSpec, StoreDamaged."""
    spec = params.spec
    subject = image_of(spec)
    config = store.read_json(params.fetch.config.digest)
    process = resolve_process(
        spec,
        config,
        passwd=_read(store, params.unpack.passwd),
        group=_read(store, params.unpack.group),
    )
    return Bundle(
        name=spec.name,
        kernel=params.initrd.kernel_elf,
        kernel_release=params.initrd.release,
        initrd=params.assemble.initrd,
        modules=params.assemble.modules,
        rootfs=params.squash.image,
        addons=params.assemble.addons,
        late_modules=params.assemble.late_modules,
        extensions=params.assemble.extensions,
        process=process,
        resources=spec.resources,
        network=spec.network,
        ports=spec.ports,
        hostname=spec.hostname,
        cmdline=command_line(spec),
        readonly_root=spec.readonly_root,
        overlay_size_mib=spec.overlay_size_mib,
        annotations=spec.annotations,
        image=spec.image,
        kernel_image=spec.kernel,
        restart=spec.restart,
        stdin_open=spec.stdin_open,
        labels=spec.labels,
        volumes=bundled(spec.volumes, store, subject=f"zone {spec.name}: key volumes"),
        seccomp=spec.seccomp,
        sysctls=spec.sysctls,
        scratch=spec.scratch,
        healthcheck=resolve_health(
            spec.health, inner(config, subject), subject=subject, key=f"zone {spec.name}: key healthcheck"
        ),
    )


def command_line(spec: ZoneSpec) -> str:
    """The zone kernel's command line; raises BadSpec when it does not fit into start_info."""
    words = [CMDLINE, "loglevel=7" if spec.verbose else "quiet", spec.cmdline_append]
    line = " ".join(word for word in words if word)
    if len(line) > CMDLINE_LIMIT_BYTES:
        raise BadSpec(
            f"zone {spec.name}: key kernel_options.cmdline_append",
            expected=f"a command line of at most {CMDLINE_LIMIT_BYTES} bytes",
            got=f"{len(line)}",
        )
    return line


def _read(store: Store, descriptor: Descriptor | None) -> bytes:
    return b"" if descriptor is None else store.read(descriptor.digest)
