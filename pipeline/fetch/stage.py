"""The steps of fetching: reference, manifest of the platform, config, layers; each blob verified into the store."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.env import Env, cached
from pipeline.errors import DigestMismatch, StoreDamaged
from pipeline.fetch.errors import BadImage
from pipeline.fetch.follow import image_manifest
from pipeline.fetch.manifest import Platform, diff_ids
from pipeline.fetch.model import FetchParams, FetchResult
from pipeline.fetch.reference import parse
from pipeline.fetch.source import Source, resolve
from pipeline.oci import Descriptor, Digest
from pipeline.store import Sink, Store, check_digest

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pipeline.fetch.http import Patience

VERSION = 2
WORKERS = 4

MakeSink = Callable[[Descriptor, Digest], Sink]  # of a layer and its diff_id


def run(
    params: FetchParams, env: Env, *, sink: MakeSink | None = None, patience: Patience | None = None
) -> FetchResult:
    """Bring an image into the store.

    An image named by digest whose blobs are there needs no network; one named by tag needs one request.
    sink:    makes what reads a layer's bytes along while they come. A remembered image asks for none.
    Raises:  BadReference, NoSuchImage, BadImage, BadDocument, RegistryError, DigestMismatch.
    """
    with opened(params, env, patience=patience) as image:
        return bring(image, env, sink=sink)


@dataclass(frozen=True)
class Opened:
    """What a reference named when it was looked at: a manifest or an index, by digest, not yet brought in.

    data: its bytes, where they came with the name.
    """

    reference: str
    platform: Platform
    source: Source
    found: Descriptor
    data: bytes | None


@contextlib.contextmanager
def opened(params: FetchParams, env: Env, *, patience: Patience | None = None) -> Iterator[Opened]:
    """A context with what a reference names now; a tag costs its one request here. Raises as `run`."""
    reference, platform = parse(params.reference), Platform.parse(params.platform)
    with contextlib.ExitStack() as stack:
        source, found, data = resolve(reference, env, patience, stack)
        yield Opened(str(reference), platform, source, found, data)


def bring(image: Opened, env: Env, *, sink: MakeSink | None = None) -> FetchResult:
    """Bring what was opened into the store; see `run`."""
    result = cached(
        env,
        FetchResult,
        stage="fetch",
        version=VERSION,
        params={"platform": str(image.platform)},
        inputs={"manifest": str(image.found.digest)},
        # Without the reference: it may name a directory of this host, and other hosts may read this result.
        build=lambda: replace(
            _fetch(image.reference, image.source, image.found, image.data, image.platform, env, sink), reference=""
        ),
    )
    return replace(result, reference=image.reference)


# -- bringing it in ----------------------------------------------------------------------------------------------------


def _fetch(
    subject: str,
    source: Source,
    found: Descriptor,
    data: bytes | None,
    platform: Platform,
    env: Env,
    make_sink: MakeSink | None,
) -> FetchResult:
    from concurrent.futures import ThreadPoolExecutor, as_completed  # a hit needs none

    manifest, descriptor = image_manifest(subject, source, found, data, platform, env.store)
    stop = threading.Event()
    config = _blob(source, manifest.config, env, f"config of {subject}", stop, None)
    ids = diff_ids(env.store.read(config.digest), manifest, platform, subject=subject)
    total = len(manifest.layers)
    pool = ThreadPoolExecutor(max_workers=WORKERS)
    try:
        waiting: dict[Digest, Future[Descriptor]] = {}
        for number, (layer, diff_id) in reversed(list(enumerate(zip(manifest.layers, ids, strict=True), 1))):
            sink = make_sink(layer, diff_id) if make_sink is not None and layer.digest not in waiting else None
            if layer.digest not in waiting:
                name = f"layer {number}/{total} of {subject}"
                env.config.limits.check_blob(name, layer.size_bytes, BadImage)
                waiting[layer.digest] = pool.submit(_blob, source, layer, env, name, stop, sink)
        for done in as_completed(waiting.values()):
            done.result()  # the first failure, whichever layer it is of
        layers = tuple(waiting[layer.digest].result() for layer in manifest.layers)
    except BaseException:
        stop.set()
        source.stop()  # or a sender that stalls would keep Ctrl-C, or the first failure, waiting
        raise
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return FetchResult(subject, descriptor, config, layers, ids, manifest.annotations, manifest.artifact_type)


class _Stopped(Exception):
    """Another blob has failed; this one is no longer wanted."""


def _blob(
    source: Source, descriptor: Descriptor, env: Env, subject: str, stop: threading.Event, sink: Sink | None
) -> Descriptor:
    """One blob, from the store or the source. Two processes that want it fetch it once."""
    clean = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size_bytes)
    with env.store.lock(f"blob-{descriptor.digest.hex}"):
        if env.store.has(descriptor) and _intact(env.store, descriptor.digest, sink):
            return clean
        with (
            env.store.writer(descriptor.digest.algorithm, sink=sink) as writer,
            env.progress.bar(subject, total=descriptor.size_bytes) as bar,
        ):

            def advance(amount: int) -> None:
                if stop.is_set():
                    raise _Stopped
                bar.advance(amount)

            source.copy(descriptor, writer, advance, subject)
            try:
                check_digest(subject, descriptor, writer.digest, writer.size_bytes)
            except DigestMismatch as error:
                came = f"{writer.size_bytes} of {descriptor.size_bytes} bytes came; run again"
                raise DigestMismatch(error.subject, expected=error.expected, got=error.got, hint=came) from None
            writer.commit(expected=descriptor, subject=subject)
    return clean


def _intact(store: Store, digest: Digest, sink: Sink | None) -> bool:
    """Is a blob of the store what its digest says? The one reading of it that tells gives the sink its bytes."""
    if sink is None:
        return store.verify(digest)
    try:
        store.read_along(digest, sink.write)
    except StoreDamaged:
        sink.restart()
        return False
    sink.finish()
    return True
