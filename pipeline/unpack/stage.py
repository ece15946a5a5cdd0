"""The steps of unpacking: index every layer, merge the indexes, keep the two files that name users."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.env import Env, cached
from pipeline.jsonmodel import to_json
from pipeline.layers import Layer, Spools
from pipeline.limits import Limits, limit_hint
from pipeline.oci import Descriptor
from pipeline.rootfs import Rootfs
from pipeline.store import Store
from pipeline.tree import Entry, Kind, read_tree, write_tree
from pipeline.unpack.errors import BadLayer, LimitExceeded
from pipeline.unpack.labels import label_warnings
from pipeline.unpack.merge import Merge
from pipeline.unpack.model import LayerIndex, UnpackParams, UnpackResult
from pipeline.unpack.tar import TarReader

VERSION = 1  # of the merge rules and of the tree document
INDEX_VERSION = 2  # of the tar reader
WORKERS = 4
ACCOUNTS_MAX_BYTES = 1 << 20

log = logging.getLogger(__name__)


def run(params: UnpackParams, env: Env, spools: Spools | None = None) -> UnpackResult:
    """Merge an image.

    spools:  inflated layers to share with other stages of this process; made and dropped here if None.
    Raises:  BadLayer, BadPath, LimitExceeded, DigestMismatch, StoreDamaged.
    """
    limits = params.limits or env.config.limits
    layers = _layers(params, limits)
    return cached(
        env,
        UnpackResult,
        stage="unpack",
        version=VERSION,
        params={"limits": to_json(limits), "strict": params.strict, "index": INDEX_VERSION},
        inputs={"layers": [[str(layer.blob.digest), str(layer.diff_id)] for layer in layers]},
        build=lambda: _unpack(layers, params, limits, env, spools),
    )


def _layers(params: UnpackParams, limits: Limits) -> tuple[Layer, ...]:
    fetch = params.fetch
    if len(fetch.layers) != len(fetch.diff_ids):
        raise BadLayer(fetch.reference, expected=f"{len(fetch.layers)} diff_ids", got=str(len(fetch.diff_ids)))
    if len(fetch.layers) > limits.layers:
        expected, hint = f"at most {limits.layers} layers", limit_hint("layers")
        raise LimitExceeded(fetch.reference, expected=expected, got=f"{len(fetch.layers)}", hint=hint)
    return tuple(Layer(blob, diff_id) for blob, diff_id in zip(fetch.layers, fetch.diff_ids, strict=True))


def _unpack(
    layers: tuple[Layer, ...], params: UnpackParams, limits: Limits, env: Env, shared: Spools | None
) -> UnpackResult:
    with contextlib.ExitStack() as stack:
        spools = shared or stack.enter_context(Spools(env.store, limits))
        bar = stack.enter_context(env.progress.bar("unpack", total=sum(layer.blob.size_bytes for layer in layers)))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=WORKERS))

        def index(layer: Layer) -> LayerIndex:
            found = index_layer(layer, limits, env, spools)
            bar.advance(layer.blob.size_bytes)
            return found

        merge = Merge(limits, strict=params.strict)
        warnings = label_warnings(layers, env.store)
        for layer, found in zip(layers, pool.map(index, layers), strict=True):
            merge.add(list(read_tree(env.store, found.index)), subject=layer.name)
            warnings.update(found.warnings)
        warnings.update(merge.warnings)
        result = _keep(merge, layers, dict(sorted(warnings.items())), env.store, spools)
    for what, times in result.warnings.items():
        log.warning("%s: %s (%d times)", params.fetch.reference, what, times)
    return result


def _keep(
    merge: Merge, layers: tuple[Layer, ...], warnings: dict[str, int], store: Store, spools: Spools
) -> UnpackResult:
    entries = size_bytes = 0

    def counted() -> Iterator[Entry]:
        nonlocal entries, size_bytes
        for entry in merge.entries():
            entries += 1
            size_bytes += entry.size_bytes
            yield entry

    tree = write_tree(store, counted())
    rootfs = Rootfs(store, tree, layers, spools)
    passwd, group = _account_file(rootfs, "etc/passwd"), _account_file(rootfs, "etc/group")
    return UnpackResult(tree, layers, entries, size_bytes, passwd, group, warnings)


def _account_file(rootfs: Rootfs, path: str) -> Descriptor | None:
    entry = rootfs.find(path)
    if entry is None or entry.kind is not Kind.FILE or entry.size_bytes > ACCOUNTS_MAX_BYTES:
        return None
    return rootfs.store_file(path, media_type="text/plain")


def index_layer(layer: Layer, limits: Limits, env: Env, spools: Spools) -> LayerIndex:
    """One layer's entries, from the store where the same tar was read before (its blob may have been another).

    Raises:  BadLayer, BadCompression, LimitExceeded, DigestMismatch, StoreDamaged.
    """

    def build() -> LayerIndex:
        reader = TarReader(limits, subject=layer.name)
        size_bytes = 0

        def tap(data: bytes) -> None:
            nonlocal size_bytes
            size_bytes += len(data)
            reader.feed(data)

        spools.open(layer, tap=tap)
        reader.finish()
        index = write_tree(env.store, reader.entries)
        return LayerIndex(index, len(reader.entries), size_bytes, dict(reader.warnings))

    return cached(
        env,
        LayerIndex,
        stage="unpack.index",
        version=INDEX_VERSION,
        params=to_json(limits),
        inputs={"diff_id": str(layer.diff_id)},
        build=build,
    )
