"""A whole zone in an emulated machine without Xen: the real program and kernel, its root on a virtio disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import newc
from pipeline.build import kernel
from pipeline.build.model import InitResult, KernelParams
from pipeline.bundle.model import Launch
from pipeline.env import Env
from pipeline.fetch import debian
from pipeline.fetch.model import FetchResult
from pipeline.initrd import InitrdParams
from pipeline.initrd import run as make_initrd
from pipeline.jsonmodel import to_json
from pipeline.layers import Spools
from pipeline.oci import canonical_json
from pipeline.store import Store
from pipeline.unpack import UnpackParams, open_rootfs
from pipeline.unpack import run as unpack
from support import zoneparts
from support.tools import require

MODULES = ["virtio-pci", "virtio-blk", "virtio_console", "squashfs", "overlay"]
CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on"
MACHINE = ("-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot")
ROOT = "vda"


@dataclass(frozen=True)
class GuestZone:
    """kernel: its file; initrd: without launch data; modules: for them; rootfs: the squashfs."""

    directory: Path
    kernel: Path
    initrd: bytes
    modules: tuple[str, ...]
    rootfs: Path

    def argv(self, launch: Launch, *options: str, serial: str = "stdio") -> list[str]:
        """The words that start QEMU with it, its console where `serial` says. Writes the initrd with launch data."""
        data = newc.archive([newc.file("zone/launch.json", canonical_json(to_json(launch)), mode=0o600)])
        initrd = self.directory / "initrd"
        initrd.write_bytes(self.initrd + data)
        drive = f"file={self.rootfs},format=raw,if=virtio,readonly=on"
        words = ["-kernel", str(self.kernel), "-initrd", str(initrd), "-append", CMDLINE]
        words += ["-drive", drive, "-serial", serial]
        return ["qemu-system-x86_64", *MACHINE, *words, *options]


def build(directory: Path, root: Path) -> GuestZone:
    """Everything of a zone whose root is a directory's content, built in a store of its own."""
    require("qemu-system-x86_64", "mksquashfs")
    directory.mkdir(exist_ok=True)
    zoneparts.zone_kernel()  # its package is in the user's store then
    lock_path = zoneparts.LOCKS / "debian-cloud.json"
    env = Env(Store(directory / "store"))
    for package in debian.load(lock_path).packages:
        source = zoneparts.env().store.path(package.descriptor.digest)
        if source.exists():
            env.store.path(package.descriptor.digest).write_bytes(source.read_bytes())
    recipe = kernel.load("debian-cloud") | {"modules": {"boot": MODULES}}
    image = kernel.run(KernelParams("virtio", recipe, str(lock_path)), env).image
    fetched = FetchResult("recipe:virtio", image.manifest, image.config, image.layers, image.diff_ids)
    unpacked = unpack(UnpackParams(fetched), env)
    elf = env.store.put(zoneparts.env().store.read(zoneparts.zone_init().elf.digest))
    made = make_initrd(InitrdParams(unpacked, InitResult(elf, elf)), env)
    with Spools(env.store) as spools:
        (directory / "kernel").write_bytes(open_rootfs(env.store, unpacked, spools).read("kernel/image"))
    rootfs = zoneparts.squashfs(root, directory / "root.sqfs")
    initrd = b"".join(env.store.read(part.digest) for part in (made.base, made.modules_segment))
    return GuestZone(directory, directory / "kernel", initrd, made.modules, rootfs)
