"""Mirrors: who is asked, in which order, and what makes the next one be asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.fetching import QUICK, login
from support.registry import FakeRegistry, Fault, fake_registry
from support.tars import Image, image_of, tar_of

from pipeline import fetch
from pipeline.config import Config, RegistryConfig
from pipeline.env import Env
from pipeline.errors import DigestMismatch
from pipeline.fetch.endpoint import endpoints, tls_by_host
from pipeline.fetch.errors import NoSuchImage, RegistryError
from pipeline.fetch.reference import RegistryReference, parse


@pytest.fixture(scope="module")
def image() -> Image:
    return image_of(tar_of({"a": random.Random(3).randbytes(60_000)}), tar_of({"b": b"2"}))


@pytest.fixture
def mirror() -> Iterator[FakeRegistry]:
    with fake_registry() as mirror:
        yield mirror


def run(reference: str, env: Env, *mirrors: str) -> fetch.FetchResult:
    host = reference.removeprefix("docker://").partition("/")[0]
    config = Config(registries={host: RegistryConfig(mirrors=mirrors)})
    return fetch.run(fetch.FetchParams(reference), replace(env, config=config), patience=QUICK)


def bases(reference: str, **registries: RegistryConfig) -> list[str]:
    parsed = parse(reference)
    assert isinstance(parsed, RegistryReference)
    return [endpoint.base for endpoint in endpoints(parsed, registries)]


def test_mirrors_come_first_in_their_order_each_with_its_prefix() -> None:
    hub = RegistryConfig(mirrors=("mirror.example", "cache.example:5000/hub/", "127.0.0.1:5000/a/b"))
    assert bases("nginx:1", **{"docker.io": hub}) == [
        "https://mirror.example/v2/library/nginx",
        "https://cache.example:5000/v2/hub/library/nginx",
        "http://127.0.0.1:5000/v2/a/b/library/nginx",
        "https://registry-1.docker.io/v2/library/nginx",
    ]


def test_a_mirror_is_reached_by_its_own_settings() -> None:
    registries = {
        "r.example": RegistryConfig(mirrors=("m.example",)),
        "m.example": RegistryConfig(insecure=True, mirrors=("never.example",)),
    }
    assert bases("r.example/a", **registries) == ["http://m.example/v2/a", "https://r.example/v2/a"]


def test_docker_hub_may_be_called_by_any_of_its_names_in_the_settings() -> None:
    assert bases("nginx", **{"index.docker.io": RegistryConfig(mirrors=("m.example",))})[0].startswith("https://m.")
    assert tls_by_host({"docker.io": RegistryConfig(ca="f")})["registry-1.docker.io"].ca == "f"


@pytest.mark.parametrize("mirror", ["", "https://m.example", "user@m.example", "m.example/Upper", "a b", "/x"])
def test_mirror_that_is_no_host_is_refused_by_its_key(mirror: str) -> None:
    with pytest.raises(RegistryError, match=r'registries\."r\.example"\.mirrors of the config file'):
        bases("r.example/a", **{"r.example": RegistryConfig(mirrors=(mirror,))})


def test_everything_comes_from_the_mirror_where_it_has_everything(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("team/app", "1", image)
    mirror.add("prefix/team/app", "1", image)
    result = run(reference, env, f"{mirror.host}/prefix")
    assert (str(result.manifest.digest), result.reference) == (image.digest, reference)
    assert registry.requests == []


def test_mirror_without_the_image_or_without_a_layer_is_passed_over(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("app", "1", image)
    run(reference, Env(env.store), mirror.host)
    assert mirror.paths("/manifests/1")
    assert len(registry.paths("/manifests/1")) == 1


def test_layer_that_a_mirror_lacks_comes_from_the_registry(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("app", "1", image)
    mirror.add("app", "1", image)
    del mirror.blobs[image.layers[0]]
    run(reference, env, mirror.host)
    assert [request.path for request in registry.requests] == [f"/v2/app/blobs/{image.layers[0]}"]


def test_dead_mirror_is_asked_once_and_the_next_one_serves(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("app", "1", image)
    mirror.add("app", "1", image)
    with fake_registry() as dead:
        dead.faults = [Fault("", status=503, times=99)]
        run(reference, env, dead.host, mirror.host)
        assert len(dead.requests) == 2  # two attempts at the first question, then no more
    assert registry.requests == []


def test_mirror_that_breaks_off_in_a_layer_is_left_and_the_layer_begun_anew(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("app", "1", image)
    mirror.add("app", "1", image)
    # What it gave is wrong as well: nothing of it may be continued.
    lie = bytes(len(image.blobs[image.layers[0]]))
    mirror.faults = [
        Fault(image.layers[0], body=lie, drop_at=1000),
        Fault(image.layers[0], drop_at=0, times=99),
    ]
    run(reference, env, mirror.host)
    assert [request.headers.get("range") for request in registry.paths("/blobs/")] == [None]


def test_wrong_bytes_of_a_mirror_are_the_end(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("app", "1", image)
    mirror.add("app", "1", image)
    mirror.faults = [Fault(image.layers[0], flip=100, times=99)]
    with pytest.raises(DigestMismatch, match="layer 1/2"):
        run(reference, env, mirror.host)
    assert registry.requests == []


def test_refusal_of_a_mirror_is_the_end(registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    mirror.faults = [Fault("", status=403, times=99)]
    with pytest.raises(RegistryError, match=f"http://{mirror.host}/v2/app to give it, got 403"):
        run(reference, env, mirror.host)
    assert registry.requests == []


def test_credentials_of_the_registry_are_not_for_its_mirror(
    registry: FakeRegistry, mirror: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    mirror.add("app", "1", image)
    registry.basic = mirror.basic = "ann:geheim"
    login(tmp_path, registry.host, "ann", "geheim")
    with pytest.raises(RegistryError, match=f"docker login {mirror.host}"):
        run(reference, env, mirror.host)
    assert {request.authorization for request in mirror.requests} == {""}


def test_what_nobody_has_is_said_of_the_registry_itself(registry: FakeRegistry, mirror: FakeRegistry, env: Env) -> None:
    with pytest.raises(NoSuchImage, match=f"it at {registry.host}"):
        run(f"docker://{registry.host}/app:1", env, mirror.host)
    assert mirror.requests and registry.requests
