"""References into the store under names of their own, and the names away again."""

from __future__ import annotations

from dataclasses import replace

from pipeline import fetch
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch.manifest import Platform
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.images.names import BUILT, PLATFORM, PULLED, REFERENCE, Stored, find, last_pulled, no_such_name, tag_of
from pipeline.oci import Descriptor
from pipeline.store import Store


class NotPulled(PipelineError):
    """A name that belongs to what was built here, not to a pulled image."""


def pull_image(reference: str, env: Env, *, platform: str = "") -> fetch.FetchResult:
    """Bring an image into the store and name it; see names.py.

    Effects: the name, written only where it is new or names another image than before: a hit writes nothing.
    Raises:  what fetching raises.
    """
    asked = str(Platform.parse(platform or DEFAULT_PLATFORM))
    result = fetched(reference, env, platform=asked)
    tag, manifest = tag_of(result.reference, asked), result.manifest
    there = env.store.tags().get(tag)
    if there is None or there.digest != manifest.digest:
        annotations = {REFERENCE: result.reference, PLATFORM: asked, PULLED: _now()}
        env.store.tag(tag, Descriptor(manifest.media_type, manifest.digest, manifest.size_bytes, annotations))
    return result


def fetched(reference: str, env: Env, *, platform: str = "") -> fetch.FetchResult:
    """An image's blobs in the store. Offline, a tag means what it did when it was last pulled.

    Raises:  what fetching raises.
    """
    asked = platform or DEFAULT_PLATFORM
    if env.offline and (kept := last_pulled(reference, env.store, asked)) is not None:
        result = stored_image(kept, env, platform=asked)
        return replace(result, reference=kept.manifest.annotations.get(REFERENCE, kept.subject))
    return fetch.run(fetch.FetchParams(reference, asked), env)


def stored_image(stored: Stored, env: Env, *, platform: str = "") -> fetch.FetchResult:
    """An image of the store as fetching gives it. Raises NoSuchImage, BadImage, StoreDamaged."""
    asked = platform or stored.platform or DEFAULT_PLATFORM
    return fetch.run(fetch.FetchParams(f"oci:{env.store.root}@{stored.manifest.digest}", asked), env)


def image_of(text: str, env: Env, *, platform: str = "") -> fetch.FetchResult:
    """The image a user's words mean, its blobs in the store: a name, a digest, or a reference."""
    stored = find(text, env.store, platform)
    return fetched(text, env, platform=platform) if stored is None else stored_image(stored, env, platform=platform)


def untag(text: str, store: Store) -> list[str]:
    """Take a pulled image's name away, or by digest all of its names; returns them. The blobs go with the next gc.

    Raises:  NoSuchImage with near names, NotPulled, AmbiguousName, BadReference.
    """
    stored = find(text, store)
    if stored is None:
        stored = last_pulled(text, store)
        if stored is None:
            raise no_such_name(text, store)
    names = [stored.name]
    if text.startswith(("sha256:", "sha512:")):
        names = sorted(tag for tag, entry in store.tags().items() if entry.digest == stored.manifest.digest)
    for name in names:
        if name.startswith(BUILT):
            kind, _, rest = name.partition("/")
            task = "bundle zone=" + rest if kind == "zones" else f"{kind}:{rest}"
            raise NotPulled(f"image {name}", expected="one that was pulled", got=f"what ./doit {task} made")
    for name in names:
        store.untag(name)
    if names == [""]:
        raise no_such_name(text, store)
    return names


def _now() -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
