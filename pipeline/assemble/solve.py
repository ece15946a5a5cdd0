"""Which extensions fit a zone and each other, and in which order they are merged."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.assemble.errors import Misfit
from pipeline.extension.model import ExtensionKind, ExtensionResult
from pipeline.zonebase import ZONE_ABI

ARCHITECTURE = "amd64"  # of every zone there is: the kernel's ELF file is checked to be x86-64


def solve(extensions: Sequence[ExtensionResult], *, release: str, zone: str) -> list[int]:
    """The indices of the extensions in the order to merge them: what one requires comes before it, then by the
    `order` of each, then as the spec lists them.

    release: of the zone's kernel, "" when it does not say.
    Raises:  Misfit naming both sides.
    """
    for extension in extensions:
        _fits(extension, release, zone)
    inits = [extension.reference for extension in extensions if extension.facts.kind is ExtensionKind.INIT]
    if len(inits) > 1:
        raise Misfit(f"zone {zone}", expected="one extension of the kind init", got=" and ".join(inits))
    _refuse_conflicts(extensions, zone)
    needs = [_needs(index, extensions, zone) for index in range(len(extensions))]
    order: list[int] = []

    def visit(index: int, above: tuple[int, ...]) -> None:
        if index in order:
            return
        if index in above:
            circle = " > ".join(extensions[at].reference for at in (*above[above.index(index) :], index))
            raise Misfit(f"zone {zone}", expected="extensions that do not require each other in a circle", got=circle)
        for need in needs[index]:
            visit(need, (*above, index))
        order.append(index)

    for index in sorted(range(len(extensions)), key=lambda index: (extensions[index].facts.order, index)):
        visit(index, ())
    return order


def _fits(extension: ExtensionResult, release: str, zone: str) -> None:
    facts, subject = extension.facts, f"zone {zone}: extension {extension.reference}"
    if facts.abi != ZONE_ABI:
        raise Misfit(subject, expected=f"one made for zone ABI {ZONE_ABI}", got=f"one for {facts.abi}")
    if facts.arch not in (ARCHITECTURE, "any"):
        raise Misfit(subject, expected=f"one for {ARCHITECTURE}", got=f"one for {facts.arch}")
    if facts.kind is ExtensionKind.MODULES and facts.kernel_release != release:
        expected = f"modules for the zone's kernel {release}" if release else "a kernel that says its release"
        raise Misfit(subject, expected=expected, got=f"modules for {facts.kernel_release}")


def _refuse_conflicts(extensions: Sequence[ExtensionResult], zone: str) -> None:
    for one in extensions:
        for other in extensions:
            both = [name for name in one.facts.conflicts if name in other.facts.provides]
            if one is not other and both:
                raise Misfit(
                    f"zone {zone}: extension {one.reference}",
                    expected=f"no {both[0]} beside it",
                    got=f"{other.reference}, which provides it",
                )


def _needs(index: int, extensions: Sequence[ExtensionResult], zone: str) -> list[int]:
    """The others that provide what this one requires; of several the first."""
    found = []
    for name in extensions[index].facts.requires:
        providers = [at for at, other in enumerate(extensions) if name in other.facts.provides]
        if not providers:
            others = ", ".join(other.reference for at, other in enumerate(extensions) if at != index) or "none"
            raise Misfit(
                f"zone {zone}: extension {extensions[index].reference}",
                expected=f"another that provides {name}, which it requires",
                got=others,
                hint="add one to the zone's extensions",
            )
        if index not in providers:
            found.append(providers[0])
    return found
