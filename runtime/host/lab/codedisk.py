"""The code disk: our own code for dom0, as a squashfs whose bytes depend on the code alone.

Which files: all of the runtime that runs in a dom0, the pipeline modules those import (found by reading the imports,
so that no list can go stale), and of other packages what dom0's own Python has not: pyxs, gRPC, protobuf. They come
from where this Python finds them; only what depends on no version of Python goes along.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.cachekey import action_key
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import Descriptor
from pipeline.recipe import PROJECT
from pipeline.squashfs import squash_entries, writer_versions
from pipeline.store import Store
from pipeline.tree import Entry, Kind
from runtime.host.lab.errors import LabUnfit

VERSION = 3
MEDIA_TYPE = "application/vnd.zonewright.code.v1+squashfs"
RUNTIME = (
    "runtime/*",
    "runtime/boot/**/*",
    "runtime/net/**/*",
    "runtime/share/**/*",
    "runtime/host/**/*",
    # The protocol both ends of the agent channel speak.
    "runtime/init/__init__.py",
    "runtime/init/channel/**/*",
)
NOT_IN_DOM0 = ("runtime/host/lab",)
# Of these, all that they lead to runs in a dom0, imports inside functions too; but for what needs a checkout or keys.
WHOLE = ("runtime/host/images/work.py", "pipeline/initrd/bzimage.py")
NOT_WHOLE = ("pipeline/remote/", "pipeline/build/", "pipeline/fetch/apt", "pipeline/fetch/deb")
SUFFIXES = (".py", ".json")
# Package -> its files. multidict has compiled parts for one Python each, and does the same without; protobuf's one
# compiled part is for the stable ABI, hence for every Python >= 3.10.
PACKAGES = {
    "pyxs": ("*.py",),
    "grpclib": ("*.py", "encoding/*.py"),
    "h2": ("*.py",),
    "hpack": ("*.py",),
    "hyperframe": ("*.py",),
    "multidict": ("*.py",),
    "google.protobuf": ("*.py", "internal/*.py", "pyext/*.py"),
    "google._upb": ("*.abi3.so",),
    # What pulling images needs; its compiled libraries are Debian's (os/*.toml).
    "urllib3": ("*.py", "util/*.py", "http2/*.py", "contrib/*.py"),
    "certifi": ("*.py", "cacert.pem"),
    "PySquashfsImage": ("*.py",),
}
COMPRESSION = "lz4"  # the quickest to unpack, as TCG runs it


def code_files(project: Path = PROJECT) -> dict[str, bytes]:
    """Every file of the code disk: path there -> bytes, sorted."""
    files: dict[str, bytes] = {}
    for pattern in RUNTIME:
        for path in project.glob(pattern):
            name = path.relative_to(project).as_posix()
            if path.suffix in SUFFIXES and path.is_file() and not name.startswith(NOT_IN_DOM0):
                files[name] = path.read_bytes()
    for name in pipeline_modules(project, [name for name in files if name.endswith(".py")]):
        files[name] = (project / name).read_bytes()
    for package, patterns in PACKAGES.items():
        files |= _package(package, patterns)
    return dict(sorted(files.items()))


def pipeline_modules(project: Path, sources: Iterable[str]) -> list[str]:
    """The pipeline's files that sources import, and those that these need to be imported.

    Imports inside functions count only in the sources themselves: a leaf imports there what not every user of it has.
    What WHOLE leads to is followed by all of its imports.
    """
    found: dict[str, bool] = {name: True for name in WHOLE if name.startswith("pipeline/")}
    waiting = [(name, True, name in WHOLE) for name in (*sources, *found)]
    while waiting:
        path, everywhere, whole = waiting.pop()
        for module in _imports((project / path).read_bytes(), path, everywhere=everywhere):
            for file in _files_of(project, module):
                into = whole and not file.startswith(NOT_WHOLE)
                if file not in found or (into and not found[file]):
                    found[file] = into
                    waiting.append((file, into, into))
    return sorted(found)


def _imports(source: bytes, path: str, *, everywhere: bool) -> Iterator[str]:
    tree = ast.parse(source, path)
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _files_of(project: Path, module: str) -> Iterator[str]:
    """The files that importing a module of the pipeline runs: its packages, outermost first, then itself."""
    parts = module.split(".")
    if parts[0] != "pipeline":
        return
    for depth in range(1, len(parts) + 1):
        base = "/".join(parts[:depth])
        for candidate in (f"{base}/__init__.py", f"{base}.py"):
            if (project / candidate).is_file():
                yield candidate


def _package(name: str, patterns: Iterable[str]) -> dict[str, bytes]:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # of the package around it
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise LabUnfit(f"Python package {name}", expected="it installed", got="none", hint="run ./doit once")
    directory, base = Path(next(iter(spec.submodule_search_locations))), name.replace(".", "/")
    found = [path for pattern in patterns for path in directory.glob(pattern)]
    if not found:
        raise LabUnfit(f"Python package {name}", expected=f"{' and '.join(patterns)} in it", got=f"none in {directory}")
    return {f"{base}/{path.relative_to(directory).as_posix()}": path.read_bytes() for path in found}


def code_disk(store: Store, files: dict[str, bytes]) -> Descriptor:
    """The squashfs of these files in the store; made once. Raises ToolMissing, ToolFailed, SquashFailed."""
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    key = action_key("lab.code", VERSION, params={}, inputs=digests, tools=writer_versions(COMPRESSION))
    if (remembered := store.result(key)) is not None:
        descriptor = from_json(Descriptor, remembered)
        if store.has(descriptor) and store.verify(descriptor.digest):
            return descriptor
    descriptor = squash_entries(store, entries_of(files), compression=COMPRESSION, media_type=MEDIA_TYPE)
    store.put_result(key, to_json(descriptor))
    return descriptor


def entries_of(files: dict[str, bytes]) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """The files with their directories, parents first: times 0, owner root."""
    directories = {parent for path in files for parent in Path(path).parents}
    for path in sorted([*directories, *map(Path, files)], key=lambda path: path.parts):
        if path in directories:
            yield Entry(b"" if path == Path() else bytes(path), Kind.DIRECTORY, 0o755), ()
        else:
            data = files[path.as_posix()]
            yield Entry(bytes(path), Kind.FILE, 0o644, size_bytes=len(data)), (data,)
