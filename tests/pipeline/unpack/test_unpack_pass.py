"""The one pass over a layer's bytes while they come: what it verifies, and that nothing of a wrong layer is kept."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.registry import FakeRegistry, Fault, fake_registry
from support.tars import image_of, sha256, tar_of, write_layout
from support.unpacking import tree

from pipeline import fetch, squash, task, unpack
from pipeline.env import Env, inflated_layers
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch.http import Patience
from pipeline.layers import Layer, LayerPass, Spools
from pipeline.limits import Limits
from pipeline.oci import Digest
from pipeline.pack import pack_image
from pipeline.store import Store

QUICK = Patience(attempts=3, backoff_s=0.001, wait_max_s=0.01, connect_s=60, read_s=60, deadline_s=240)
NOISE = random.Random(7).randbytes(700_000)
LOWER, UPPER = tar_of({"noise": NOISE, "gone": b"1"}), tar_of({".wh.gone": b"", "new": b"2"})


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRegistry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "store"))


def pulled(reference: str, env: Env, spools: Spools) -> fetch.FetchResult:
    sink = unpack.layer_sinks(spools, env.config.limits)
    return fetch.run(fetch.FetchParams(reference), env, sink=sink, patience=QUICK)


def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The diff_id of each pass that is finished from here on."""
    done: list[str] = []
    original = LayerPass.finish

    def recorded(self: LayerPass) -> None:
        original(self)
        done.append(str(self._layer.diff_id))

    monkeypatch.setattr(LayerPass, "finish", recorded)
    return done


def readings(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """The objects of the store that are read whole from here on."""
    read: list[Digest] = []
    for name in ("read_along", "verify"):
        original = getattr(Store, name)

        def recorded(self: Store, digest: Digest, *rest: Any, original: Any = original) -> Any:
            read.append(digest)
            return original(self, digest, *rest)

        monkeypatch.setattr(Store, name, recorded)
    return read


def kept(env: Env) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(env.store.blobs)}


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_each_layer_is_inflated_once_and_not_read_again(
    compression: str, registry: FakeRegistry, env: Env, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = image_of(LOWER, UPPER, compression=compression)
    reference = registry.add("app", "1", image)
    done, read = passes(monkeypatch), readings(monkeypatch)
    pack_image(reference, tmp_path / "out", env=env)
    assert sorted(done) == sorted([sha256(LOWER), sha256(UPPER)])
    assert not {str(digest) for digest in read} & set(image.layers)


def test_layers_of_the_store_take_the_same_pass(tmp_path: Path, env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(LOWER, UPPER)
    layout = write_layout(tmp_path / "layout", {"t": image})
    fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)
    done, read = passes(monkeypatch), readings(monkeypatch)
    pack_image(f"oci:{layout}:t", tmp_path / "out", env=env)
    assert sorted(done) == sorted([sha256(LOWER), sha256(UPPER)])
    assert [str(digest) for digest in read].count(image.layers[0]) == 1  # a small one is looked into on the way


def test_layer_of_the_store_that_is_damaged_is_fetched_anew(registry: FakeRegistry, env: Env) -> None:
    image = image_of(LOWER, UPPER)
    fetch.run(fetch.FetchParams(registry.add("one", "1", image)), env, patience=QUICK)
    damaged = env.store.path(Digest.parse(image.layers[0]))
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    other = registry.add("two", "1", image_of(LOWER, UPPER, config={"author": "another manifest"}))
    with Spools(env.store) as spools:
        result = unpack.run(unpack.UnpackParams(pulled(other, env, spools)), env, spools)
        assert set(tree(result, env)) == {"noise", "new"}
    assert len([request for request in registry.requests if image.layers[0] in request.path]) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"flip": 1},
        {"flip": 400_000},
        {"body": b""},
        {"body": b"short"},
    ],
    ids=["first byte", "byte inside", "nothing", "short"],
)
def test_nothing_of_a_wrong_body_is_kept(fault: dict[str, Any], registry: FakeRegistry, env: Env) -> None:
    image = image_of(LOWER, UPPER)
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], times=99, **fault)]
    with Spools(env.store) as spools:
        with pytest.raises(PipelineError, match="layer 1/2 of"):
            pulled(reference, env, spools)
        assert spools.taken(Layer(env.store.put(b""), Digest.of(LOWER))) is None
    assert image.layers[0] not in kept(env)
    assert os.listdir(env.store.results) == []


def test_too_long_body_is_not_kept(registry: FakeRegistry, env: Env) -> None:
    image = image_of(LOWER, UPPER)
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], body=image.blobs[image.layers[0]] + b"more", times=99)]
    with Spools(env.store) as spools, pytest.raises(PipelineError, match="layer 1/2 of"):
        pulled(reference, env, spools)
    assert image.layers[0] not in kept(env)


@pytest.mark.parametrize("ignore_range", [False, True])
def test_pass_goes_on_where_a_connection_broke(ignore_range: bool, registry: FakeRegistry, env: Env) -> None:
    image = image_of(LOWER, UPPER)
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], drop_at=300_000)]
    registry.faults += [Fault(image.layers[0], ignore_range=True)] * ignore_range
    with Spools(env.store) as spools:
        result = unpack.run(unpack.UnpackParams(pulled(reference, env, spools)), env, spools)
        assert tree(result, env) == {"noise": f"f {NOISE.decode('latin-1')}", "new": "f 2"}


def test_nothing_of_a_layer_with_another_diff_id_is_kept(registry: FakeRegistry, env: Env, tmp_path: Path) -> None:
    wrong = {"rootfs": {"type": "layers", "diff_ids": [sha256(LOWER), sha256(b"another tar")]}}
    image = image_of(LOWER, UPPER, config=wrong)
    reference = registry.add("app", "1", image)
    with pytest.raises(DigestMismatch, match=f"expected diff_id {sha256(b'another tar')}, got {sha256(UPPER)}"):
        pack_image(reference, tmp_path / "out", env=env)
    assert image.layers[1] not in kept(env)
    assert os.listdir(env.store.results) == []
    assert not (tmp_path / "out").exists()


def test_bomb_takes_no_more_room_than_its_limit(registry: FakeRegistry, env: Env) -> None:
    bomb = image_of(tar_of({"zeros": bytes(64 << 20)}))
    reference = registry.add("app", "1", bomb)
    limits = Limits(ratio=10, ratio_free_bytes=1 << 20)
    with Spools(env.store, limits) as spools:
        way: list[LayerPass] = []

        def sink(*arguments: Any) -> LayerPass:
            way.append(unpack.layer_sinks(spools, limits)(*arguments))
            return way[-1]

        with pytest.raises(PipelineError, match="bytes when inflated, got more"):
            fetch.run(fetch.FetchParams(reference), env, sink=sink, patience=QUICK)
        assert way[0].size_bytes <= 3 << 20
    assert bomb.layers[0] not in kept(env)


def test_stages_of_one_process_share_what_is_inflated(
    tmp_path: Path, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Env(env.store, spools=Spools(env.store))
    layout = write_layout(tmp_path / "layout", {"t": image_of(LOWER, UPPER)})
    done = passes(monkeypatch)
    tree = unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}:t"), shared)), shared)
    squash.run(squash.SquashParams(tree), shared)
    assert sorted(done) == sorted([sha256(LOWER), sha256(UPPER)])


def test_shared_layers_are_let_go_when_they_are_too_many(
    tmp_path: Path, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.env.SPOOLS_KEPT_BYTES", len(UPPER))
    shared = Env(env.store, spools=Spools(env.store))
    layout = write_layout(tmp_path / "layout", {"t": image_of(UPPER, LOWER)})
    found = fetch.run(fetch.FetchParams(f"oci:{layout}:t"), shared)
    with inflated_layers(shared) as spools:
        for blob, diff_id in zip(found.layers, found.diff_ids, strict=True):
            spools.open(Layer(blob, diff_id))
        assert len(spools._kept) == 2
    assert len(spools._kept) < 2


def test_tasks_have_shared_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path))
    task.env.cache_clear()
    try:
        assert task.env().spools is not None
    finally:
        task.env.cache_clear()
