"""Image recipes: Debian packages and a few files become an OCI image, layer by layer, the same bytes every time.

Takes:  ImageParams (a recipe of zones/recipes). Gives: ImageResult, tagged `recipe/<name>`.
Tools:  mmdebstrap, apt, dpkg. Needs: no root (mode unshare wants a subuid range); the mirror, unless all is stored.
        A recipe without a suite is files alone, as extension images are, and needs none of this.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline import recipe as recipes
from pipeline.build import mmdebstrap, roottree
from pipeline.build.layer import Layer, write_layer
from pipeline.build.model import ImageParams, ImageResult
from pipeline.build.ociimage import image_config, store_image
from pipeline.build.roottree import Entry, Root, add, difference, in_order, read_root
from pipeline.debian import PackageLock
from pipeline.env import Env, cached
from pipeline.fetch import debian
from pipeline.oci import TITLE, Descriptor

VERSION = 1
RECIPES = recipes.IMAGES
SCHEMA = RECIPES / "image.schema.json"

# apt prefers usrmerge, the first alternative, which brings all of perl to convert a root that needs no conversion.
ALWAYS = ("usr-is-merged",)

# Of a recipe without packages: nothing in it says another.
_NO_EPOCH, _ARCHITECTURE = 0, "amd64"

_SETTINGS = {
    "env": "Env",
    "entrypoint": "Entrypoint",
    "cmd": "Cmd",
    "workdir": "WorkingDir",
    "user": "User",
    "stop_signal": "StopSignal",
    "labels": "Labels",
}


def load(name: str, *, directory: Path = RECIPES) -> dict[str, Any]:
    """The checked document of a recipe. Raises UnknownName, BadRecipe."""
    return recipes.load(directory, name, kind="image recipe", schema=SCHEMA)


def run(params: ImageParams, env: Env) -> ImageResult:
    """Build the image, or find it built. Raises what fetching packages and mmdebstrap raise."""
    recipe = params.recipe
    packages = {package for layer in recipe["layers"] for package in layer.get("packages", [])}
    if "suite" not in recipe:
        return _files_alone(params, sorted(packages), env)

    def work(lock: PackageLock) -> ImageResult:
        return cached(
            env,
            ImageResult,
            stage="build.image",
            version=VERSION,
            params={"name": params.name, "recipe": recipe},
            inputs={"packages": lock.digests(), "epoch": lock.epoch},
            tools={"mmdebstrap": mmdebstrap.version(), "zlib": zlib.ZLIB_RUNTIME_VERSION},
            build=lambda: _build(params, lock, env),
        )

    result = debian.with_packages(
        env,
        work,
        suite=recipe["suite"],
        include=sorted(packages | set(ALWAYS)),
        essential=True,
        name=params.name,
        path=Path(params.lock_path),
    )
    env.store.tag(result.tag, result.manifest)  # a remembered result may have lost its name to another build
    return result


def _files_alone(params: ImageParams, packages: list[str], env: Env) -> ImageResult:
    """The image of a recipe without a suite: the files of its layers on nothing."""
    if packages:
        subject = f"image recipe {params.name}"
        raise recipes.BadRecipe(subject, expected=f"a suite that has {packages[0]}", got="none", hint="key suite")

    def build() -> ImageResult:
        lower: Root = {}
        layers = []
        for layer in params.recipe["layers"]:
            files = (file_entry(file, _NO_EPOCH) for file in layer.get("files", []))
            root = with_files(lower, {entry.path: entry for entry in files})
            layers.append(write_layer(env.store, difference(lower, root, epoch=_NO_EPOCH)))
            lower = root
        return _image(params, layers, _ARCHITECTURE, _NO_EPOCH, env)

    result = cached(
        env,
        ImageResult,
        stage="build.image",
        version=VERSION,
        params={"name": params.name, "recipe": params.recipe},
        inputs={},
        tools={"zlib": zlib.ZLIB_RUNTIME_VERSION},
        build=build,
    )
    env.store.tag(result.tag, result.manifest)
    return result


def _build(params: ImageParams, lock: PackageLock, env: Env) -> ImageResult:
    recipe = params.recipe
    debs = debian.download(env, lock)
    with env.store.scratch() as scratch:
        roots = _roots(env, lock, debs, recipe, scratch, params.name)
        lower: Root = {}
        layers = []
        with env.progress.bar(f"layers of {params.name}", total=len(roots), unit="layers") as bar:
            for root in roots:
                layers.append(write_layer(env.store, difference(lower, root, epoch=lock.epoch)))
                lower = root
                bar.advance(1)
    return _image(params, layers, lock.architecture, lock.epoch, env)


def _image(params: ImageParams, layers: list[Layer], architecture: str, epoch: int, env: Env) -> ImageResult:
    recipe = params.recipe
    config = image_config(
        layers,
        architecture=architecture,
        epoch=epoch,
        settings=oci_settings(recipe.get("config", {})),
        history=[f"zonewright recipe {params.name}: {layer['name']}" for layer in recipe["layers"]],
    )
    annotations = {TITLE: params.name}
    if "description" in recipe:
        annotations["org.opencontainers.image.description"] = recipe["description"]
    return store_image(env.store, f"recipe/{params.name}", layers, config, annotations)


def _roots(
    env: Env,
    lock: PackageLock,
    debs: Mapping[str, Descriptor],
    recipe: Mapping[str, Any],
    scratch: Path,
    name: str,
) -> list[Root]:
    """The whole root after each layer. mmdebstrap runs once per layer that has packages, two at a time."""
    layers = recipe["layers"]
    wanted = list(ALWAYS)
    jobs: list[tuple[str, list[str]]] = []
    for index, layer in enumerate(layers):
        if index == 0 or layer.get("packages"):
            wanted = [*wanted, *layer.get("packages", [])]
            jobs.append((layer["name"], wanted))

    stop = threading.Event()

    def bootstrap(job: tuple[str, list[str]]) -> Root:
        title, include = job
        tar = mmdebstrap.bootstrap(
            env,
            lock,
            debs,
            variant="essential",
            include=include,
            out_tar=scratch / f"{jobs.index(job)}.tar",
            title=f"root of {name}, layer {title}",
            stop=stop,
        )
        return read_root(tar, exclude=recipe.get("exclude", []))

    with ThreadPoolExecutor(2, "root") as pool:
        try:
            built = iter(list(pool.map(bootstrap, jobs)))
        except BaseException:
            stop.set()  # an interrupt reaches this thread alone: the others' programs must not run on
            raise
    roots: list[Root] = []
    root: Root = {}
    files: Root = {}
    for index, layer in enumerate(layers):
        if index == 0 or layer.get("packages"):
            root = next(built)
        files |= {entry.path: entry for entry in (file_entry(file, lock.epoch) for file in layer.get("files", []))}
        roots.append(with_files(root, files))
    return roots


def file_entry(file: Mapping[str, Any], epoch: int) -> Entry:
    """A file or symbolic link that a recipe gives inline."""
    path = file["path"].strip("/")
    if "link" in file:
        return roottree.symlink(path, file["link"], epoch)
    mode, uid, gid = int(file.get("mode", "0644"), 8), file.get("uid", 0), file.get("gid", 0)
    return roottree.file(path, file["content"].encode(), epoch, mode=mode, uid=uid, gid=gid)


def with_files(root: Mapping[str, Entry], files: Mapping[str, Entry]) -> Root:
    """`root` with files laid over it; parents that are missing become plain directories."""
    merged = dict(root)
    for path, entry in files.items():
        for name in [name for name in merged if name.startswith(f"{path}/")]:
            del merged[name]
        add(merged, [entry])
    return {entry.path: entry for entry in in_order(merged)}


def oci_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's [config] as the image specification spells it."""
    settings = {_SETTINGS[key]: value for key, value in config.items() if key in _SETTINGS}
    if ports := config.get("exposed_ports"):
        settings["ExposedPorts"] = {port: {} for port in ports}
    return settings
