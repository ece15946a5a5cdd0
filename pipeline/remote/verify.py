"""Is what the cache says reproducible? Build again with nothing taken from it, and compare each result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.env import Env
from pipeline.fetch.reference import RecipeReference, parse
from pipeline.oci import Descriptor
from pipeline.pack import pack_image
from pipeline.progress import Progress
from pipeline.recipe import maker_of
from pipeline.remote import statement
from pipeline.remote.cache import RegistryCache
from pipeline.remote.statement import Statement
from pipeline.store import Store


@dataclass
class Verdict:
    """Action keys whose results were made again: those the cache has with the same outputs, with others, or not."""

    same: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


class _Comparing:
    """A remote cache that gives nothing and is given nothing: what is built is held against what it says."""

    def __init__(self, cache: RegistryCache) -> None:
        self._cache, self.verdict = cache, Verdict()

    def lookup(self, key: str, store: Store, progress: Progress) -> Any | None:
        return None

    def offer(self, key: str, result: Any, blobs: Sequence[Descriptor], store: Store, progress: Progress) -> None:
        made = Statement(key, result, statement.closure(store, blobs))
        stated = self._cache.stated(key)
        if stated is None:
            self.verdict.absent.append(key)
        elif statement.differs(stated, made):
            self.verdict.other.append(key)
            progress.say(f"result {key[:12]}: {statement.difference(stated, made)}")
        else:
            self.verdict.same.append(key)


def verify(reference: str, env: Env, cache: RegistryCache, *, locks: str = "") -> Verdict:
    """Build an image, from its recipe where it has one, up to its squashfs, in an empty store that is gone afterwards.

    locks:   the directory of the package locks, for recipes.
    Raises:  what the stages raise; BadStatement and RegistryError where the cache cannot be compared with.
    """
    comparing = _Comparing(cache)
    with env.store.scratch() as directory:
        own = replace(env, store=Store(directory / "store"), remote=comparing)
        parsed = parse(reference)
        if isinstance(parsed, RecipeReference):
            _build(parsed.name, own, locks)
        pack_image(reference, directory / "image", env=own)
    return comparing.verdict


def _build(name: str, env: Env, locks: str) -> None:
    from pipeline.build import image, kernel
    from pipeline.build.model import ImageParams, KernelParams

    lock = f"{locks}/{name}.json"
    if maker_of(name).startswith("kernel:"):
        kernel.run(KernelParams(name, kernel.load(name), lock), env)
    else:
        image.run(ImageParams(name, image.load(name), lock), env)
