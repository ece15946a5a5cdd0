"""What a lab is started from, found and checked before anything is started."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline import tool
from pipeline.errors import StoreDamaged
from pipeline.oci import Descriptor
from pipeline.store import Store
from runtime.host.lab import codedisk, probe, qemu
from runtime.host.lab.config import LabConfig
from runtime.host.lab.errors import LabUnfit
from runtime.host.lab.snapshot import snapshot_key

TITLE = "org.opencontainers.image.title"
TAG_PREFIX = "os/"
QEMU = "qemu-system-x86_64"
QEMU_PACKAGE = "qemu-system-x86"
MEMINFO = Path("/proc/meminfo")
# A snapshot takes about 150 MiB, and stands beside an older one until it is whole.
DISK_NEEDED_MIB = 512


@dataclass(frozen=True)
class Parts:
    """Everything a start needs to know.

    argv: without the snapshot's descriptor. key: names the snapshot that fits. dom0: layer title -> blob.
    """

    program: str
    accel: str
    accel_why: str
    images: qemu.Images
    argv: tuple[str, ...]
    key: str


def gather(config: LabConfig, store: Store, *, mark: str) -> Parts:
    """Find QEMU, the dom0 image and the code, decide on KVM, plan the argument list.

    Raises:  LabUnfit, StoreDamaged. Effects: makes the code disk; may boot Xen once to see whether KVM will do.
    """
    program, version = _program()
    dom0 = dom0_layers(store, config.flavour)
    code = codedisk.code_disk(store, codedisk.code_files())
    images = qemu.Images(
        xen=store.path(dom0["xen"].digest),
        kernel=store.path(dom0["kernel"].digest),
        initrd=store.path(dom0["initrd"].digest),
        root=store.path(dom0["root"].digest),
        code=store.path(code.digest),
    )
    accel, why = _accelerator(config, store, program, version, images, str(dom0["xen"].digest))
    argv = qemu.plan_argv(program, config, images, accel=accel, name=mark)
    names = {str(path): path.name for path in (images.xen, images.kernel, images.initrd, images.root, images.code)}
    key = snapshot_key(
        dom0={title: str(layer.digest) for title, layer in dom0.items()},
        code=str(code.digest),
        qemu_version=version,
        argv=qemu.identity(argv, names | {mark: "lab"}),
        accel=accel,
        host=probe.processor() if accel == "kvm" else "",
    )
    return Parts(program, accel, why, images, tuple(argv), key)


def dom0_layers(store: Store, flavour: str) -> dict[str, Descriptor]:
    """The four files of a dom0 image, whole and unaltered. Raises LabUnfit, StoreDamaged."""
    manifest = store.tags().get(f"{TAG_PREFIX}{flavour}")
    build = f"./doit os:{flavour}"
    if manifest is None:
        built = [tag.removeprefix(TAG_PREFIX) for tag in store.tags() if tag.startswith(TAG_PREFIX)]
        raise LabUnfit(
            f"dom0 image {flavour}",
            expected=f"it in the store {store.root}",
            got=f"only {', '.join(built)}" if built else "none",
            hint=f"{build} makes it, or takes it from the cache: --cache=docker://HOST/REPOSITORY",
        )
    document = store.read_json(manifest.digest)
    layers = [Descriptor.from_json(item) for item in document["layers"]]
    found = {layer.annotations.get(TITLE, ""): layer for layer in layers}
    for title in ("xen", "kernel", "initrd", "root"):
        if title not in found or not store.verify(found[title].digest):
            raise StoreDamaged(
                f"dom0 image {flavour}",
                expected=f"its {title} as built",
                got="none or others",
                hint=f"{build} heals it",
            )
    return {title: found[title] for title in ("xen", "kernel", "initrd", "root")}


def check_resources(config: LabConfig, store: Store) -> None:
    """Raise LabUnfit where this machine has too little memory or disk left, with the numbers."""
    available = memory_available_mib()
    if available < config.host_memory_mib:
        raise LabUnfit(
            "memory for the lab",
            expected=f"{config.host_memory_mib} MiB available ({config.memory_mib} for the lab, the rest for QEMU)",
            got=f"{available} MiB",
            hint="end other programs or lower memory_mib in lab.toml",
        )
    free = shutil.disk_usage(store.root).free >> 20
    if free < DISK_NEEDED_MIB:
        raise LabUnfit(
            f"disk space in {store.root}", expected=f"{DISK_NEEDED_MIB} MiB free for the snapshot", got=f"{free} MiB"
        )


def memory_available_mib(meminfo: Path = MEMINFO) -> int:
    """What can be used without swapping. Source: proc(5), /proc/meminfo, MemAvailable."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def _program() -> tuple[str, str]:
    try:
        program = tool.find(QEMU, package=QEMU_PACKAGE)
    except tool.ToolMissing as error:
        raise LabUnfit(
            QEMU, expected="it installed", got="not found in PATH", hint=f"apt-get install {QEMU_PACKAGE}"
        ) from error
    return program, tool.run([program, "--version"], timeout_s=60).decode().splitlines()[0]


def _accelerator(
    config: LabConfig, store: Store, program: str, version: str, images: qemu.Images, xen_digest: str
) -> tuple[str, str]:
    if config.accel == "tcg":
        return "tcg", "asked for"
    argv = qemu.plan_probe(program, config, images)
    works, why = probe.kvm_works(argv, store.root / "lab", probe.probe_key(version, xen_digest))
    if not works and config.accel == "kvm":
        raise LabUnfit("KVM", expected="Xen to boot on it", got=why, hint='accel = "tcg" or "auto" in lab.toml')
    return ("kvm" if works else "tcg"), why
