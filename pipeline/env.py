"""What a stage cannot make itself, and the one way every stage remembers its results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.cachekey import action_key
from pipeline.config import Config, load_config
from pipeline.errors import StoreDamaged
from pipeline.jsonmodel import from_json, to_json
from pipeline.layers import Spools
from pipeline.limits import Limits
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.fetch.auth import Credentials

T = TypeVar("T")
SPOOLS_KEPT_BYTES = 2 << 30  # of inflated layers, between the stages of one process
SMALL_BYTES = 256 << 10  # what is hashed faster than anyone notices


class RemoteCache(Protocol):
    """Results that other hosts made. Neither call raises: a cache that fails is a cache that has nothing."""

    def lookup(self, key: str, store: Store, progress: Progress) -> Any | None:
        """The JSON form of the result of this action, every blob it names in the store and verified; or None."""

    def offer(self, key: str, result: Any, blobs: Sequence[Descriptor], store: Store, progress: Progress) -> None:
        """Publish what was built here, where we may."""


@dataclass(frozen=True)
class Env:
    """Handed to `run(params, env)` of every stage; it stops at stage.py, workers take plain values.

    offline: open no socket; what is not in the store is an error.
    spools:  inflated layers that the stages of this process share.
    known:   who we are to a registry host, instead of what docker's config.json says.
    """

    store: Store
    progress: Progress = field(default_factory=Progress)
    offline: bool = False
    config: Config = field(default_factory=Config)
    remote: RemoteCache | None = None
    spools: Spools | None = None
    known: Mapping[str, Credentials] = field(default_factory=dict)


@contextlib.contextmanager
def inflated_layers(env: Env, shared: Spools | None = None, limits: Limits | None = None) -> Iterator[Spools]:
    """Inflated layers for one stage: shared with it, or of this process, or its own and then dropped."""
    if shared is not None:
        yield shared
    elif env.spools is not None:
        try:
            yield env.spools
        finally:
            env.spools.trim(SPOOLS_KEPT_BYTES)
    else:
        with Spools(env.store, limits or env.config.limits) as spools:
            yield spools


def open_env(progress: Progress, *, offline: bool = False, cache: str = "") -> Env:
    """The Env of a command: the user's store, settings, and remote cache.

    cache:   `docker://host/repository`, instead of the one the config file names.
    Raises:  BadConfig, BadModel, BadReference, BadKey.
    """
    config = load_config()
    if cache:
        config = replace(config, cache=replace(config.cache, remote=cache))
    remote = None
    if config.cache.remote and not offline:
        from pipeline.remote.cache import open_cache

        remote = open_cache(config)
    return Env(Store(), progress, offline, config, remote)


def descriptors_in(value: Any) -> Iterator[Descriptor]:
    """Every descriptor in a model, however deep."""
    import dataclasses

    if isinstance(value, Descriptor):
        yield value
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from descriptors_in(getattr(value, item.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from descriptors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from descriptors_in(item)


def intact(store: Store, result: Any) -> bool:
    """Are all blobs a result names there and unaltered? Hashes every one of them; damaged ones are removed."""
    blobs = list(descriptors_in(result))
    store.keep(*(item.digest for item in blobs))
    sound = [store.has(item) and store.verify(item.digest) for item in blobs]  # each: all that is damaged is to go
    return all(sound)


def lost(store: Store, result: Any) -> list[Descriptor]:
    """Which blobs of a result cannot be used, as far as a quick look tells: small ones are hashed, large ones counted.

    What reads a large blob hashes it then, and removes it where it was altered, so that the next look misses it.
    """
    blobs = list(descriptors_in(result))
    store.keep(*(item.digest for item in blobs))
    return [item for item in blobs if not _usable(store, item)]


def _usable(store: Store, blob: Descriptor) -> bool:
    if store.has(blob):
        return blob.size_bytes > SMALL_BYTES or store.verify(blob.digest)
    store.verify(blob.digest)  # one of another size is damaged: out with it
    return False


def cached(
    env: Env,
    cls: type[T],
    *,
    stage: str,
    version: int,
    params: Any,
    inputs: Mapping[str, Any],
    tools: Mapping[str, str] | None = None,
    build: Callable[[], T],
) -> T:
    """The remembered result of this action, or that of another host, or that of `build()`; it is remembered then.

    Two processes that want the same thing make it once: the second waits for the lock and finds it done. A result
    with a lost blob is made again, and the user told so.
    """
    key = action_key(stage, version, params=params, inputs=inputs, tools=tools)
    result, _ = _remembered(env.store, cls, key)
    if result is not None:
        return result
    with env.store.lock(key):
        result, gone = _remembered(env.store, cls, key)
        if result is not None:
            return result
        result = _from_remote(env, cls, key)
        built = result is None
        if result is None:
            result = build()
        env.store.put_result(key, to_json(result))
    for blob in gone:
        what = "damaged" if blob.digest in env.store.removed else "missing"
        env.progress.say(f"store object {blob.digest} was {what}; made again")
    if built and env.remote is not None:
        env.remote.offer(key, to_json(result), list(descriptors_in(result)), env.store, env.progress)
    return result


def healing(env: Env, work: Callable[[], T]) -> T:
    """`work()`, and once more if it came upon a damaged object: that is gone by then, and its maker makes it again."""
    try:
        return work()
    except StoreDamaged as error:
        env.progress.say(f"{error.subject} was damaged; making it again")
        return work()


def _remembered(store: Store, cls: type[T], key: str) -> tuple[T | None, list[Descriptor]]:
    """The local result of an action; or None, and the blobs for want of which it is none."""
    document = store.result(key)
    result = None if document is None else _decoded(cls, document)
    if result is None:
        return None, []
    gone = lost(store, result)
    return (None if gone else result), gone


def _from_remote(env: Env, cls: type[T], key: str) -> T | None:
    if env.remote is None or env.offline:
        return None
    document = env.remote.lookup(key, env.store, env.progress)
    result = None if document is None else _decoded(cls, document)
    return None if result is None or lost(env.store, result) else result


def _decoded(cls: type[T], document: Any) -> T | None:
    try:
        return from_json(cls, document)
    except Exception:
        return None  # written by another version, or damaged: the build makes it anew
