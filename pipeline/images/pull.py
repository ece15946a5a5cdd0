"""References into the store under names of their own, and the names away again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline import fetch
from pipeline.env import Env
from pipeline.errors import PipelineError, StoreDamaged
from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.fetch.manifest import Manifest, Platform, parse_document
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.images.names import (
    BUILT,
    PLATFORM,
    PULLED,
    REFERENCE,
    Stored,
    canonical,
    find,
    last_pulled,
    no_such_name,
    tag_of,
)
from pipeline.oci import CONFIG, DOCKER_CONFIG, Descriptor
from pipeline.store import Store


class NotPulled(PipelineError):
    """A name that belongs to what was built here, not to a pulled image."""


def pull_image(reference: str, env: Env, *, platform: str = "") -> Descriptor:
    """Bring an image, or any other artifact, into the store and name it; see names.py. Returns its manifest.

    Effects: the name, written only where it is new or names another image than before: a hit writes nothing.
    Raises:  what fetching raises.
    """
    asked = str(Platform.parse(platform or DEFAULT_PLATFORM))
    manifest = bring(reference, env, platform=asked)
    name_image(reference, manifest, env.store, asked)
    return manifest


def name_image(reference: str, manifest: Descriptor, store: Store, platform: str) -> None:
    """Name a manifest of the store by the reference it came by; nothing is written where it has that name."""
    tag = tag_of(reference, platform)
    there = store.tags().get(tag)
    if there is None or there.digest != manifest.digest:
        annotations = {REFERENCE: canonical(reference), PLATFORM: platform, PULLED: _now()}
        store.tag(tag, Descriptor(manifest.media_type, manifest.digest, manifest.size_bytes, annotations))


def bring(reference: str, env: Env, *, platform: str = "") -> Descriptor:
    """Everything a reference names into the store, be it an image or another artifact; returns the manifest."""
    asked = platform or DEFAULT_PLATFORM
    try:
        return fetched(reference, env, platform=asked).manifest
    except BadImage:
        from pipeline.fetch.artifact import fetch_artifact
        from pipeline.fetch.documents import documents

        if documents(fetch.FetchParams(reference, asked), env).manifest.config.media_type in (CONFIG, DOCKER_CONFIG):
            raise  # an image, and wrong
        return fetch_artifact(reference, env, platform=asked)


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
    """An image of the store as fetching gives it. Raises NoSuchImage, BadImage, StoreDamaged where it lacks blobs."""
    asked = platform or stored.platform or DEFAULT_PLATFORM
    try:
        return fetch.run(fetch.FetchParams(f"oci:{env.store.root}@{stored.manifest.digest}", asked), env)
    except NoSuchImage as error:
        gone = [blob for blob in _blobs(stored, env.store) if not env.store.has(blob)]
        if not gone:
            raise
        origin = stored.manifest.annotations.get(REFERENCE, "")
        hint = f"zone image pull {origin} brings it again" if origin else "build it again"
        raise StoreDamaged(
            stored.subject, expected="all of its blobs", got=f"no {gone[0].digest}", hint=hint
        ) from error


def _blobs(stored: Stored, store: Store) -> list[Descriptor]:
    if not store.has(stored.manifest):
        return [stored.manifest]
    content = store.read(stored.manifest.digest)
    document = parse_document(content, media_type=stored.manifest.media_type, subject=stored.subject)
    return [document.config, *document.layers] if isinstance(document, Manifest) else []


def image_of(text: str, env: Env, *, platform: str = "") -> fetch.FetchResult:
    """The image a user's words mean, its blobs in the store: a name, a digest, or a reference."""
    stored = find(text, env.store, platform)
    return fetched(text, env, platform=platform) if stored is None else stored_image(stored, env, platform=platform)


def untag(texts: Sequence[str], store: Store) -> list[str]:
    """Take pulled images' names away, by digest all names of an image; returns them. The blobs go with the next gc.

    Effects: none where one of the texts is refused.
    Raises:  NoSuchImage with near names, NotPulled, AmbiguousName, BadReference.
    """
    names = list(dict.fromkeys(name for text in texts for name in _names(text, store)))
    for name in names:
        store.untag(name)
    return names


def _names(text: str, store: Store) -> list[str]:
    stored = find(text, store) or last_pulled(text, store)
    names = [] if stored is None else [stored.name]
    if stored is not None and text.startswith(("sha256:", "sha512:")):
        names = sorted(tag for tag, entry in store.tags().items() if entry.digest == stored.manifest.digest)
    if not names:
        raise no_such_name(text, store)
    for name in names:
        if name.startswith(BUILT):
            kind, _, rest = name.partition("/")
            task = "bundle zone=" + rest if kind == "zones" else f"{kind}:{rest}"
            raise NotPulled(f"image {name}", expected="one that was pulled", got=f"what ./doit {task} made")
    return names


def _now() -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
