"""Which modules of a kernel's addons go into the initrd, and in which order they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline import kmodule
from pipeline.addons import Addons, BadAddons

# What a zone needs before its root is there; a kernel may have any of them built in.
BOOT_DRIVERS = ("xen_blkfront", "xen_netfront", "squashfs", "overlay")


def boot_modules(addons: Addons | None, metadata: Mapping[str, str], *, subject: str) -> list[str]:
    """Canonical names in load order: those of KERNEL_BOOT_MODULES, else the boot drivers and what they depend on.

    Raises:  BadAddons for a module that is named and not there; BadModule.
    """
    there = addons.modules if addons else {}
    if "KERNEL_BOOT_MODULES" in metadata:
        names = [kmodule.canonical(name) for name in metadata["KERNEL_BOOT_MODULES"].split()]
        for name in names:
            if name not in there:
                raise BadAddons(
                    f"{subject}: module {name}",
                    expected="it in addons.squashfs, as KERNEL_BOOT_MODULES says",
                    got="none",
                )
        return list(dict.fromkeys(names))
    # One that is no module is built in; a kernel that has it neither way is found out when the zone misses it.
    if addons is None:
        return []
    held = addons

    def needs(name: str, _above: Sequence[str]) -> Sequence[str] | None:
        return kmodule.depends(kmodule.modinfo(held.read(name), subject=name)) if name in there else None

    return kmodule.load_order([name for name in BOOT_DRIVERS if name in there], needs)


def parse_metadata(text: str) -> dict[str, str]:
    """KEY=VALUE lines, values with or without quotes; comments and other lines are left out."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
            found[key.strip()] = value[1:-1] if quoted else value
    return found
