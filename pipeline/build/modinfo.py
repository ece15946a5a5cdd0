"""Kernel modules without kmod: what they need, in which order they load, and the index files modprobe reads.

Everything stands in a module's `.modinfo` section as `key=value` strings, so neither depmod nor the running kernel is
asked, and the result is the same on every host.
"""

from __future__ import annotations

import lzma
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError

SUFFIX = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$")
ELF_MAGIC = b"\x7fELF\x02\x01"
MODULE_LIMIT_BYTES = 64 << 20


class BadModule(PipelineError):
    """A file that is no kernel module this can read, or a module that is asked for and not there."""


@dataclass(frozen=True, slots=True)
class KernelModule:
    """One loadable module: its place below lib/modules/<release>/, always without a compression suffix."""

    name: str
    path: str
    source: Path
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def canonical(name: str) -> str:
    """The name the kernel uses: `xen-netback` and `xen_netback` are one module."""
    return name.replace("-", "_")


def read_module(path: Path) -> bytes:
    """The plain ELF bytes of a module file. Raises BadModule."""
    data = path.read_bytes()
    try:
        if path.name.endswith(".xz"):
            data = lzma.LZMADecompressor(memlimit=256 << 20).decompress(data, MODULE_LIMIT_BYTES)
        elif path.name.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except Exception as error:
        raise BadModule(path.name, expected="a compressed kernel module", got=str(error)) from error
    if not data.startswith(ELF_MAGIC):
        raise BadModule(path.name, expected="a 64-bit ELF file", got=data[:6].hex())
    return data


def modinfo(data: bytes, *, subject: str = "module") -> dict[str, list[str]]:
    """The strings of the .modinfo section, by key, in file order.

    Raises:  BadModule where the section headers lead nowhere.
    Source:  ELF-64 object file format; include/linux/moduleparam.h, __MODULE_INFO.
    """
    try:
        (shoff,) = struct.unpack_from("<Q", data, 40)
        shentsize, shnum, shstrndx = struct.unpack_from("<HHH", data, 58)
        headers = [struct.unpack_from("<IIQQQQ", data, shoff + index * shentsize) for index in range(shnum)]
        names = data[headers[shstrndx][4] :][: headers[shstrndx][5]]
        for name, _type, _flags, _addr, offset, size in headers:
            if names[name : names.index(b"\0", name)] == b".modinfo":
                return _strings(data[offset : offset + size])
    except (struct.error, IndexError, ValueError) as error:
        raise BadModule(subject, expected="ELF section headers", got=str(error)) from error
    raise BadModule(subject, expected="a .modinfo section", got="none")


def _strings(section: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in section.decode("utf-8", "replace").split("\0"):
        key, equals, value = text.partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def find_modules(directory: Path) -> dict[str, Path]:
    """Module files below lib/modules/<release>, by canonical name."""
    files = sorted(path for path in directory.rglob("*.ko*") if SUFFIX.search(path.name))
    return {canonical(SUFFIX.sub("", path.name)): path for path in files}


def builtin_modules(directory: Path) -> frozenset[str]:
    """Names the kernel has built in (modules.builtin of its package)."""
    lines = (directory / "modules.builtin").read_text().split()
    return frozenset(canonical(SUFFIX.sub("", PurePosixPath(line).name)) for line in lines)


def closure(wanted: Iterable[str], directory: Path) -> list[KernelModule]:
    """The wanted modules and all they need, each after its own needs: the order in which they load.

    Raises:  BadModule for a name that is neither a module nor built in.
    Effects: reads module files. Built-in names are left out. Soft dependencies are not followed: name them.
    """
    files, builtin = find_modules(directory), builtin_modules(directory)
    done: dict[str, KernelModule] = {}

    def visit(name: str, needed_by: str) -> None:
        if name in done or (name in builtin and name not in files):
            return
        if name not in files:
            raise BadModule(f"module {name}", expected="it in the kernel package", got="none", hint=needed_by)
        info = modinfo(read_module(files[name]), subject=name)
        depends = tuple(canonical(item) for item in ",".join(info.get("depends", [])).split(",") if item)
        for item in depends:
            visit(item, f"needed by {name}")
        path = SUFFIX.sub(".ko", files[name].relative_to(directory).as_posix())
        done[name] = KernelModule(name, path, files[name], depends, tuple(info.get("alias", [])))

    for name in wanted:
        visit(canonical(name), "named by the recipe")
    return list(done.values())


def index_files(modules: Iterable[KernelModule]) -> dict[str, bytes]:
    """modules.dep and modules.alias, which modprobe reads in their text form where no binary form is there.

    Source:  depmod(8), modules.dep(5): a line lists all needs of a module, the one to load first last.
    """
    by_name = {module.name: module for module in modules}
    dep = [f"{item.path}:" + "".join(f" {path}" for path in _needs(item, by_name)) for item in by_name.values()]
    alias = [f"alias {alias} {item.name}" for item in by_name.values() for alias in item.aliases]
    return {"modules.dep": _text(dep), "modules.alias": _text(alias), "modules.builtin": b"", "modules.order": b""}


def _needs(module: KernelModule, by_name: Mapping[str, KernelModule]) -> list[str]:
    order: list[str] = []

    def visit(item: KernelModule) -> None:
        for name in item.depends:
            if name in by_name and by_name[name].path not in order:
                visit(by_name[name])
                order.append(by_name[name].path)

    visit(module)
    return order[::-1]


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in sorted(lines)).encode()
