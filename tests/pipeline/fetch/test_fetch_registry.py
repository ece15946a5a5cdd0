"""Fetching from a registry that does everything a registry must not."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.registry import FakeRegistry, Fault, fake_registry
from support.tars import Image, image_of, sha256, tar_of

from pipeline import fetch
from pipeline.env import Env
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch.errors import BadImage, NoSuchImage, RegistryError
from pipeline.fetch.http import Patience
from pipeline.oci import Digest
from pipeline.progress import Bar, Progress
from pipeline.store import Store

QUICK = Patience(attempts=3, backoff_s=0.001, wait_max_s=0.01, connect_s=60, read_s=60, deadline_s=240)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRegistry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "store"))


@pytest.fixture(scope="module")
def image() -> Image:
    noise = random.Random(7).randbytes(300_000)
    return image_of(tar_of({"a": noise, "etc/": None}), tar_of({"b": b"second"}))


def login(directory: Path, host: str, user: str, password: str) -> None:
    import base64

    (directory / "docker").mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (directory / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def run(reference: str, env: Env, platform: str = "linux/amd64") -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference, platform), env, patience=QUICK)


def blobs(env: Env) -> set[str]:
    return {"sha256:" + name for name in os.listdir(env.store.blobs)}


def nothing_left(env: Env) -> bool:
    """No temporary files, and every blob is what its name says."""
    return not os.listdir(env.store.tmp) and all(env.store.verify(Digest.parse(name)) for name in blobs(env))


def test_image_by_tag_is_complete_and_named(registry: FakeRegistry, env: Env, image: Image) -> None:
    result = run(registry.add("team/app", "1", image), env)
    assert str(result.manifest.digest) == image.digest
    assert [str(layer.digest) for layer in result.layers] == image.layers
    assert result.reference == f"docker://{registry.host}/team/app:1"
    assert blobs(env) == {image.digest, *image.blobs}
    assert nothing_left(env)


def test_cached_image_by_digest_asks_nothing(registry: FakeRegistry, env: Env, image: Image) -> None:
    registry.add("app", "1", image)
    reference = f"docker://{registry.host}/app@{image.digest}"
    first = run(reference, env)
    registry.requests.clear()
    assert run(reference, Env(env.store, offline=True)) == first
    assert registry.requests == []


def test_cached_image_by_tag_asks_once(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    run(reference, env)
    registry.requests.clear()
    run(reference, env)
    assert [request.path for request in registry.requests] == ["/v2/app/manifests/1"]


def test_offline_without_the_image_opens_no_connection(registry: FakeRegistry, env: Env, image: Image) -> None:
    registry.add("app", "1", image)
    with pytest.raises(RegistryError, match="offline"):
        run(f"docker://{registry.host}/app@{image.digest}", Env(env.store, offline=True))
    assert registry.requests == []


def test_layer_damaged_in_the_store_is_fetched_again(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    result = run(reference, env)
    path = env.store.path(result.layers[0].digest)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not env.store.verify(result.layers[0].digest)  # whoever reads a layer of this size finds the damage
    assert run(reference, env) == result
    assert path.read_bytes() == data


def test_second_image_fetches_only_new_layers(registry: FakeRegistry, env: Env, image: Image) -> None:
    run(registry.add("app", "1", image), env)
    base = tar_of({"b": b"second"})
    other = image_of(base, tar_of({"c": b"third"}))
    assert other.layers[0] == image.layers[1]
    registry.requests.clear()
    run(registry.add("app", "2", other), env)
    assert registry.paths(other.layers[0]) == []


@pytest.mark.parametrize("drop_at", [0, 1, 1000, 150_000])
def test_broken_connection_is_resumed_by_range(registry: FakeRegistry, env: Env, image: Image, drop_at: int) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], drop_at=drop_at)]
    run(reference, env)
    asked = registry.paths(image.layers[0])
    assert [request.headers.get("range") for request in asked] == [None, f"bytes={drop_at}-" if drop_at else None]
    assert nothing_left(env)


def test_registry_that_ignores_range_is_read_from_the_start(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], drop_at=1000), Fault(image.layers[0], ignore_range=True)]
    run(reference, env)
    assert nothing_left(env)


def test_connection_that_breaks_every_time_ends_in_an_error(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], drop_at=0, times=99)]
    with pytest.raises(RegistryError, match=r"layer 1/2 of .*broken connection") as caught:
        run(reference, env)
    assert caught.value.temporary
    assert image.layers[0] not in blobs(env)
    assert nothing_left(env)


def test_wrong_bytes_of_right_length_are_refused_by_name(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    good = image.blobs[image.layers[1]]
    registry.faults = [Fault(image.layers[1], body=bytes(len(good)))]
    with pytest.raises(DigestMismatch) as caught:
        run(reference, env)
    sentence = str(caught.value)
    assert sentence.startswith(f"layer 2/2 of {reference}: expected digest {image.layers[1]}, got sha256:")
    assert f"{len(good)} of {len(good)} bytes came" in sentence
    assert image.layers[1] not in blobs(env)
    assert nothing_left(env)


def test_body_longer_than_the_descriptor_is_cut_at_one_byte_more(
    registry: FakeRegistry, env: Env, image: Image
) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[1], body=image.blobs[image.layers[1]] + b"x" * 10_000_000, times=9)]
    with pytest.raises(DigestMismatch, match=r"layer 2/2 of .* bytes, got more"):
        run(reference, env)
    assert nothing_left(env)


def test_body_shorter_than_the_descriptor_is_refused(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[1], body=image.blobs[image.layers[1]][:50], times=99)]
    with pytest.raises(PipelineError, match="layer 2/2 of "):
        run(reference, env)
    assert image.layers[1] not in blobs(env)


def test_manifest_by_digest_with_another_body_is_refused(registry: FakeRegistry, env: Env, image: Image) -> None:
    registry.add("app", "1", image)
    other = image_of(tar_of({"evil": b"1"}))
    registry.blobs.update(other.blobs)
    registry.documents[f"app/{image.digest}"] = (other.manifest, other.media_type)
    with pytest.raises(DigestMismatch, match="manifest of"):
        run(f"docker://{registry.host}/app@{image.digest}", env)
    assert blobs(env) == set()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_temporary_refusals_are_retried(registry: FakeRegistry, env: Env, image: Image, status: int) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], status=status), Fault("/manifests/", status=status, times=2)]
    run(reference, env)
    assert len(registry.paths("/manifests/")) == 3


@pytest.mark.parametrize("after", ["0", "1", "999999999999", "-5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_retry_after_of_any_kind_is_bounded(registry: FakeRegistry, env: Env, image: Image, after: str) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/manifests/", status=429, headers={"Retry-After": after})]
    run(reference, env)
    assert len(registry.paths("/manifests/")) == 2


def test_rate_limit_that_stays_is_named(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/manifests/", status=429, times=99)]
    with pytest.raises(RegistryError, match="rate limit") as caught:
        run(reference, env)
    assert caught.value.temporary
    assert len(registry.requests) == QUICK.attempts


@pytest.mark.parametrize(("status", "kind"), [(404, NoSuchImage), (403, RegistryError), (400, RegistryError)])
def test_final_refusals_are_not_retried(
    registry: FakeRegistry, env: Env, image: Image, status: int, kind: type[PipelineError]
) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/manifests/", status=status, times=99)]
    with pytest.raises(kind, match=str(status)):
        run(reference, env)
    assert len(registry.requests) == 1


def test_dead_registry_is_one_sentence(env: Env, registry: FakeRegistry) -> None:
    registry.close()
    with pytest.raises(RegistryError, match="app:1: expected an answer, got Connection refused from http://") as caught:
        run(f"docker://{registry.host}/app:1", env)
    assert caught.value.temporary


def test_basic_credentials_of_docker_config_are_used(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    registry.basic = "ann:geheim"
    login(tmp_path, registry.host, "ann", "geheim")
    assert str(run(reference, env).manifest.digest) == image.digest


def test_missing_and_wrong_credentials_say_how_to_log_in_without_the_secret(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    registry.basic = "ann:geheim"
    with pytest.raises(RegistryError, match="docker login"):
        run(reference, env)
    login(tmp_path, registry.host, "ann", "canary-secret")
    registry.requests.clear()
    with pytest.raises(RegistryError, match="401 UNAUTHORIZED") as caught:
        run(reference, env)
    assert "canary-secret" not in repr(vars(caught.value)) + str(caught.value)
    assert len(registry.requests) <= 3


@pytest.mark.parametrize("user", ["", "ann:geheim"])
def test_bearer_token_is_got_once_for_all_blobs(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path, user: str
) -> None:
    reference = registry.add("app", "1", image)
    registry.token, registry.token_user = "tok", user
    if user:
        login(tmp_path, registry.host, *user.split(":"))
    run(reference, env)
    (asked,) = registry.paths("/token")
    assert "service=fake" in asked.path
    assert "scope=repository%3Aapp%3Apull" in asked.path


def test_expired_token_is_renewed(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.token = "tok"
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token",service="fake"'}
    registry.faults = [Fault(image.layers[0], status=401, headers=challenge)]
    registry.faults += [Fault("/token", status=200, body=b'{"access_token": "old"}')]
    run(reference, env)
    assert nothing_left(env)


def test_token_refused_for_ever_ends(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.token = "tok"
    registry.faults = [Fault("/token", status=200, body=b'{"token": "bad"}', times=99)]
    with pytest.raises(RegistryError, match="expected access"):
        run(reference, env)
    assert len(registry.requests) < 10


def test_credentials_do_not_go_to_a_token_server_elsewhere(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    login(tmp_path, registry.host, "ann", "geheim")
    with fake_registry() as other:
        registry.token = other.token = "tok"
        registry.realm = f"http://localhost:{other.port}/token"
        run(reference, env)
        assert [request.authorization for request in other.requests] == [""]


def test_token_server_must_be_https_or_loopback(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.token, registry.realm = "tok", "http://tokens.example/token?secret=canary"
    with pytest.raises(RegistryError, match="token server on https") as caught:
        run(reference, env)
    assert "canary" not in str(caught.value)


def test_authorization_is_dropped_on_a_redirect_to_another_host(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    registry.basic = "ann:geheim"
    login(tmp_path, registry.host, "ann", "geheim")
    with fake_registry() as other:
        other.blobs = registry.blobs
        target = f"http://{other.host}/storage/{image.layers[0]}?signature=canary"
        registry.faults = [Fault("/v2/app/blobs/" + image.layers[0], status=307, headers={"Location": target})]
        run(reference, env)
        assert [request.authorization for request in other.requests] == [""]
    assert registry.paths(image.layers[0])[-1].authorization.startswith("Basic ")


def test_authorization_stays_on_a_redirect_in_the_same_place(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    registry.basic = "ann:geheim"
    login(tmp_path, registry.host, "ann", "geheim")
    target = f"/v2/elsewhere/blobs/{image.layers[0]}"
    registry.faults = [Fault("/v2/app/blobs/" + image.layers[0], status=302, headers={"Location": target})]
    run(reference, env)
    assert registry.paths("/v2/elsewhere/")[0].authorization.startswith("Basic ")


def test_redirects_without_end_are_refused(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/manifests/1", status=302, headers={"Location": "/v2/app/manifests/1"}, times=99)]
    with pytest.raises(RegistryError, match="5 redirects"):
        run(reference, env)


def test_blob_with_a_content_encoding_is_refused(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], headers={"Content-Encoding": "gzip"}, times=99)]
    with pytest.raises(RegistryError, match="the blob as it is"):
        run(reference, env)


def test_index_is_followed_to_the_platform(registry: FakeRegistry, env: Env) -> None:
    images = {
        "amd64": image_of(tar_of({"a": b"amd64"})),
        "arm64": image_of(tar_of({"a": b"arm64"}), architecture="arm64"),
    }
    entries = []
    for architecture, image in images.items():
        registry.add("app", architecture, image)
        platform = {"os": "linux", "architecture": architecture}
        size = len(image.manifest)
        entries.append({"mediaType": image.media_type, "digest": image.digest, "size": size, "platform": platform})
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    registry.add_document("app", "all", index, kind)
    reference = f"docker://{registry.host}/app:all"
    assert str(run(reference, env).manifest.digest) == images["amd64"].digest
    assert str(run(reference, env, "linux/arm64").manifest.digest) == images["arm64"].digest
    with pytest.raises(NoSuchImage, match="only linux/amd64, linux/arm64"):
        run(reference, env, "linux/riscv64")
    pinned = f"docker://{registry.host}/app@{sha256(index)}"
    run(pinned, env)
    assert run(pinned, Env(env.store, offline=True)).manifest.digest == Digest.parse(images["amd64"].digest)


def test_config_with_too_few_diff_ids_is_refused(registry: FakeRegistry, env: Env) -> None:
    tar = tar_of({"a": b"1"})
    image = image_of(tar, tar_of({"b": b"2"}), config={"rootfs": {"type": "layers", "diff_ids": [sha256(tar)]}})
    with pytest.raises(BadImage, match="2 diff_ids, one per layer, got 1"):
        run(registry.add("app", "1", image), env)


def test_schema_1_is_refused_by_name(registry: FakeRegistry, env: Env) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    registry.add_document("app", "old", b'{"schemaVersion": 1, "fsLayers": []}', kind)
    with pytest.raises(BadImage, match="schema 1"):
        run(f"docker://{registry.host}/app:old", env)


def test_image_wanted_twice_at_once_is_downloaded_once(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(lambda _: run(reference, Env(Store(env.store.root))), range(4)))
    assert len(set(map(str, results))) == 1
    assert [len(registry.paths("/blobs/" + name)) for name in image.layers] == [1, 1]


def test_progress_counts_every_byte_of_a_resumed_layer(registry: FakeRegistry, env: Env, image: Image) -> None:
    class Recorder(Progress):
        def __init__(self) -> None:
            self.done: dict[str, int] = {}

        @contextlib.contextmanager
        def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
            owner = self

            class Counted:
                def advance(self, amount: int) -> None:
                    owner.done[title] = owner.done.get(title, 0) + amount

                def total(self, total: int) -> None: ...

            yield Counted()

    reference = registry.add("app", "1", image)
    registry.faults = [Fault(image.layers[0], drop_at=1000), Fault(image.layers[0], ignore_range=True)]
    progress = Recorder()
    run(reference, Env(env.store, progress))
    assert progress.done[f"layer 1/2 of {reference}"] == len(image.blobs[image.layers[0]])


def test_total_deadline_ends_a_registry_that_always_promises(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/manifests/", status=503, headers={"Retry-After": "1000"}, times=99)]
    patience = Patience(attempts=1000, wait_max_s=1000, deadline_s=0.2)
    with pytest.raises(RegistryError, match="expected an end within 0 s"):
        fetch.run(fetch.FetchParams(reference), env, patience=patience)
