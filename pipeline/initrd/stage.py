"""The steps of making an initrd."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline import newc
from pipeline.bundle.model import ADDONS_SQUASHFS, INITRD_SEGMENT, KERNEL_ELF, Module
from pipeline.env import Env, cached
from pipeline.initrd import modules
from pipeline.initrd.extract import extract
from pipeline.initrd.model import InitrdParams, InitrdResult
from pipeline.layers import Spools
from pipeline.oci import Descriptor
from pipeline.rootfs import Rootfs
from pipeline.store import Store

VERSION = 1
IMAGE, METADATA, ADDONS = "kernel/image", "kernel/metadata", "kernel/addons.squashfs"
ADDONS_MAX_BYTES = 400 << 20
METADATA_MAX_BYTES = 1 << 20


def run(params: InitrdParams, env: Env, *, subject: str = "kernel image") -> InitrdResult:
    """Make kernel ELF and initrd segments.

    Raises:  BadKernel, BadAddons, NoSuchFile for an image without kernel/image; BadArchive.
    """
    kernel, init = params.kernel, params.init
    return cached(
        env,
        InitrdResult,
        stage="initrd",
        version=VERSION,
        params={},
        inputs={
            "kernel": str(kernel.tree.digest),
            "layers": [str(layer.diff_id) for layer in kernel.layers],
            "init": str(init.elf.digest),
        },
        build=lambda: _build(params, env, subject),
    )


def _build(params: InitrdParams, env: Env, subject: str) -> InitrdResult:
    with Spools(env.store, env.config.limits) as spools, env.progress.bar(f"initrd of {subject}", unit="parts") as bar:
        rootfs = Rootfs(env.store, params.kernel.tree, params.kernel.layers, spools)
        metadata = _metadata(rootfs, subject)
        kernel_elf = _kernel(rootfs, env.store, subject)
        bar.advance(1)
        addons = None
        if rootfs.find(ADDONS) is not None:
            addons = modules.Addons(rootfs.read(ADDONS, limit_bytes=ADDONS_MAX_BYTES, subject=subject), subject=subject)
        names = modules.boot_modules(addons, metadata, subject=subject)
        segment = modules_segment({name: addons.read(name) for name in names} if addons else {})
        bar.advance(1)
        more = addons is not None and holds_more(addons, names)
        return InitrdResult(
            kernel_elf=kernel_elf,
            release=metadata.get("KERNEL_UNAME_R", ""),
            base=env.store.put(base_segment(env.store.path(params.init.elf.digest)), INITRD_SEGMENT),
            modules_segment=env.store.put(segment, INITRD_SEGMENT),
            modules=tuple(Module(f"/{_module_path(name)}") for name in names),
            addons=rootfs.store_file(ADDONS, media_type=ADDONS_SQUASHFS, subject=subject) if more else None,
        )


def _metadata(rootfs: Rootfs, subject: str) -> dict[str, str]:
    if rootfs.find(METADATA) is None:
        return {}
    data = rootfs.read(METADATA, limit_bytes=METADATA_MAX_BYTES, subject=subject)
    return modules.parse_metadata(data.decode("utf-8", "replace"))


def _kernel(rootfs: Rootfs, store: Store, subject: str) -> Descriptor:
    """The ELF kernel as a blob. The child reads the image from a file of its own, not from the whole layer."""
    entry = rootfs.file(IMAGE, subject=subject)
    with tempfile.TemporaryFile(dir=store.tmp) as image, store.writer() as out:
        rootfs.copy(entry, image.write)
        image.flush()
        image.seek(0)
        extract(image, out, subject=subject)
        return out.commit(media_type=KERNEL_ELF)


def base_segment(init: Path) -> bytes:
    """Init under its three names, the directories it mounts on, the nodes it needs before devtmpfs is there.

    The kernel opens /dev/console for init's standard streams; without a urandom node the interpreter would not start.
    """
    entries = [newc.directory(name) for name in ("bin", "dev", "modules", "proc", "sys", "zone")]
    entries += [newc.file("init", init, mode=0o755)]
    entries += [newc.symlink(f"bin/{name}", "/init") for name in ("zone", "styrolite")]
    nodes = {"console": (5, 1, 0o600), "kmsg": (1, 11, 0o600), "null": (1, 3, 0o666), "urandom": (1, 9, 0o666)}
    entries += [newc.char_device(f"dev/{name}", *node[:2], mode=node[2]) for name, node in nodes.items()]
    return newc.archive(entries)


def modules_segment(contents: dict[str, bytes]) -> bytes:
    """The modules by name, unpacked: init has no decompressor and the kernel's is one more option to depend on."""
    entries = [newc.file(_module_path(name), data) for name, data in contents.items()]
    return newc.archive([newc.directory("modules"), *entries])


def _module_path(name: str) -> str:
    return f"modules/{name}.ko"


def holds_more(addons: modules.Addons, in_initrd: Sequence[str]) -> bool:
    """Is there anything in the addons that the initrd has not: another module, firmware, a policy?"""
    known = {addons.modules[name] for name in in_initrd}
    index = [path for path in addons.files if path.startswith("modules/modules.")]
    return bool(set(addons.files) - known - set(index))
