"""The steps of assembling a zone: who fits, in which order, who has which path, what is loaded, the addons disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pipeline import kmodule, newc
from pipeline.addons import Addons
from pipeline.assemble.addons import COMPRESSION, intact_path, plain_path, write_addons
from pipeline.assemble.clash import Claim, Claimant, refuse_clashes, segment_claims, tree_claims
from pipeline.assemble.model import AssembleParams, AssembleResult
from pipeline.assemble.modules import Found, LoadLists, extension_modules, load_lists
from pipeline.assemble.solve import solve
from pipeline.bundle.model import BundledExtension
from pipeline.env import Env, cached
from pipeline.extension.model import ExtensionKind, ExtensionResult, Phase
from pipeline.oci import Descriptor
from pipeline.squashfs import writer_versions
from pipeline.store import Store
from pipeline.tree import Entry, Kind, read_tree
from pipeline.zonebase import ADDONS_MOUNT, OVERLAY

VERSION = 1


def run(params: AssembleParams, env: Env) -> AssembleResult:
    """Put a zone's parts together.

    Raises:  Misfit, Clash, NoSuchModule, BadModule, BadAddons, BadArchive, StoreDamaged, SquashFailed, ToolMissing.
    """
    wanted, kernel, store = params.wanted, params.kernel, env.store
    order = solve(params.extensions, release=kernel.release or kernel.vermagic.partition(" ")[0], zone=wanted.zone)
    extensions = [params.extensions[index] for index in order]
    overrides = [wanted.extensions[index].override for index in order]
    with contextlib.ExitStack() as stack:
        addons = None
        # Where nothing is merged and no module asked for, the kernel's addons are taken as they are, unread.
        if kernel.addons is not None and (extensions or wanted.modules):
            path = intact_path(store, kernel.addons, subject="addons")
            addons = stack.enter_context(Addons(path, subject=wanted.kernel))
        lists = _load_lists(params, extensions, overrides, addons)
        base, segments = _segments(params, extensions, overrides, store)
        on_disk = [extension for extension in extensions if extension.facts.phase is Phase.ADDONS]
        disk = _on_disk(addons, params, extensions, overrides, store)
        refuse_clashes(disk, zone=wanted.zone)
        refuse_clashes(_in_workload(disk, params, store), zone=wanted.zone)
        plain = _plain(addons, lists, extensions)
        squashfs = _addons(params, addons, plain, on_disk, env)
    return AssembleResult(
        initrd=(base, kernel.modules_segment, *segments),
        modules=lists.early,
        late_modules=lists.late,
        addons=squashfs,
        extensions=tuple(
            BundledExtension(item.reference, item.manifest, item.facts.kind.value, item.facts.phase.value)
            for item in extensions
        ),
    )


# -- modules -----------------------------------------------------------------------------------------------------------


def _load_lists(
    params: AssembleParams, extensions: list[ExtensionResult], overrides: list[bool], addons: Addons | None
) -> LoadLists:
    wanted, kernel = params.wanted, params.kernel
    boot = {kmodule.canonical(module.path.rpartition("/")[2]): module for module in kernel.modules}
    in_addons = addons.modules if addons else {}
    own = extension_modules(
        extensions,
        overrides,
        in_kernel=lambda name: name in in_addons,
        boot=tuple(boot),
        vermagic=kernel.vermagic,
        wanted=wanted,
    )

    def find(name: str) -> Found | None:
        if name in own:
            return own[name]
        if addons is None or name not in in_addons:
            return None
        depends = kmodule.depends(kmodule.modinfo(addons.read(name), subject=name))
        return Found(f"{ADDONS_MOUNT}/{plain_path(in_addons[name])}", False, depends, wanted.kernel)

    parts = addons.builtin() if addons else frozenset()
    return load_lists(boot, find, own, builtin=lambda name: name in parts, wanted=wanted)


def _plain(addons: Addons | None, lists: LoadLists, extensions: Sequence[ExtensionResult]) -> list[str]:
    """The kernel's compressed modules among those that are loaded late."""
    if addons is None:
        return []
    others = {module.name for extension in extensions for module in extension.modules}
    names = [name for name in lists.late_names if name in addons.modules and name not in others]
    return [name for name in names if plain_path(addons.modules[name]) != addons.modules[name]]


# -- initrd ------------------------------------------------------------------------------------------------------------


def _segments(
    params: AssembleParams, extensions: list[ExtensionResult], overrides: list[bool], store: Store
) -> tuple[Descriptor, list[Descriptor]]:
    """The base and the segments behind the kernel's modules. Raises Clash."""
    wanted, kernel = params.wanted, params.kernel
    base, owner = kernel.base, "the base of every zone"
    claimants, segments = [], []
    for extension, override in zip(extensions, overrides, strict=True):
        if (segment := extension.segment) is None:
            continue
        if extension.facts.kind is ExtensionKind.INIT:
            base, owner = segment, extension.reference
            continue
        segments.append(segment)
        claimants.append(Claimant(extension.reference, _scanned(store, segment), override))
    if claimants:
        first = Claimant(owner, _scanned(store, base))
        second = Claimant(f"kernel {wanted.kernel}", _scanned(store, kernel.modules_segment))
        refuse_clashes([first, second, *claimants], zone=wanted.zone)
    return base, segments


def _scanned(store: Store, segment: Descriptor) -> list[Claim]:
    return segment_claims(newc.scan(intact_path(store, segment, subject="initrd segment")))


# -- addons ------------------------------------------------------------------------------------------------------------


def _on_disk(
    addons: Addons | None,
    params: AssembleParams,
    extensions: list[ExtensionResult],
    overrides: list[bool],
    store: Store,
) -> list[Claimant]:
    """Who has which path on the addons disk."""
    claimants = []
    if addons is not None:
        # A kernel image's overlay is made to replace what an image brings.
        claimants.append(Claimant(f"kernel {params.wanted.kernel}", tree_claims(addons.entries()), override=True))
    for extension, override in zip(extensions, overrides, strict=True):
        if extension.tree is not None:
            claimants.append(Claimant(extension.reference, tree_claims(_names(extension, store)), override))
    return claimants


def _names(extension: ExtensionResult, store: Store) -> Iterator[Entry]:
    assert extension.tree is not None
    yield from read_tree(store, extension.tree)
    for module in extension.modules:
        if module.plain is not None:
            yield Entry(module.path.encode(), Kind.FILE)


def _in_workload(disk: Sequence[Claimant], params: AssembleParams, store: Store) -> list[Claimant]:
    """Who has which path in the workload's root: its image, and what is laid over it."""
    over = []
    for claimant in disk:
        claims = [
            Claim(claim.path.removeprefix(OVERLAY), claim.what, claim.linked)
            for claim in claimant.claims
            if claim.path.startswith(OVERLAY)
        ]
        over += [Claimant(claimant.owner, claims, claimant.override)] if claims else []
    if not over:
        return []
    # An overlay replaces one name of a hard link and leaves the others: the image's links do not matter.
    image = [Claim(claim.path, claim.what) for claim in tree_claims(read_tree(store, params.image.tree))]
    return [Claimant(f"image {params.wanted.image}", image), *over]


def _addons(
    params: AssembleParams, addons: Addons | None, plain: list[str], on_disk: list[ExtensionResult], env: Env
) -> Descriptor | None:
    """The one squashfs; the kernel's own where there is nothing to add to it."""
    if not on_disk and not plain:
        return params.kernel.addons
    kernel = params.kernel.addons
    return cached(
        env,
        Descriptor,
        stage="assemble.addons",
        version=VERSION,
        params={"compression": COMPRESSION, "plain": plain},
        inputs={
            "kernel": str(kernel.digest) if kernel else "",
            "extensions": [
                {
                    "tree": str(extension.tree.digest) if extension.tree else "",
                    "layers": [str(layer.diff_id) for layer in extension.layers],
                    "modules": [f"{module.path} {module.plain.digest}" for module in extension.modules if module.plain],
                }
                for extension in on_disk
            ],
        },
        tools=writer_versions(COMPRESSION),
        build=lambda: write_addons(env.store, addons, plain, on_disk),
    )
