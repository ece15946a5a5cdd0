"""The steps of making an initrd."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline import kmodule, newc, zonebase
from pipeline.addons import Addons, BadAddons
from pipeline.bundle.model import ADDONS_SQUASHFS, INITRD_SEGMENT, KERNEL_ELF, Module
from pipeline.env import Env, cached, inflated_layers
from pipeline.initrd import modules
from pipeline.initrd.extract import extract
from pipeline.initrd.model import InitrdParams, InitrdResult
from pipeline.kernelconfig import built_in
from pipeline.oci import Descriptor
from pipeline.rootfs import Rootfs
from pipeline.store import Store

VERSION = 3
IMAGE, METADATA, ADDONS = "kernel/image", "kernel/metadata", "kernel/addons.squashfs"
CONFIG, CONFIG_MAX_BYTES = "kernel/config.gz", 1 << 20
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
    with inflated_layers(env) as spools, env.progress.bar(f"initrd of {subject}", unit="parts") as bar:
        rootfs = Rootfs(env.store, params.kernel.tree, params.kernel.layers, spools)
        metadata = _metadata(rootfs, subject)
        kernel_elf = _kernel(rootfs, env.store, subject)
        bar.advance(1)
        with contextlib.ExitStack() as stack:
            squashfs = _addons_file(rootfs, stack.enter_context(env.store.scratch()), subject)
            addons = stack.enter_context(Addons(squashfs, subject=subject)) if squashfs else None
            names = modules.boot_modules(addons, metadata, subject=subject)
            contents = {name: addons.read(name) for name in names} if addons else {}
            more = addons is not None and holds_more(addons, names)
            kept = env.store.put_file(squashfs, ADDONS_SQUASHFS) if squashfs and more else None
            any_module = next(iter(contents.values()), None) or _any_module(addons)
        bar.advance(1)
        return InitrdResult(
            kernel_elf=kernel_elf,
            release=metadata.get("KERNEL_UNAME_R", ""),
            base=env.store.put(base_segment(env.store.checked(params.init.elf.digest)), INITRD_SEGMENT),
            modules_segment=env.store.put(modules_segment(contents), INITRD_SEGMENT),
            modules=tuple(Module(f"/{_module_path(name)}") for name in names),
            addons=kept,
            filesystems=_filesystems(rootfs, subject),
            vermagic=kmodule.vermagic(kmodule.modinfo(any_module)) if any_module else "",
        )


def _addons_file(rootfs: Rootfs, directory: Path, subject: str) -> Path | None:
    """The kernel's addons as a file of their own, None where there are none."""
    if rootfs.find(ADDONS) is None:
        return None
    entry = rootfs.file(ADDONS, subject=subject)
    if entry.size_bytes > ADDONS_MAX_BYTES:
        limit = f"at most {ADDONS_MAX_BYTES >> 20} MiB"
        raise BadAddons(f"{subject}: {ADDONS}", expected=limit, got=f"{entry.size_bytes} bytes")
    path = directory / "addons.squashfs"
    with open(path, "wb") as out:
        rootfs.copy(entry, out.write)
    return path


def _any_module(addons: Addons | None) -> bytes | None:
    """All modules of a kernel have its vermagic: one is as good as another."""
    return addons.read(next(iter(addons.modules))) if addons and addons.modules else None


def _metadata(rootfs: Rootfs, subject: str) -> dict[str, str]:
    if rootfs.find(METADATA) is None:
        return {}
    data = rootfs.read(METADATA, limit_bytes=METADATA_MAX_BYTES, subject=subject)
    return modules.parse_metadata(data.decode("utf-8", "replace"))


def _filesystems(rootfs: Rootfs, subject: str) -> tuple[str, ...]:
    if rootfs.find(CONFIG) is None:
        return ()
    return built_in(rootfs.read(CONFIG, limit_bytes=CONFIG_MAX_BYTES, subject=subject))


def _kernel(rootfs: Rootfs, store: Store, subject: str) -> Descriptor:
    """The ELF kernel as a blob. The child reads the image from a file of its own, not from the whole layer."""
    entry = rootfs.file(IMAGE, subject=subject)
    with tempfile.TemporaryFile(prefix="spool.", dir=store.tmp) as image, store.writer() as out:
        rootfs.copy(entry, image.write)
        image.flush()
        image.seek(0)
        extract(image, out, subject=subject)
        return out.commit(media_type=KERNEL_ELF)


def base_segment(init: Path) -> bytes:
    """Init and what stands around it; see zonebase.py."""
    return newc.archive(zonebase.entries([newc.file("init", init, mode=0o755)]))


def modules_segment(contents: dict[str, bytes]) -> bytes:
    """The modules by name, unpacked: init has no decompressor and the kernel's is one more option to depend on."""
    entries = [newc.file(_module_path(name), data) for name, data in contents.items()]
    return newc.archive([newc.directory("modules"), *entries])


def _module_path(name: str) -> str:
    return f"modules/{name}.ko"


def holds_more(addons: Addons, in_initrd: Sequence[str]) -> bool:
    """Is there anything in the addons that the initrd has not: another module, firmware, a policy?"""
    known = {addons.modules[name] for name in in_initrd}
    index = [path for path in addons.files if path.startswith("modules/modules.")]
    return bool(set(addons.files) - known - set(index))
