from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import debs
from support.modules import module_of
from support.tools import missing

from pipeline.build import kernel
from pipeline.build.deb import BadDeb, data_tar
from pipeline.build.model import KernelParams, KernelResult
from pipeline.debian import PackageLock
from pipeline.env import Env
from pipeline.fetch import aptsources, debian
from pipeline.store import Store


def module(name: str, *depends: str) -> bytes:
    return module_of(f"name={name}", f"depends={','.join(depends)}", f"alias=test:{name}")


PACKAGE = {
    "boot/vmlinuz-6.1.0-9-test": b"MZ kernel",
    "boot/config-6.1.0-9-test": b"CONFIG_XEN=y\n",
    "boot/System.map-6.1.0-9-test": b"not wanted",
    "lib/modules/6.1.0-9-test/modules.builtin": b"kernel/fs/built-in.ko\n",
    "lib/modules/6.1.0-9-test/kernel/fs/overlay.ko": module("overlay", "base-two", "built_in"),
    "lib/modules/6.1.0-9-test/kernel/lib/base_one.ko": module("base_one"),
    "lib/modules/6.1.0-9-test/kernel/lib/base-two.ko": module("base_two", "base_one"),
    "lib/modules/6.1.0-9-test/kernel/net/unused.ko": module("unused"),
    "lib/modules/6.1.0-9-test/kernel/net/veth.ko.xz": lzma.compress(module("veth"), check=lzma.CHECK_CRC32),
}
RECIPE = {
    "suite": "bookworm",
    "package": "linux-image-test",
    "flavor": "test",
    "modules": {"boot": ["overlay"], "extra": ["veth"]},
}


def lock_for(files: Mapping[str, bytes], directory: Path) -> PackageLock:
    deb, meta = debs.deb_of(files), debs.deb_of({})
    (directory / "kernel.deb").write_bytes(deb)
    real = "linux-image-6.1.0-9-test"
    return debs.lock_of(
        debs.package_of(deb, f"file:{directory}/kernel.deb", name=real, version="6.1.50-1"),
        debs.package_of(
            meta, "file:/none", name="linux-image-test", depends=f"{real} (= 6.1.50-1), kmod | module-init"
        ),
        include=("linux-image-test",),
    )


def build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, bytes], store: str = "store"
) -> tuple[Env, KernelResult]:
    env = Env(Store(tmp_path / store))
    monkeypatch.setattr(debian, "_ask_mirror", lambda *_: lock_for(files, tmp_path))
    return env, kernel.run(KernelParams("test", RECIPE, str(tmp_path / "lock.json")), env)


def contents(env: Env, result: KernelResult) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for layer in result.image.layers:
        plain = zlib.decompress(env.store.read(layer.digest), 31)
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            files |= {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]
    return files


def metadata(text: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.decode().splitlines())


def test_a_metapackage_leads_to_an_image_of_four_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env, result = build(tmp_path, monkeypatch, PACKAGE)
    files = contents(env, result)
    assert sorted(files) == ["kernel/addons.squashfs", "kernel/config.gz", "kernel/image", "kernel/metadata"]
    assert files["kernel/image"] == b"MZ kernel"
    assert zlib.decompress(files["kernel/config.gz"], 31) == b"CONFIG_XEN=y\n"
    facts = metadata(files["kernel/metadata"])
    assert facts["KERNEL_ARCH"] == "x86_64"
    assert facts["KERNEL_VERSION"] == "6.1.50"
    assert facts["KERNEL_UNAME_R"] == result.release == "6.1.0-9-test"
    assert facts["KERNEL_BOOT_MODULES"] == '"base_one base-two overlay"'
    assert env.store.tags()["kernel/test"].digest == result.image.manifest.digest


def test_addons_hold_named_modules_and_their_needs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PySquashfsImage import SquashFsImage

    env, result = build(tmp_path, monkeypatch, PACKAGE)
    with SquashFsImage.from_bytes(contents(env, result)["kernel/addons.squashfs"]) as addons:
        files = {item.path: item.read_bytes() for item in addons if item.is_file}
        directories = {item.path for item in addons if item.is_dir}
    modules = sorted(path for path in files if path.endswith(".ko"))
    assert modules == [
        "/modules/kernel/fs/overlay.ko",
        "/modules/kernel/lib/base-two.ko",
        "/modules/kernel/lib/base_one.ko",
        "/modules/kernel/net/veth.ko",
    ]
    assert files["/modules/kernel/net/veth.ko"] == module("veth")
    assert b"kernel/fs/overlay.ko: kernel/lib/base-two.ko kernel/lib/base_one.ko\n" in files["/modules/modules.dep"]
    assert "/firmware" in directories


def test_two_stores_get_the_same_kernel_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = build(tmp_path, monkeypatch, PACKAGE)
    _, second = build(tmp_path, monkeypatch, PACKAGE, store="other")
    assert first == second


@pytest.mark.parametrize("part", ["boot/vmlinuz", "boot/config"])
def test_a_package_without_a_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    files = {name: data for name, data in PACKAGE.items() if not name.startswith(part)}
    with pytest.raises(kernel.BadKernelPackage, match=r"got one without (image|config)"):
        build(tmp_path, monkeypatch, files)


def test_a_package_cut_short_is_refused(tmp_path: Path) -> None:
    deb = debs.deb_of({"boot/vmlinuz-1": bytes(range(256)) * 4000})
    (tmp_path / "x.deb").write_bytes(deb[:-200])
    with pytest.raises(BadDeb, match="x: expected a whole"), data_tar(tmp_path / "x.deb", subject="x") as archive:
        [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(BadDeb, match="expected an ar archive"), data_tar(tmp_path / "x.deb", subject="x"):
        pass


@pytest.mark.parametrize("name", ["debian-cloud", "debian13-cloud"])
@pytest.mark.network
@pytest.mark.slow
def test_debians_kernel_becomes_a_kernel_image(tmp_path: Path, name: str) -> None:
    if missing("apt-get") or not Path(aptsources.KEYRING).is_file():
        pytest.skip("needs apt and Debian's keyring")
    debs.need_mirror()
    env = Env(Store(tmp_path / "store"))
    result = kernel.run(KernelParams(name, kernel.load(name), str(tmp_path / "lock.json")), env)
    files = contents(env, result)
    assert files["kernel/image"][0x202:0x206] == b"HdrS"
    assert b"CONFIG_XEN_PV=y\n" in zlib.decompress(files["kernel/config.gz"], 31)
    assert result.release.endswith("-cloud-amd64")
    assert {"xen-blkfront", "xen-netfront", "squashfs", "overlay"} <= set(result.boot_modules)
    assert len(files["kernel/addons.squashfs"]) < 2 << 20
