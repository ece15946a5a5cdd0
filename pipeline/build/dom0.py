"""dom0 images for the lab: from an os/ recipe to what QEMU boots.

Takes:  Dom0Params (a recipe os/*.toml of kind dom0). Gives: Dom0Result, tagged `os/<name>`.
Tools:  mmdebstrap, apt, dpkg-deb. Needs: no root; the mirror, unless all is stored.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline import newc, tool
from pipeline import recipe as recipes
from pipeline.build import mmdebstrap, modinfo
from pipeline.build.model import Dom0Params, Dom0Result
from pipeline.build.roottree import Entry, Root, add, directory, file, in_order, order, read_root, symlink
from pipeline.build.squashed import write_squashfs
from pipeline.debian import PackageLock
from pipeline.env import Env, cached
from pipeline.errors import PipelineError
from pipeline.fetch import debian
from pipeline.oci import TITLE
from pipeline.squashfs import writer_versions

VERSION = 2
RECIPES = recipes.PROJECT / "os"
SCHEMA = RECIPES / "dom0.schema.json"

ARTIFACT_TYPE = "application/vnd.zonewright.dom0.v1"
ANNOTATION = "dev.zonewright.dom0."
MEDIA_TYPES = {
    "xen": "application/vnd.zonewright.xen.v1+elf",
    "kernel": "application/vnd.zonewright.kernel.v1+bzimage",
    "initrd": "application/vnd.zonewright.initrd.v1+cpio",
    "root": "application/vnd.zonewright.dom0.root.v1+squashfs",
}
MERGED = ("bin", "sbin", "lib", "lib64")
KERNEL_PACKAGE = re.compile(r"linux-image-[0-9][^ ]*(?<!-dbg)")
# Compiled by the Python that will run them: a start of dom0 would else spend seconds on it, as TCG runs it.
COMPILE = "exec python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash /usr/lib/python3.*"
COMPILE_HOOK = ("customize", f"chroot \"$1\" /bin/sh -c '{COMPILE}'")
COMPRESSION = "lz4"  # the quickest to unpack, as TCG runs it
TOOL_TIMEOUT_S = 600.0


class BadDom0(PipelineError):
    """A dom0 recipe that names what its packages do not have."""


def load(name: str) -> dict[str, Any]:
    """The checked document of a recipe. Raises UnknownName, BadRecipe."""
    return recipes.load(RECIPES, name, kind="dom0 recipe", schema=SCHEMA)


def flavours() -> list[str]:
    """The names of all dom0 recipes."""
    import tomllib

    documents = ((path.stem, tomllib.loads(path.read_text())) for path in sorted(RECIPES.glob("*.toml")))
    return [name for name, document in documents if document.get("kind") == "dom0"]


def run(params: Dom0Params, env: Env) -> Dom0Result:
    """Build the dom0 image, or find it built. Raises what fetching packages and mmdebstrap raise, BadDom0."""
    recipe, locks = params.recipe, Path(params.lock_directory)
    parts = [recipe["hypervisor"]["package"], recipe["kernel"]["package"]]
    parts += [item["package"] for item in recipe.get("extract", [])]

    def with_root(lock: PackageLock) -> Dom0Result:
        def with_parts(parts_lock: PackageLock) -> Dom0Result:
            return _cached(params, env, lock, parts_lock)

        return debian.with_packages(
            env,
            with_parts,
            suite=recipe["suite"],
            include=sorted(set(parts)),
            essential=False,
            name=f"{params.name} (Xen and kernel)",
            path=locks / f"os-{params.name}-parts.json",
        )

    result = debian.with_packages(
        env,
        with_root,
        suite=recipe["suite"],
        include=recipe["include"],
        essential=recipe["variant"] == "essential",
        name=f"{params.name} (root)",
        path=locks / f"os-{params.name}.json",
    )
    env.store.tag(f"os/{params.name}", result.manifest)
    return result


def _cached(params: Dom0Params, env: Env, lock: PackageLock, parts_lock: PackageLock) -> Dom0Result:
    recipe = params.recipe
    kernel = kernel_package(parts_lock)
    wanted = {recipe["hypervisor"]["package"], kernel, *(item["package"] for item in recipe.get("extract", []))}
    sources = {
        path: (RECIPES / item["source"]).read_bytes() for path, item in recipe["files"].items() if "source" in item
    }
    sources["init"] = (RECIPES / "dom0" / "initrd-init").read_bytes()
    inputs = {
        "packages": lock.digests(),
        "parts": {name: parts_lock.package(name).sha256 for name in sorted(wanted)},
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in sorted(sources.items())},
        "epoch": lock.epoch,
    }
    return cached(
        env,
        Dom0Result,
        stage="build.dom0",
        version=VERSION,
        params={"name": params.name, "recipe": recipe},
        inputs=inputs,
        tools={"mmdebstrap": mmdebstrap.version(), **writer_versions(COMPRESSION)},
        build=lambda: _build(params, env, lock, parts_lock, kernel, sorted(wanted), sources),
    )


def _build(
    params: Dom0Params,
    env: Env,
    lock: PackageLock,
    parts_lock: PackageLock,
    kernel: str,
    wanted: list[str],
    sources: Mapping[str, bytes],
) -> Dom0Result:
    recipe, epoch = params.recipe, lock.epoch
    debs = debian.download(env, lock)
    parts = debian.download(env, parts_lock, wanted)
    with env.store.scratch() as work:
        trees = {name: _unpack(env.store.checked(parts[name].digest), work / name) for name in wanted}
        tar = mmdebstrap.bootstrap(
            env,
            lock,
            debs,
            variant=recipe["variant"],
            include=recipe["include"],
            hooks=[COMPILE_HOOK] if recipe["variant"] == "extract" else [],
            excludes=mmdebstrap.DOCUMENTATION,
            out_tar=work / "root.tar",
            title=f"{params.name}: root of {len(debs)} packages",
        )
        release, modules = _modules_directory(trees[kernel], kernel)
        initrd = modinfo.closure(recipe["initrd_modules"], modules)
        loadable = modinfo.closure([*recipe["initrd_modules"], *recipe["modules"]], modules)
        root = merged_usr(read_root(tar, exclude=[f"/{pattern}" for pattern in recipe.get("drop", [])]), epoch)
        busybox = _bytes_of(root, "usr/bin/busybox", recipe)
        add(root, extracted(trees, recipe.get("extract", []), epoch))
        add(root, module_entries(release, modules, loadable, epoch))
        add(root, recipe_files(recipe["files"], sources, epoch))
        with env.progress.bar(f"{params.name}: squashfs of {len(root)} files", unit="files"):
            entries = (replace(entry, mtime=epoch) for entry in in_order(root))
            image = write_squashfs(
                env.store, entries, epoch=epoch, compression=COMPRESSION, media_type=MEDIA_TYPES["root"]
            )
        layers = {
            "xen": env.store.put(_hypervisor(trees, recipe), MEDIA_TYPES["xen"]),
            "kernel": env.store.put(_kernel_image(trees[kernel], release), MEDIA_TYPES["kernel"]),
            "initrd": env.store.put(initrd_archive(busybox, sources["init"], initrd), MEDIA_TYPES["initrd"]),
            "root": image,
        }
    xen_version = parts_lock.package(recipe["hypervisor"]["package"]).version
    python_version = lock.package("python3-minimal").version
    versions = {"xen_version": xen_version, "kernel_release": release, "python_version": python_version}
    return Dom0Result(
        flavour=params.name,
        manifest=env.store.put_manifest(
            [replace(item, annotations={TITLE: title}) for title, item in layers.items()],
            artifact_type=ARTIFACT_TYPE,
            annotations={f"{ANNOTATION}{key}": value for key, value in versions.items()} | {TITLE: params.name},
        ),
        xen=layers["xen"],
        kernel=layers["kernel"],
        initrd=layers["initrd"],
        root=layers["root"],
        xen_version=xen_version,
        kernel_release=release,
        python_version=python_version,
    )


def kernel_package(lock: PackageLock) -> str:
    """The package that has the kernel, of the closure of the one that only depends on the newest. Raises BadDom0."""
    names = [item.name for item in lock.packages if KERNEL_PACKAGE.fullmatch(item.name)]
    if len(names) != 1:
        raise BadDom0("kernel", expected="one linux-image-VERSION package", got=", ".join(names) or "none")
    return names[0]


def merged_usr(root: Root, epoch: int) -> Root:
    """The root with /bin, /sbin, /lib and /lib64 as links into /usr, as every Debian now is; unpacked .debs are not."""

    def moved(path: str) -> str:
        return f"usr/{path}" if path.split("/", 1)[0] in MERGED else path

    merged: Root = {}
    for path, entry in root.items():
        if path in MERGED:
            continue
        target = moved(path)
        if target in merged and entry.is_dir:
            continue
        merged[target] = replace(entry, path=target, group=tuple(sorted(map(moved, entry.group), key=order)))
    for name in MERGED:
        merged.setdefault(f"usr/{name}", directory(f"usr/{name}", epoch))
        merged[name] = symlink(name, f"usr/{name}", epoch)
    return merged


def extracted(trees: Mapping[str, Path], rules: Iterable[Mapping[str, Any]], epoch: int) -> list[Entry]:
    """The files of unpacked packages that the rules ask for. Raises BadDom0 for a pattern that matches nothing."""
    found: list[Entry] = []
    for rule in rules:
        tree = trees[rule["package"]]
        paths = {
            path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_symlink() or path.is_file()
        }
        for pattern in rule["paths"]:
            matching = sorted(path for path in paths if fnmatchcase(path, pattern))
            if not matching:
                raise BadDom0(f"package {rule['package']}", expected=f"files that match {pattern}", got="none")
            for path in matching:
                source = paths[path]
                if source.is_symlink():
                    found.append(symlink(path, str(source.readlink()), epoch))
                else:
                    found.append(file(path, source.read_bytes(), epoch, mode=source.stat().st_mode & 0o755))
    return found


def module_entries(release: str, source: Path, modules: Iterable[modinfo.KernelModule], epoch: int) -> list[Entry]:
    """lib/modules/<release> with these modules, uncompressed, and the index files of busybox's modprobe."""
    base = f"usr/lib/modules/{release}"
    modules = list(modules)
    entries = [file(f"{base}/{item.path}", modinfo.read_module(item.source), epoch) for item in modules]
    index = modinfo.index_files(modules) | {"modules.builtin": (source / "modules.builtin").read_bytes()}
    return entries + [file(f"{base}/{name}", data, epoch) for name, data in index.items()]


def recipe_files(files: Mapping[str, Mapping[str, Any]], sources: Mapping[str, bytes], epoch: int) -> list[Entry]:
    """What the recipe puts into the root by itself."""
    entries = []
    for path, item in files.items():
        if "link" in item:
            entries.append(symlink(path, item["link"], epoch))
        elif "source" in item:
            entries.append(file(path, sources[path], epoch, mode=0o755 if item.get("executable") else 0o644))
        else:
            entries.append(directory(path, epoch, mode=0o1777 if path == "tmp" else 0o755))
    return entries


def initrd_archive(busybox: bytes, init: bytes, modules: Iterable[modinfo.KernelModule]) -> bytes:
    """The initrd of dom0: busybox, its script, and modules named so that the shell's order is the load order."""
    entries = [newc.directory(name) for name in ("bin", "dev", "modules")]
    entries += [newc.file("bin/busybox", busybox, mode=0o755), newc.file("init", init, mode=0o755)]
    for number, item in enumerate(modules):
        entries.append(newc.file(f"modules/{number:02d}-{item.name}.ko", modinfo.read_module(item.source)))
    return newc.archive(sorted(entries, key=lambda entry: order(entry.path)))


def _bytes_of(root: Root, path: str, recipe: Mapping[str, Any]) -> bytes:
    entry = root.get(path)
    if entry is None or entry.tar is None:
        raise BadDom0(f"dom0 recipe of {recipe['suite']}", expected=f"a package with /{path}", got="none")
    with open(entry.tar, "rb") as data:
        data.seek(entry.offset)
        return data.read(entry.size_bytes)


def _unpack(deb: Path, directory: Path) -> Path:
    directory.mkdir()
    tool.run(["dpkg-deb", "--extract", deb, directory], timeout_s=TOOL_TIMEOUT_S)
    return directory


def _modules_directory(tree: Path, package: str) -> tuple[str, Path]:
    found = [path for base in ("lib/modules", "usr/lib/modules") for path in sorted((tree / base).glob("*"))]
    if len(found) != 1:
        raise BadDom0(f"package {package}", expected="one directory of kernel modules", got=f"{len(found)}")
    return found[0].name, found[0]


def _hypervisor(trees: Mapping[str, Path], recipe: Mapping[str, Any]) -> bytes:
    package, path = recipe["hypervisor"]["package"], recipe["hypervisor"]["path"]
    try:
        data = gzip.decompress((trees[package] / path).read_bytes())
    except (OSError, EOFError) as error:
        raise BadDom0(f"package {package}", expected=f"the hypervisor, gzipped, as {path}", got=str(error)) from error
    if data[:5] != b"\x7fELF\x01":
        raise BadDom0(f"{path} of {package}", expected="a 32-bit ELF, which QEMU's -kernel takes", got=data[:5].hex())
    return data


def _kernel_image(tree: Path, release: str) -> bytes:
    return (tree / "boot" / f"vmlinuz-{release}").read_bytes()
