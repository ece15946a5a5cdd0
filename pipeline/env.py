"""What a stage cannot make itself, and the one way every stage remembers its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from pipeline.cachekey import action_key
from pipeline.config import Config, load_config
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store

T = TypeVar("T")


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
    """

    store: Store
    progress: Progress = field(default_factory=Progress)
    offline: bool = False
    config: Config = field(default_factory=Config)
    remote: RemoteCache | None = None


def open_env(progress: Progress, *, offline: bool = False, cache: str = "") -> Env:
    """The Env of a command: the user's store, settings, and remote cache.

    cache:   `docker://host/repository`, instead of the one the config file names.
    Raises:  BadConfig, BadModel, BadReference.
    """
    config = load_config()
    if cache:
        config = replace(config, cache=replace(config.cache, remote=cache))
    return Env(Store(), progress, offline, config)


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
    """Are all blobs a result names there and unaltered? Hashes every one of them."""
    return all(store.has(item) and store.verify(item.digest) for item in descriptors_in(result))


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
    """The remembered result of this action, or that of `build()`, which is then remembered.

    Two processes that want the same thing make it once: the second waits for the lock and finds it done.
    """
    key = action_key(stage, version, params=params, inputs=inputs, tools=tools)
    if (result := _remembered(env.store, cls, key)) is not None:
        return result
    with env.store.lock(key):
        if (result := _remembered(env.store, cls, key)) is not None:
            return result
        result = build()
        env.store.put_result(key, to_json(result))
        return result


def _remembered(store: Store, cls: type[T], key: str) -> T | None:
    document = store.result(key)
    if document is None:
        return None
    try:
        result = from_json(cls, document)
    except Exception:
        return None  # written by another version, or damaged: the build makes it anew
    return result if intact(store, result) else None
