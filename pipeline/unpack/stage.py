"""The steps of unpacking: index every layer, merge the indexes, keep the two files that name users."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.env import Env, cached, inflated_layers
from pipeline.jsonmodel import to_json
from pipeline.layers import Layer, LayerPass, Spools
from pipeline.limits import Limits, limit_hint
from pipeline.oci import Descriptor, Digest
from pipeline.rootfs import Rootfs
from pipeline.store import Store
from pipeline.tree import Entry, Kind, read_tree, write_tree
from pipeline.unpack.errors import BadLayer, LimitExceeded
from pipeline.unpack.labels import label_warnings
from pipeline.unpack.merge import Merge
from pipeline.unpack.model import LayerIndex, UnpackParams, UnpackResult
from pipeline.unpack.tar import TarReader

VERSION = 2  # of the merge rules and of the tree document
INDEX_VERSION = 3  # of the tar reader
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
        spools = stack.enter_context(inflated_layers(env, shared, limits))
        bar = stack.enter_context(env.progress.bar("unpack", total=sum(layer.blob.size_bytes for layer in layers)))
        pool = ThreadPoolExecutor(max_workers=WORKERS)
        stack.callback(pool.shutdown, cancel_futures=True)

        def read(layer: Layer) -> tuple[list[Entry], Mapping[str, int]]:
            found = read_layer(layer, limits, env, spools)
            bar.advance(layer.blob.size_bytes)
            return found

        merge = Merge(limits, strict=params.strict)
        warnings = label_warnings(layers, env.store)
        todo, ahead = deque(layers), deque[Future[tuple[list[Entry], Mapping[str, int]]]]()
        for layer in layers:
            while todo and len(ahead) < WORKERS:  # and no more: each is in memory until its turn has come
                ahead.append(pool.submit(read, todo.popleft()))
            entries, warned = ahead.popleft().result()
            merge.add(entries, subject=layer.name)
            warnings.update(warned)
        warnings.update(merge.warnings)
        result = _keep(merge, layers, dict(sorted(warnings.items())), env.store, spools)
    for what, times in result.warnings.items():
        log.warning("%s: %s (%d times)", params.fetch.reference, what, times)
    return result


def _keep(
    merge: Merge, layers: tuple[Layer, ...], warnings: dict[str, int], store: Store, spools: Spools
) -> UnpackResult:
    entries = list(merge.entries())
    tree = write_tree(store, entries)
    spools.trees[tree.digest] = entries  # for the stages to come: what was just written need not be read
    rootfs = Rootfs(store, tree, layers, spools)
    passwd, group = _account_file(rootfs, "etc/passwd"), _account_file(rootfs, "etc/group")
    size_bytes = sum(entry.size_bytes for entry in entries)
    return UnpackResult(tree, layers, len(entries), size_bytes, passwd, group, warnings)


def _account_file(rootfs: Rootfs, path: str) -> Descriptor | None:
    entry = rootfs.find(path)
    if entry is None or entry.kind is not Kind.FILE or entry.size_bytes > ACCOUNTS_MAX_BYTES:
        return None
    return rootfs.store_file(path, media_type="text/plain")


def layer_sinks(spools: Spools, limits: Limits) -> Callable[[Descriptor, Digest], LayerPass]:
    """For `fetch.run`: makes what inflates, verifies and reads a layer while its bytes come; `run` finds it done."""

    def sink(blob: Descriptor, diff_id: Digest) -> LayerPass:
        layer = Layer(blob, diff_id)
        return spools.sink(layer, lambda: _reader(layer, limits))

    return sink


def _reader(layer: Layer, limits: Limits) -> TarReader:
    return TarReader(limits, subject=layer.name)


def read_layer(layer: Layer, limits: Limits, env: Env, spools: Spools) -> tuple[list[Entry], Mapping[str, int]]:
    """One layer's entries and warnings: from the pass that inflated it, from the store where the same tar was read
    before (its blob may have been another), or by a pass over its blob.

    Raises:  BadLayer, BadCompression, LimitExceeded, DigestMismatch, StoreDamaged.
    """
    reader = spools.taken(layer)
    if not isinstance(reader, TarReader):
        reader = None

        def build() -> LayerIndex:
            nonlocal reader
            reader = spools.read(layer, lambda: _reader(layer, limits))
            index = write_tree(env.store, reader.entries)
            return LayerIndex(index, len(reader.entries), dict(reader.warnings))

        found = cached(
            env,
            LayerIndex,
            stage="unpack.index",
            version=INDEX_VERSION,
            params=to_json(limits),
            inputs={"diff_id": str(layer.diff_id)},
            build=build,
        )
        if reader is None:
            return list(read_tree(env.store, found.index)), found.warnings
    return reader.entries, reader.warnings
