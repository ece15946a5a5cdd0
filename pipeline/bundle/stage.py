"""The bundle stage: image config and zone spec become the launch data; every part is named by digest."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.assemble.model import AssembleResult
from pipeline.bundle import VERSION as VERSION
from pipeline.bundle import manifest
from pipeline.bundle.cmdline import command_line
from pipeline.bundle.health import resolve_health
from pipeline.bundle.model import Bundle, BundleResult
from pipeline.bundle.process import image_of, inner, resolve_process
from pipeline.bundle.spec import ZoneSpec
from pipeline.bundle.volumes import bundled
from pipeline.env import Env
from pipeline.fetch.model import FetchResult
from pipeline.initrd.model import InitrdResult
from pipeline.kernelconfig import mountable
from pipeline.oci import Descriptor
from pipeline.squash.model import SquashResult
from pipeline.store import Store
from pipeline.unpack.model import UnpackResult


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
        filesystems=mountable(
            params.initrd.filesystems,
            (module.path for module in (*params.assemble.modules, *params.assemble.late_modules)),
        ),
        scratch=spec.scratch,
        scratch_mib=spec.scratch_mib,
        confinement=spec.confinement,
        healthcheck=resolve_health(
            spec.health, inner(config, subject), subject=subject, key=f"zone {spec.name}: key healthcheck"
        ),
    )


def _read(store: Store, descriptor: Descriptor | None) -> bytes:
    return b"" if descriptor is None else store.read(descriptor.digest)
