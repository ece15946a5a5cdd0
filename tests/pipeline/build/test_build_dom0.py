"""dom0 images: what goes where in the root, and kernel modules without kmod."""

from __future__ import annotations

import lzma
import tarfile
from pathlib import Path

import pytest
from support.modules import module_of

from pipeline import newc
from pipeline.build import dom0, modinfo
from pipeline.build.roottree import Entry, directory, file, symlink
from pipeline.debian import LockedPackage, PackageLock
from pipeline.recipe import BadRecipe, UnknownName, check


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    directory = tmp_path / "6.1.0"
    (directory / "kernel" / "net").mkdir(parents=True)
    (directory / "modules.builtin").write_text("kernel/fs/built-in.ko\n")
    for name, data in {
        "kernel/net/nf-tables.ko": module_of("depends=nfnetlink,lib", "alias=net-pf-16", "name=nf_tables"),
        "kernel/net/nfnetlink.ko.xz": lzma.compress(module_of("depends=", "name=nfnetlink")),
        "kernel/lib.ko": module_of("depends=built_in,nfnetlink"),
        "kernel/junk.ko": b"no module",
    }.items():
        (directory / name).write_bytes(data)
    return directory


def test_modules_come_after_what_they_need_and_built_in_ones_not_at_all(modules: Path) -> None:
    found = modinfo.closure(["nf_tables", "built_in"], modules)
    assert [item.name for item in found] == ["nfnetlink", "lib", "nf_tables"]
    assert found[0].path == "kernel/net/nfnetlink.ko", "compressed ones are stored plain"
    assert modinfo.read_module(found[0].source) == module_of("depends=", "name=nfnetlink")


def test_index_lists_what_to_load_first_last(modules: Path) -> None:
    index = modinfo.index_files(modinfo.closure(["nf-tables"], modules))
    assert index["modules.alias"] == b"alias net-pf-16 nf_tables\n"
    lines = index["modules.dep"].decode().splitlines()
    assert "kernel/net/nf-tables.ko: kernel/lib.ko kernel/net/nfnetlink.ko" in lines


@pytest.mark.parametrize(("name", "message"), [("junk", "64-bit ELF"), ("none", "module none: expected it")])
def test_bad_and_missing_modules_are_named(modules: Path, name: str, message: str) -> None:
    with pytest.raises(modinfo.BadModule, match=message):
        modinfo.closure([name], modules)


@pytest.mark.parametrize("cut", [10, 63, 80, 120])
def test_truncated_modules_are_refused_not_crashed_on(cut: int) -> None:
    with pytest.raises(modinfo.BadModule):
        modinfo.modinfo(module_of("depends=a")[:cut])


def entry(path: str) -> Entry:
    return file(path, b"x", 0)


def test_unpacked_debs_become_a_merged_usr() -> None:
    names = ["bin/dash", "lib64/ld.so", "usr/bin/python3", "etc/passwd"]
    root = {name: entry(name) for name in names} | {
        "bin": directory("bin", 0),
        "usr/bin": directory("usr/bin", 0),
    }
    merged = dom0.merged_usr(root, 0)
    assert merged["usr/bin/dash"].path == "usr/bin/dash"
    assert merged["usr/lib64/ld.so"].content == b"x"
    assert "bin/dash" not in merged
    for name in dom0.MERGED:
        assert (merged[name].kind, merged[name].linkname) == (tarfile.SYMTYPE, f"usr/{name}")
        assert merged[f"usr/{name}"].is_dir


def test_a_root_that_is_merged_stays_so() -> None:
    root = {"bin": symlink("bin", "usr/bin", 0), "usr/bin/sh": entry("usr/bin/sh")}
    assert dom0.merged_usr(root, 0)["bin"].linkname == "usr/bin"


def test_only_the_wanted_files_of_a_package_are_taken(tmp_path: Path) -> None:
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libx.so.1.0").write_bytes(b"lib")
    (tmp_path / "usr/lib/libx.so.1").symlink_to("libx.so.1.0")
    (tmp_path / "usr/lib/other").write_bytes(b"")
    found = dom0.extracted({"p": tmp_path}, [{"package": "p", "paths": ["usr/lib/libx.so.*"]}], 7)
    assert [(item.path, item.linkname, item.mtime) for item in found] == [
        ("usr/lib/libx.so.1", "libx.so.1.0", 7),
        ("usr/lib/libx.so.1.0", "", 7),
    ]
    with pytest.raises(dom0.BadDom0, match="package p: expected files that match usr/bin/none, got none"):
        dom0.extracted({"p": tmp_path}, [{"package": "p", "paths": ["usr/bin/none"]}], 0)


def lock_of(*names: str) -> PackageLock:
    packages = [LockedPackage(name, "1", "amd64", "f", "0" * 64, 1, "u", "") for name in names]
    return PackageLock("bookworm", (), False, "amd64", 0, tuple(packages))


def test_the_kernel_is_found_behind_the_package_that_follows_it() -> None:
    assert dom0.kernel_package(lock_of("linux-image-amd64", "linux-image-6.1.0-9-amd64")) == "linux-image-6.1.0-9-amd64"
    with pytest.raises(dom0.BadDom0, match="expected one linux-image-VERSION package, got none"):
        dom0.kernel_package(lock_of("linux-image-amd64"))


def test_the_initrd_names_modules_in_load_order(modules: Path) -> None:
    data = dom0.initrd_archive(b"busybox", b"#!init", modinfo.closure(["nf_tables"], modules))
    names = [item.path for item in newc.read(data)]
    assert [name for name in names if name.endswith(".ko")] == [
        "modules/00-nfnetlink.ko",
        "modules/01-lib.ko",
        "modules/02-nf_tables.ko",
    ]
    assert {"init", "bin/busybox"} <= set(names)


def test_every_recipe_is_valid_and_names_files_that_exist() -> None:
    assert {"debian12", "debian13", "debian12-bench"} <= set(dom0.flavours())
    for name in dom0.flavours():
        for item in dom0.load(name)["files"].values():
            assert "source" not in item or (dom0.RECIPES / item["source"]).is_file()


def test_bad_recipes_are_sentences() -> None:
    with pytest.raises(UnknownName, match=r"did you mean .*debian12"):
        dom0.load("debian21")
    with pytest.raises(BadRecipe, match="key suite: expected the code name of a Debian release"):
        check(dom0.load("debian12") | {"suite": "Bookworm 12"}, schema=dom0.SCHEMA, subject="x")
