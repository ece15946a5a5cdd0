"""Kernel and initrd of a zone from images in zoned's store, put together by a child."""

from __future__ import annotations

import asyncio
import contextlib
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.extensions import RELEASE, extension_image, module
from support.kernels import kernel_elf
from support.registry import FakeRegistry
from support.tars import Image, Member, image_of, tar_of

from pipeline import newc
from pipeline.bundle.model import INITRD_SEGMENT, Module, ModuleWish
from pipeline.initrd.model import InitrdResult
from pipeline.initrd.stage import base_segment, modules_segment
from pipeline.squashfs import squash_entries
from pipeline.store import Store
from pipeline.tree import Entry, Kind
from runtime.host.images.errors import ImageFault
from runtime.host.images.model import Assembled, AssembleWork, Format, Packed, Platform, PullWork
from runtime.host.images.tasks import ImageTasks
from runtime.host.images.work import empty_root, platform_of

INIT = b"\x7fELFplatform"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with contextlib.closing(FakeRegistry()) as found:
        yield found


def kernel_image(directory: Path) -> Image:
    """In the form of Edera's: an ELF, metadata, addons with two modules."""
    store = Store(directory / "making")
    files = {
        "modules/kernel/loop.ko": module("loop"),
        "modules/kernel/packed.ko.xz": lzma.compress(module("packed"), check=lzma.CHECK_CRC32),
    }
    names = ["", "modules", "modules/kernel", *files]
    entries = [
        (Entry(name.encode(), Kind.FILE, size_bytes=len(files[name])), [files[name]])
        if name in files
        else (Entry(name.encode(), Kind.DIRECTORY, 0o755), [])
        for name in names
    ]
    addons = store.read(squash_entries(store, entries).digest)
    metadata = f"KERNEL_UNAME_R={RELEASE}\nKERNEL_FLAVOR=zone\nKERNEL_BOOT_MODULES=\n".encode()
    tree = {
        "kernel/": None,
        "kernel/image": kernel_elf(),
        "kernel/metadata": metadata,
        "kernel/addons.squashfs": addons,
    }
    return image_of(tar_of(tree))


def platform_in(store: Store, directory: Path) -> Platform:
    (directory / "init").write_bytes(INIT)
    base = store.put(base_segment(directory / "init"), INITRD_SEGMENT)
    modules = store.put(modules_segment({"overlay": module("overlay")}), INITRD_SEGMENT)
    own = InitrdResult(store.put(b"own kernel"), "5.0.0", base, modules, (Module("/modules/overlay.ko"),))
    return platform_of(store, own)


def pulled(tasks: ImageTasks, registry: FakeRegistry, name: str, image: Image) -> str:
    packed = asyncio.run(tasks.do(PullWork(registry.add(name, "v1", image), Format.TAR)))
    assert isinstance(packed, Packed)
    return str(packed.digest)


def names(store: Store, assembled: Assembled, index: int) -> dict[str, object]:
    return {entry.path: entry.data for entry in newc.read(store.read(assembled.initrd[index].digest))}


def test_a_kernel_image_takes_the_platforms_init(tmp_path: Path, registry: FakeRegistry) -> None:
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root)
    platform = platform_in(store, tmp_path)
    kernel = pulled(tasks, registry, "kernel", kernel_image(tmp_path))
    wish = ModuleWish("packed", "debug=1")
    parts = asyncio.run(tasks.do(AssembleWork("one", platform, kernel, modules=(wish,))))
    assert isinstance(parts, Assembled)
    assert store.read(parts.kernel.digest) == kernel_elf()
    assert (parts.release, parts.root) == (RELEASE, platform.root)
    assert names(store, parts, 0)["init"] == INIT
    (late,) = parts.late_modules
    assert (late.path.rpartition("/")[2], late.parameters) == ("packed.ko", "debug=1")
    assert parts.addons is not None
    again = asyncio.run(tasks.do(AssembleWork("one", platform, kernel, modules=(wish,))))
    assert again == parts


def test_an_init_image_takes_the_place_of_the_platforms(tmp_path: Path, registry: FakeRegistry) -> None:
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root)
    own = extension_image({"init": Member("init", b"\x7fELFother", mode=0o755)}, kind="init", phase="initrd")
    init = pulled(tasks, registry, "init", own)
    parts = asyncio.run(tasks.do(AssembleWork("one", platform_in(store, tmp_path), "", init)))
    assert isinstance(parts, Assembled)
    assert names(store, parts, 0)["init"] == b"\x7fELFother"
    assert store.read(parts.kernel.digest) == b"own kernel"
    kernel = pulled(tasks, registry, "kernel", kernel_image(tmp_path))
    without = asyncio.run(tasks.do(AssembleWork("one", None, kernel, init)))
    assert isinstance(without, Assembled)
    assert names(store, without, 0)["init"] == b"\x7fELFother"
    assert without.root == empty_root(store)


@pytest.mark.parametrize("which", ["kernel", "init"])
def test_an_image_of_another_kind_is_refused(tmp_path: Path, registry: FakeRegistry, which: str) -> None:
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root)
    digest = pulled(tasks, registry, "app", image_of(tar_of({"a": b"1"})))
    work = AssembleWork("one", platform_in(store, tmp_path), **{which: digest})
    with pytest.raises(ImageFault) as caught:
        asyncio.run(tasks.do(work))
    assert caught.value.kind == {"kernel": "NoSuchFile", "init": "NotAnExtension"}[which]


def test_a_module_the_kernel_lacks_is_named(tmp_path: Path, registry: FakeRegistry) -> None:
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root)
    kernel = pulled(tasks, registry, "kernel", kernel_image(tmp_path))
    work = AssembleWork("one", platform_in(store, tmp_path), kernel, modules=(ModuleWish("nope"),))
    with pytest.raises(ImageFault, match="nope"):
        asyncio.run(tasks.do(work))
