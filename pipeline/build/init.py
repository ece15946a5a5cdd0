"""The zone's init: one static program, CPython with runtime/init frozen into it, linked in a root of locked packages.

Takes:  InitParams (the recipe os/init.toml). Gives: InitResult, tagged `os/<name>`.
Tools:  mmdebstrap, apt, dpkg; compiler and Python are those of the locked root, the host's do not matter.
Needs:  no root (mode unshare wants a subuid range); the mirror, unless all is stored.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import recipe as recipes
from pipeline.build import mmdebstrap
from pipeline.build.model import InitParams, InitResult
from pipeline.debian import PackageLock
from pipeline.env import Env, cached
from pipeline.errors import PipelineError
from pipeline.fetch import debian
from pipeline.oci import TITLE, Digest

VERSION = 2
RECIPES = recipes.PROJECT / "os"
SCHEMA = RECIPES / "init.schema.json"
FREEZE = Path(__file__).with_name("freeze.py")
ARTIFACT_TYPE = "application/vnd.zonewright.init.v1"
ELF = "application/vnd.zonewright.init.v1.elf"

# Where the sources lie in the build root: a fixed place, so that no path of this machine gets into the program.
_BUILD = "build"
STAND_INS = "runtime/init/standin/"
_MAX_ELF_BYTES = 64 << 20


class BadProgram(PipelineError):
    """What came out of the build root is not the static program it should be."""


def load(name: str = "init", *, directory: Path = RECIPES) -> dict[str, Any]:
    """The checked document of a recipe. Raises UnknownName, BadRecipe."""
    return recipes.load(directory, name, kind="init recipe", schema=SCHEMA)


def sources(project: Path = recipes.PROJECT) -> dict[str, Path]:
    """What is compiled: path in the build root -> file of the project."""
    files = [project / "runtime" / "__init__.py", *sorted((project / "runtime" / "init").rglob("*.py"))]
    # The one part of the pipeline that a zone has, too: styrolite compiles the filters of bundles.
    files += [project / "pipeline" / "__init__.py", *sorted((project / "pipeline" / "seccomp").glob("*.py"))]
    files += sorted([*(project / "runtime" / "init").glob("*.c"), *(project / "runtime" / "init").glob("*.ld")])
    return {str(file.relative_to(project)): file for file in files} | {FREEZE.name: FREEZE}


def run(params: InitParams, env: Env) -> InitResult:
    """Build the program, or find it built. Raises what fetching packages and mmdebstrap raise, BadProgram."""
    recipe, files = params.recipe, sources()

    def work(lock: PackageLock) -> InitResult:
        return cached(
            env,
            InitResult,
            stage="build.init",
            version=VERSION,
            params={"name": params.name, "recipe": recipe},
            inputs={
                # The names of the packages say nothing the hashes do not, and the mirror's date changes no byte.
                "packages": lock.digests(),
                "sources": {name: Digest.of(path.read_bytes()).hex for name, path in files.items()},
            },
            build=lambda: _build(params, lock, files, env),
        )

    result = debian.with_packages(
        env,
        work,
        suite=recipe["suite"],
        include=recipe["packages"],
        essential=False,
        name=params.name,
        path=Path(params.lock_path),
    )
    env.store.tag(f"os/{params.name}", result.manifest)
    return result


def _build(params: InitParams, lock: PackageLock, files: dict[str, Path], env: Env) -> InitResult:
    debs = debian.download(env, lock)
    with env.store.scratch() as scratch:
        tree = scratch / _BUILD
        for name, path in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tree / name)
        root = mmdebstrap.bootstrap(
            env,
            lock,
            debs,
            variant="extract",
            include=params.recipe["packages"],
            # The variant ends after its extract hooks; what is unpacked is enough to run gcc and Python in.
            hooks=[
                ("extract", f"copy-in {shlex.quote(str(tree))} /"),
                ("extract", compile_script(params.recipe, sorted(files))),
            ],
            out_tar=scratch / "root.tar",
            title="the zone's init",
        )
        elf = env.store.put(check_program(_member(root, f"{_BUILD}/init")), ELF)
    titled = replace(elf, annotations={TITLE: "init"})
    return InitResult(elf, env.store.put_manifest([titled], artifact_type=ARTIFACT_TYPE))


def compile_script(recipe: dict[str, Any], names: list[str]) -> str:
    """The shell script that makes /build/init in the root "$1" and then empties it of the tool chain."""
    python = f"python{recipe['python']}"
    ours = [name for name in names if "/" in name and name[-3:] == ".py" and name != f"{STAND_INS}__init__.py"]
    modules = [f"{_module(name)}=/{_BUILD}/{name}" for name in ours]
    c_files = [f"/{_BUILD}/{name}" for name in names if name.endswith(".c")]
    archive = f"/usr/lib/{python}/config-{recipe['python']}-x86_64-linux-gnu/lib{python}.a"
    freeze = [
        f"/usr/bin/{python}",
        "-I",
        "-S",
        "-B",
        "-X",
        "no_debug_ranges",
        f"/{_BUILD}/{FREEZE.name}",
        f"/{_BUILD}/frozen.c",
    ]
    link = ["/usr/bin/gcc", *recipe["cflags"], f"-ffile-prefix-map=/{_BUILD}=.", f"-I/usr/include/{python}"]
    link += [f"-Wl,-T,/{_BUILD}/{name}" for name in names if name.endswith(".ld")]
    link += ["-o", f"/{_BUILD}/init", *c_files, f"/{_BUILD}/frozen.c", archive, *recipe["libraries"]]
    # HOME is named because gcc and Python look there; LC_ALL because messages are read by people.
    settings = 'PATH=/usr/sbin:/usr/bin HOME=/nonexistent LC_ALL=C SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH"'
    inside = f'env -i {settings} chroot "$1" '
    compile_all = " && ".join(
        [
            inside + shlex.join([*freeze, *modules]),
            inside + shlex.join(link),
            'rm -rf "$1/usr" "$1/lib"* "$1/bin" "$1/sbin"',
        ]
    )
    # Of all that mmdebstrap says, errors begin with E:.
    log_file = f'"$1/{_BUILD}/log"'
    return f"{{ {compile_all}; }} >{log_file} 2>&1 || {{ tail -n 4 {log_file} | sed 's/^/E: /' >&2; exit 1; }}"


def _module(name: str) -> str:
    """The name that a file is imported by; a stand-in has that of the standard module it stands in for."""
    return name.removeprefix(STAND_INS).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _member(tar: Path, name: str) -> bytes:
    with tarfile.open(tar) as archive:
        for member in archive:
            if member.name.removeprefix("./") == name and member.isreg() and member.size <= _MAX_ELF_BYTES:
                file = archive.extractfile(member)
                assert file is not None
                return file.read()
    raise BadProgram("the zone's init", expected=f"/{name} in the build root", got="no such file")


def check_program(data: bytes) -> bytes:
    """Is it a static x86-64 program? Raises BadProgram. Source: ELF-64 object file format; elf.h."""
    if data[:6] != b"\x7fELF\x02\x01" or data[18:20] != b"\x3e\x00":
        raise BadProgram("the zone's init", expected="an x86-64 ELF program", got=repr(data[:20]))
    table = int.from_bytes(data[32:40], "little")
    size, count = (int.from_bytes(data[at : at + 2], "little") for at in (54, 56))
    kinds = {int.from_bytes(data[at : at + 4], "little") for at in range(table, table + size * count, size)}
    if 3 in kinds:  # PT_INTERP
        raise BadProgram("the zone's init", expected="a static program", got="one that wants a dynamic loader")
    return data
