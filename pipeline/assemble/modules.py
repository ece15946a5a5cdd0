"""Which kernel modules a zone loads, from where and in which order: the zone's init only calls the kernel.

What lies in the initrd is loaded first, as long as it needs nothing that does not; the rest once the addons disk is
there, so that a driver finds its firmware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline import kmodule
from pipeline.assemble.errors import Clash, Misfit, NoSuchModule
from pipeline.assemble.model import Wanted
from pipeline.bundle.model import Module
from pipeline.extension.model import ExtensionResult, Phase
from pipeline.zonebase import ADDONS_MOUNT


@dataclass(frozen=True)
class Found:
    """A module file. path: in the zone; early: it is in the initrd."""

    path: str
    early: bool
    depends: tuple[str, ...]
    owner: str


_HINT = "key kernel_options.modules; what is built into the kernel needs no loading"

Find = Callable[[str], Found | None]


@dataclass(frozen=True)
class LoadLists:
    """Modules in load order, and the canonical names of those that are loaded late."""

    early: tuple[Module, ...]
    late: tuple[Module, ...]
    late_names: tuple[str, ...]


def extension_modules(
    extensions: Sequence[ExtensionResult],
    overrides: Sequence[bool],
    *,
    in_kernel: Callable[[str], bool],
    boot: Sequence[str],
    vermagic: str,
    wanted: Wanted,
) -> dict[str, Found]:
    """The modules of all extensions by name, each checked against the kernel.

    in_kernel: has the kernel's image a module of that name? boot: those it loads before there is a disk.
    Raises:    Misfit for another vermagic; Clash for a module that is there twice without `override`.
    """
    found: dict[str, Found] = {}
    for extension, override in zip(extensions, overrides, strict=True):
        early = extension.facts.phase is Phase.INITRD
        for module in extension.modules:
            subject = f"zone {wanted.zone}: module {module.name}"
            if vermagic and module.vermagic != vermagic:
                where = f"{subject} of {extension.reference}"
                raise Misfit(where, expected=f"vermagic {vermagic!r} as {wanted.kernel}", got=repr(module.vermagic))
            other = found[module.name].owner if module.name in found else ""
            other = other or (wanted.kernel if in_kernel(module.name) or module.name in boot else "")
            if other and not override:
                got = f"{other} and {extension.reference}"
                raise Clash(subject, expected="one image that has it", got=got, hint="override = true lets it win")
            if module.name in boot and not early:
                got = f"phase addons of {extension.reference}"
                raise Clash(subject, expected="phase initrd, as it is loaded before there is a disk", got=got)
            path = f"/{module.path}" if early else f"{ADDONS_MOUNT}/{module.path}"
            found[module.name] = Found(path, early, module.depends, extension.reference)
    return found


def load_lists(
    boot: Mapping[str, Module],
    find: Find,
    extensions: Mapping[str, Found],
    *,
    builtin: Callable[[str], bool],
    wanted: Wanted,
) -> LoadLists:
    """What is loaded: the kernel's boot modules in its own order, those of initrd extensions, those the spec names.

    boot:    canonical name -> module, already in order.
    find:    any other module there is.
    builtin: is it a part of the kernel itself?
    Raises:  NoSuchModule, BadModule for a circle.
    """
    parameters = {wish.name: wish.parameters for wish in wanted.modules}
    needed_by = {wish.name: wish.needed_by for wish in wanted.modules}
    known: dict[str, Found] = {}

    def needs(name: str, above: Sequence[str]) -> Sequence[str] | None:
        if name in boot:
            return None
        found = find(name)
        if found is None and builtin(name):
            _refuse_parameters(name, parameters.get(name, ""), wanted)
            return None
        if found is None:
            subject, asked = f"zone {wanted.zone}: module {name}", f"kernel {wanted.kernel} or an extension"
            hint = f"{above[-1]} of {known[above[-1]].owner} needs it" if above else needed_by.get(name) or _HINT
            raise NoSuchModule(subject, expected=f"it in {asked}", got="none", hint=hint)
        known[name] = found
        return found.depends

    first = [name for name, found in extensions.items() if found.early]
    order = kmodule.load_order([*first, *parameters], needs)
    early: dict[str, Module] = {
        name: replace(module, parameters=parameters.get(name, module.parameters)) for name, module in boot.items()
    }
    late: dict[str, Module] = {}
    for name in order:
        module = Module(known[name].path, parameters.get(name, ""))
        ready = known[name].early and not any(need in late for need in known[name].depends)
        (early if ready else late)[name] = module
    return LoadLists(tuple(early.values()), tuple(late.values()), tuple(late))


def _refuse_parameters(name: str, parameters: str, wanted: Wanted) -> None:
    if parameters:
        hint = f"put {name}.{parameters.split()[0]} into kernel_options.cmdline_append"
        subject = f"zone {wanted.zone}: module {name}"
        raise NoSuchModule(subject, expected="a module, to be given parameters", got="a part of the kernel", hint=hint)
