"""Kernel modules without kmod: what they need, in which order they load, and the index files modprobe reads.

Everything stands in a module's `.modinfo` section as `key=value` strings, so neither depmod nor the running kernel is
asked, and the result is the same on every host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.kmodule import SUFFIX, BadModule, canonical, depends, load_order, modinfo, unpack


@dataclass(frozen=True, slots=True)
class KernelModule:
    """One loadable module: its place below lib/modules/<release>/, always without a compression suffix."""

    name: str
    path: str
    source: Path
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def read_module(path: Path) -> bytes:
    """The plain ELF bytes of a module file. Raises BadModule."""
    return unpack(path.name, path.read_bytes())


def find_modules(directory: Path) -> dict[str, Path]:
    """Module files below lib/modules/<release>, by canonical name."""
    files = sorted(path for path in directory.rglob("*.ko*") if SUFFIX.search(path.name))
    return {canonical(path.name): path for path in files}


def builtin_modules(directory: Path) -> frozenset[str]:
    """Names the kernel has built in (modules.builtin of its package)."""
    lines = (directory / "modules.builtin").read_text().split()
    return frozenset(canonical(PurePosixPath(line).name) for line in lines)


def closure(wanted: Iterable[str], directory: Path) -> list[KernelModule]:
    """The wanted modules and all they need, each after its own needs: the order in which they load.

    Raises:  BadModule for a name that is neither a module nor built in.
    Effects: reads module files. Built-in names are left out. Soft dependencies are not followed: name them.
    """
    files, builtin = find_modules(directory), builtin_modules(directory)
    found: dict[str, KernelModule] = {}

    def needs(name: str, above: Sequence[str]) -> Sequence[str] | None:
        if name not in files:
            if name in builtin:
                return None
            asked = f"needed by {above[-1]}" if above else "named by the recipe"
            raise BadModule(f"module {name}", expected="it in the kernel package", got="none", hint=asked)
        info = modinfo(read_module(files[name]), subject=name)
        path = SUFFIX.sub(".ko", files[name].relative_to(directory).as_posix())
        found[name] = KernelModule(name, path, files[name], depends(info), tuple(info.get("alias", [])))
        return found[name].depends

    return [found[name] for name in load_order(map(canonical, wanted), needs)]


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
