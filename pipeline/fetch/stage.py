"""The steps of fetching: reference, manifest of the platform, config, layers; each blob verified into the store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pipeline.env import Env, cached
from pipeline.errors import DigestMismatch
from pipeline.fetch.errors import BadImage, NoSuchImage, RegistryError
from pipeline.fetch.http import Patience
from pipeline.fetch.layout import LayoutSource
from pipeline.fetch.manifest import Manifest, Platform, choose, diff_ids, parse_document
from pipeline.fetch.model import FetchParams, FetchResult
from pipeline.fetch.reference import LayoutReference, RecipeReference, Reference, RegistryReference, parse
from pipeline.fetch.registry import RegistrySource
from pipeline.oci import Descriptor, Digest
from pipeline.recipe import UnknownName, maker_of
from pipeline.store import BlobWriter, Store, check_digest

VERSION = 1
WORKERS = 4
NESTING_MAX = 4  # index in index


class Source(Protocol):
    """Where an image comes from."""

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, str]:
        """Bytes and media type of a manifest or index."""

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        """Write a blob's bytes."""


def run(params: FetchParams, env: Env, *, patience: Patience | None = None) -> FetchResult:
    """Bring an image into the store.

    An image named by digest whose blobs are there needs no network; one named by tag needs one request.
    Raises:  BadReference, NoSuchImage, BadImage, BadDocument, RegistryError, DigestMismatch.
    """
    reference = parse(params.reference)
    platform = Platform.parse(params.platform)
    with contextlib.ExitStack() as stack:
        source, found, data = _resolve(reference, env, patience, stack)
        result = cached(
            env,
            FetchResult,
            stage="fetch",
            version=VERSION,
            params={"platform": str(platform)},
            inputs={"manifest": str(found.digest)},
            build=lambda: _fetch(str(reference), source, found, data, platform, env),
        )
    return replace(result, reference=str(reference))


# -- where it comes from -----------------------------------------------------------------------------------------------


class _Registry:
    """A RegistrySource that refuses to open a connection when offline."""

    def __init__(self, reference: RegistryReference, offline: bool, patience: Patience | None) -> None:
        self._reference, self._offline = reference, offline
        self._source = RegistrySource(reference, patience=patience)
        self.close = self._source.close

    def by_name(self, name: str) -> tuple[bytes, str]:
        """Bytes and media type of a tag's manifest."""
        self._check_online()
        return self._source.manifest(name, subject=str(self._reference))

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, str]:
        return self.by_name(str(descriptor.digest))

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        self._check_online()
        self._source.copy(descriptor, writer, advance, subject)

    def _check_online(self) -> None:
        if self._offline:
            raise RegistryError(
                str(self._reference), expected="the image in the store, being offline", got="parts of it at most"
            )


def _resolve(
    reference: Reference, env: Env, patience: Patience | None, stack: contextlib.ExitStack
) -> tuple[Source, Descriptor, bytes | None]:
    """The source, the manifest or index the reference names, and its bytes where they came with the name."""
    if isinstance(reference, RecipeReference):
        layout = LayoutSource(env.store.root, subject=str(reference))
        return layout, _recipe(reference, env.store), None
    if isinstance(reference, LayoutReference):
        layout = LayoutSource(Path(os.path.abspath(reference.directory)), subject=str(reference))
        return layout, layout.resolve(reference.tag, reference.digest), None
    registry = _Registry(reference, env.offline, patience)
    stack.callback(registry.close)
    if reference.digest is not None:
        return registry, Descriptor("", reference.digest, -1), None
    data, media_type = registry.by_name(reference.tag)
    return registry, Descriptor(media_type, Digest.of(data), len(data)), data


def _recipe(reference: RecipeReference, store: Store) -> Descriptor:
    """What a recipe made. Raises NoSuchImage."""
    tags = store.tags()
    for kind in ("recipe", "kernel"):
        if (found := tags.get(f"{kind}/{reference.name}")) is not None:
            return found
    try:
        hint = f"./doit {maker_of(reference.name)} makes it"
    except UnknownName as error:
        hint = error.hint
    raise NoSuchImage(str(reference), expected=f"recipe/{reference.name} in the store", got="none", hint=hint)


# -- bringing it in ----------------------------------------------------------------------------------------------------


def _fetch(
    subject: str, source: Source, found: Descriptor, data: bytes | None, platform: Platform, env: Env
) -> FetchResult:
    manifest, descriptor = _manifest(subject, source, found, data, platform, env.store)
    stop = threading.Event()
    config = _blob(source, manifest.config, env, f"config of {subject}", stop)
    ids = diff_ids(env.store.read(config.digest), manifest, platform, subject=subject)
    numbered = list(enumerate(manifest.layers, 1))
    pool = ThreadPoolExecutor(max_workers=WORKERS)
    try:
        waiting = {
            layer.digest: pool.submit(_blob, source, layer, env, f"layer {number}/{len(numbered)} of {subject}", stop)
            for number, layer in reversed(numbered)
        }
        for done in as_completed(waiting.values()):
            done.result()  # the first failure, whichever layer it is of
        layers = tuple(waiting[layer.digest].result() for layer in manifest.layers)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return FetchResult(subject, descriptor, config, layers, ids)


def _manifest(
    subject: str, source: Source, found: Descriptor, data: bytes | None, platform: Platform, store: Store
) -> tuple[Manifest, Descriptor]:
    """Follow indexes to the platform's manifest; every document is verified and stored."""
    for _ in range(NESTING_MAX):
        content, media_type = (data, found.media_type) if data is not None else source.manifest(found)
        _check(f"manifest of {subject}", found, content)
        document = parse_document(content, media_type=found.media_type or media_type, subject=f"manifest of {subject}")
        stored = store.put(content)
        if isinstance(document, Manifest):
            return document, replace(stored, media_type=document.media_type)
        found, data = choose(document, platform, subject=subject), None
    raise BadImage(subject, expected=f"at most {NESTING_MAX} indexes inside each other", got="more")


def _check(subject: str, expected: Descriptor, data: bytes) -> None:
    digest = Digest(expected.digest.algorithm, hashlib.new(expected.digest.algorithm, data).hexdigest())
    size = len(data) if expected.size_bytes < 0 else expected.size_bytes
    check_digest(subject, Descriptor(expected.media_type, expected.digest, size), digest, len(data))


class _Stopped(Exception):
    """Another blob has failed; this one is no longer wanted."""


def _blob(source: Source, descriptor: Descriptor, env: Env, subject: str, stop: threading.Event) -> Descriptor:
    """One blob, from the store or the source. Two processes that want it fetch it once."""
    clean = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size_bytes)
    with env.store.lock(f"blob-{descriptor.digest.hex}"):
        if env.store.has(descriptor) and env.store.verify(descriptor.digest):
            return clean
        with (
            env.store.writer(descriptor.digest.algorithm) as writer,
            env.progress.bar(subject, total=descriptor.size_bytes) as bar,
        ):

            def advance(amount: int) -> None:
                if stop.is_set():
                    raise _Stopped
                bar.advance(amount)

            source.copy(descriptor, writer, advance, subject)
            try:
                writer.commit(expected=descriptor, subject=subject)
            except DigestMismatch as error:
                came = f"{writer.size_bytes} of {descriptor.size_bytes} bytes came; run again"
                raise DigestMismatch(error.subject, expected=error.expected, got=error.got, hint=came) from None
    return clean
