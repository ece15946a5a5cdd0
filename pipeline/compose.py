"""A zone's bundle from its spec in one call: the stages dodo.py has as tasks, in the same order, each remembered.

The graph writes a result file for every task and shows what it does; here a stage that has nothing to do is one lookup
in the store. `zone run` makes its bundles this way.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.assemble import stage as assemble
from pipeline.assemble.model import AssembleParams, Wanted
from pipeline.bundle import stage as bundle
from pipeline.bundle.model import BundleResult
from pipeline.bundle.spec import ZoneSpec
from pipeline.env import Env, healing
from pipeline.extension.model import ExtensionResult
from pipeline.fetch.model import FetchResult
from pipeline.fetch.reference import RecipeReference, RegistryReference, parse
from pipeline.initrd import stage as initrd
from pipeline.initrd.model import InitrdParams, InitrdResult
from pipeline.recipe import PROJECT, UnknownName, maker_of
from pipeline.squash import stage as squash
from pipeline.squash.model import SquashParams
from pipeline.unpack import stage as unpack
from pipeline.unpack.model import UnpackParams, UnpackResult


def compose(spec: ZoneSpec, env: Env, *, pull: str = "missing") -> BundleResult:
    """Make everything a zone boots from, and its bundle, which gets no name: nothing but what runs from it keeps it.

    pull:    missing: a tag means what it did when it was last pulled; always: what it means now; never: no network.
    Raises:  what the stages raise.
    """
    return healing(env, lambda: _compose(spec, env, pull))


def initrd_of(reference: str, env: Env, *, pull: str = "missing") -> InitrdResult:
    """Make the initrd for a kernel image, or find it made; the rest is as for `compose`."""
    return healing(env, lambda: _kernel(reference, env, pull))


def _compose(spec: ZoneSpec, env: Env, pull: str) -> BundleResult:
    fetched = image(spec.image, env, pull)
    tree = _tree(fetched, env)
    kernel = _kernel(spec.kernel, env, pull)
    extensions = [_extension(choice.image, env, pull) for choice in spec.extensions]
    wanted = Wanted(spec.name, spec.image, spec.kernel, spec.extensions, spec.modules)
    assembled = assemble.run(AssembleParams.of(wanted, kernel, tree, *extensions), env)
    squashed = squash.run(SquashParams(tree), env)
    return bundle.run_unnamed(bundle.BundleParams(spec, fetched, tree, squashed, kernel, assembled), env)


def image(reference: str, env: Env, pull: str) -> FetchResult:
    """An image's blobs in the store; one that a recipe makes is made, or found made, first."""
    from pipeline.images.names import PREFIX, SCHEME, find
    from pipeline.images.pull import fetched, image_of, pull_image

    if reference.startswith("recipe:"):
        named = parse(reference)
        assert isinstance(named, RecipeReference)
        make(named.name, env)
        return fetched(reference, env)
    # Written out, docker:// asks the registry; without it the store is looked at first.
    bare = reference.removeprefix(SCHEME)
    known = find(bare, env.store)
    if known is None or (pull == "always" and known.name.startswith(PREFIX)):
        reference = SCHEME + bare if isinstance(parse(bare), RegistryReference) else bare
        pull_image(reference, env)  # under its name: the next run finds it
        return fetched(reference, env)
    return image_of(bare, env)


def make(name: str, env: Env) -> None:
    """Build what a recipe of this checkout names, or find it built. Without the recipe the store may still have it."""
    from pipeline.build import image as images
    from pipeline.build import kernel
    from pipeline.build.model import ImageParams, KernelParams

    lock = str(_locks(env) / f"{name}.json")
    try:
        maker = maker_of(name)
    except UnknownName:
        if {f"recipe/{name}", f"kernel/{name}"} & env.store.tags().keys():
            return
        raise
    if maker.startswith("kernel:"):
        kernel.run(KernelParams(name, kernel.load(name), lock), env)
    else:
        images.run(ImageParams(name, images.load(name), lock), env)


def _locks(env: Env) -> Path:
    """Where package locks are kept: with the checkout, so that the graph and this build the same."""
    return PROJECT / "build" / "lock" if (PROJECT / "dodo.py").exists() else env.store.root / "package-locks"


def _tree(fetched: FetchResult, env: Env) -> UnpackResult:
    return unpack.run(UnpackParams(fetched, limits=env.config.limits), env)


def _kernel(reference: str, env: Env, pull: str) -> InitrdResult:
    from pipeline.build import init
    from pipeline.build.model import InitParams

    made = init.run(InitParams("init", init.load(), str(_locks(env) / "os-init.json")), env)
    return initrd.run(InitrdParams(_tree(image(reference, env, pull), env), made), env)


def _extension(reference: str, env: Env, pull: str) -> ExtensionResult:
    from pipeline.extension import stage as extension
    from pipeline.extension.model import ExtensionParams

    fetched = image(reference, env, pull)
    return extension.run(ExtensionParams(fetched, _tree(fetched, env)), env)
