"""Kernel recipes: Debian's kernel package becomes a kernel image in the format of Edera's, with few modules.

Takes:  KernelParams (a recipe of kernel/). Gives: KernelResult, tagged `kernel/<name>`.
Tools:  apt, libsquashfs. Needs: no root; the mirror, unless the package is locked and stored.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import recipe as recipes
from pipeline.build import modinfo
from pipeline.build.deb import data_tar
from pipeline.build.layer import write_layer
from pipeline.build.model import KernelParams, KernelResult
from pipeline.build.ociimage import image_config, store_image
from pipeline.build.roottree import Entry, Root, add, directory, file, in_order
from pipeline.build.squashed import write_squashfs
from pipeline.debian import LockedPackage, PackageLock, fields_of
from pipeline.env import Env, cached
from pipeline.errors import PipelineError
from pipeline.fetch import debian
from pipeline.squashfs import writer_versions

VERSION = 2
RECIPES = recipes.KERNELS
SCHEMA = RECIPES / "kernel.schema.json"
ADDONS = "application/vnd.zonewright.addons.v1.squashfs"
COMPRESSION = "zstd-15"  # a few MiB, packed once
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}

# What of the package is wanted; Debian moved modules below usr/ after bookworm.
_WANTED = re.compile(
    r"\./(?:(?P<image>boot/vmlinu[xz]-.+)|(?P<config>boot/config-.+)"
    r"|(?:usr/)?lib/modules/[^/]+/(?P<module>modules\.builtin|kernel/.+\.ko(?:\.xz|\.zst|\.gz)?))"
)


class BadKernelPackage(PipelineError):
    """A package that is no kernel package, or lacks a part of one."""


@dataclass(frozen=True)
class KernelFiles:
    """A kernel package's files: the modules lie below `modules`, as in lib/modules/<release>."""

    release: str
    epoch: int
    image: bytes
    config: bytes
    modules: Path


def load(name: str, *, directory: Path = RECIPES) -> dict[str, Any]:
    """The checked document of a kernel recipe. Raises UnknownName, BadRecipe."""
    return recipes.load(directory, name, kind="kernel", schema=SCHEMA)


def run(params: KernelParams, env: Env) -> KernelResult:
    """Build the kernel image, or find it built. Raises what fetching raises, BadKernelPackage, BadModule."""

    def work(lock: PackageLock) -> KernelResult:
        package = kernel_package(lock, params.recipe["package"])
        return cached(
            env,
            KernelResult,
            stage="build.kernel",
            version=VERSION,
            params={"name": params.name, "recipe": params.recipe},
            inputs={"package": package.sha256},
            tools={**writer_versions(COMPRESSION), "zlib": zlib.ZLIB_RUNTIME_VERSION},
            build=lambda: _build(params, lock, package, env),
        )

    result = debian.with_packages(
        env,
        work,
        suite=params.recipe["suite"],
        include=[params.recipe["package"]],
        essential=False,
        name=params.name,
        path=Path(params.lock_path),
    )
    env.store.tag(result.image.tag, result.image.manifest)
    return result


def kernel_package(lock: PackageLock, name: str) -> LockedPackage:
    """The package with the kernel in it: `name` itself, or the one that `name`, a metapackage, depends on."""
    package = lock.package(name)
    for word in re.split(r"[,|]", fields_of(package.stanza).get("Depends", "")):
        target = word.split("(")[0].strip()
        if target.startswith("linux-image-"):
            return kernel_package(lock, target)
    return package


def _build(params: KernelParams, lock: PackageLock, package: LockedPackage, env: Env) -> KernelResult:
    deb = debian.download(env, lock, [package.name])[package.name]
    wanted = params.recipe["modules"]
    with env.store.scratch() as scratch, env.progress.bar(f"kernel {package.version}", unit="files") as bar:
        files = read_package(env.store.checked(deb.digest), scratch / "modules", subject=package.name)
        boot = modinfo.closure(wanted["boot"], files.modules)
        modules = modinfo.closure([*wanted["boot"], *wanted.get("extra", [])], files.modules)
        bar.advance(len(modules))
        entries = addons_entries(modules, files.epoch)
        addons = write_squashfs(env.store, entries, epoch=files.epoch, compression=COMPRESSION, media_type=ADDONS)
    version = package.version.partition(":")[2] or package.version
    version = version.rpartition("-")[0] or version
    # Load order as modprobe spells it: the name of the file.
    boot_modules = tuple(Path(module.path).stem for module in boot)
    facts = {
        "KERNEL_ARCH": ARCHITECTURES[lock.architecture],
        "KERNEL_VERSION": version,
        "KERNEL_UNAME_R": files.release,
        "KERNEL_FLAVOR": params.recipe["flavor"],
        "KERNEL_CONFIG": f"sha256:{hashlib.sha256(files.config).hexdigest()}",
        "KERNEL_BOOT_MODULES": '"' + " ".join(boot_modules) + '"',
    }
    contents = {
        "kernel/image": files.image,
        "kernel/config.gz": gzip.compress(files.config, 9, mtime=0),
        "kernel/metadata": "".join(f"{key}={value}\n" for key, value in facts.items()).encode(),
        "kernel/addons.squashfs": env.store.read(addons.digest),
    }
    # One layer for each file, as Edera's builds make: another set of modules leaves the kernel's layer as it was.
    layers = []
    for path, data in contents.items():
        root: Root = {}
        add(root, [file(path, data, files.epoch)])
        layers.append(write_layer(env.store, in_order(root)))
    config = image_config(
        layers,
        architecture=lock.architecture,
        epoch=files.epoch,
        settings={},
        history=[f"zonewright kernel {params.name}: /{path}" for path in contents],
    )
    annotations = {
        "dev.edera.kernel.format": "1",
        "dev.edera.kernel.version": version,
        "dev.edera.kernel.flavor": params.recipe["flavor"],
    }
    return KernelResult(
        image=store_image(env.store, f"kernel/{params.name}", layers, config, annotations),
        package=f"{package.name} {package.version}",
        version=version,
        release=files.release,
        flavor=params.recipe["flavor"],
        boot_modules=boot_modules,
    )


def read_package(deb: Path, modules: Path, *, subject: str) -> KernelFiles:
    """Read kernel and configuration of a .deb, and lay its modules down below `modules`. Raises BadKernelPackage."""
    found: dict[str, bytes] = {}
    release, epoch = "", 0
    with data_tar(deb, subject=subject) as archive:
        for member in archive:
            match = _WANTED.fullmatch(member.name)
            if match is None or not member.isreg():
                continue
            file = archive.extractfile(member)
            data = file.read() if file else b""
            if match["module"]:
                if ".." in match["module"].split("/"):
                    raise BadKernelPackage(subject, expected="module paths below lib/modules", got=match["module"])
                target = modules / match["module"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                continue
            found["image" if match["image"] else "config"] = data
            if match["image"]:
                release, epoch = match["image"].partition("-")[2], int(member.mtime)
    missing = sorted({"image", "config"} - set(found)) + (
        [] if (modules / "modules.builtin").is_file() else ["modules"]
    )
    if missing:
        raise BadKernelPackage(subject, expected="a kernel package", got=f"one without {', '.join(missing)}")
    return KernelFiles(release, epoch, found["image"], found["config"], modules)


def addons_entries(modules: Sequence[modinfo.KernelModule], epoch: int) -> list[Entry]:
    """The tree of addons.squashfs: modules/, with the index files modprobe reads, and an empty firmware/."""
    contents = {module.path: modinfo.read_module(module.source) for module in modules} | modinfo.index_files(modules)
    root: Root = {}
    add(root, (directory(path, epoch) for path in ("firmware", "modules")))
    add(root, (file(f"modules/{path}", data, epoch) for path, data in contents.items()))
    return in_order(root)
