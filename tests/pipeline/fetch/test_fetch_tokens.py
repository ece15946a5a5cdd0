"""Bearer tokens: whom they are asked of, with what, and how often."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.fetching import QUICK, docker_config, login
from support.registry import FakeRegistry, Fault, fake_registry
from support.tars import Image, image_of, tar_of

from pipeline import fetch
from pipeline.config import Config, RegistryConfig
from pipeline.env import Env
from pipeline.fetch.endpoint import Endpoint
from pipeline.fetch.errors import RegistryError
from pipeline.fetch.token import check_realm, may_see_credentials


@pytest.fixture(scope="module")
def image() -> Image:
    return image_of(tar_of({"a": b"1" * 9000}), tar_of({"b": b"2"}))


@pytest.fixture
def guarded(registry: FakeRegistry, image: Image) -> Iterator[tuple[FakeRegistry, str]]:
    registry.token = "tok"
    yield registry, registry.add("app", "1", image)


def run(reference: str, env: Env, **registries: RegistryConfig) -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference), replace(env, config=Config(registries=registries)), patience=QUICK)


def challenge(registry: FakeRegistry, **words: str) -> dict[str, str]:
    parameters = {"realm": f"http://{registry.host}/token", "service": "fake", **words}
    return {"WWW-Authenticate": "Bearer " + ",".join(f'{key}="{value}"' for key, value in parameters.items())}


@pytest.mark.parametrize("status", [401, 403])
def test_insufficient_scope_is_asked_for_once_more_with_the_wider_one(
    guarded: tuple[FakeRegistry, str], env: Env, image: Image, status: int
) -> None:
    registry, reference = guarded
    wider = challenge(registry, scope="repository:app:pull repository:base:pull", error="insufficient_scope")
    registry.faults = [Fault("/blobs/" + image.layers[0], status=status, headers=wider)]
    run(reference, env)
    scopes = [request.path for request in registry.paths("/token")]
    assert len(scopes) == 2 and "repository%3Abase%3Apull" in scopes[1]


def test_insufficient_scope_that_stays_ends(guarded: tuple[FakeRegistry, str], env: Env, image: Image) -> None:
    registry, reference = guarded
    wider = challenge(registry, scope="repository:app:pull,push", error="insufficient_scope")
    registry.faults = [Fault("/manifests/", status=401, headers=wider, times=99)]
    with pytest.raises(RegistryError, match="expected access"):
        run(reference, env)
    assert len(registry.paths("/manifests/")) == 3
    assert len(registry.paths("/token")) <= 3


def test_forbidden_without_a_challenge_is_not_asked_again(
    guarded: tuple[FakeRegistry, str], env: Env, image: Image
) -> None:
    registry, reference = guarded
    registry.faults = [Fault("/blobs/", status=403, body=b'{"errors": [{"code": "DENIED"}]}', times=99)]
    with pytest.raises(RegistryError, match="403 DENIED"):
        run(reference, env)
    assert len(registry.paths("/blobs/")) == 1


def test_challenge_of_a_place_we_were_sent_to_is_not_answered(
    guarded: tuple[FakeRegistry, str], env: Env, image: Image
) -> None:
    """A token got for it would be sent to whoever sent us there."""
    registry, _ = guarded
    with fake_registry() as sender:
        reference = sender.add("app", "1", image)
        target = f"http://{registry.host}/v2/app/manifests/1"
        sender.faults = [Fault("/manifests/", status=307, headers={"Location": target}, times=9)]
        with pytest.raises(RegistryError, match="401 UNAUTHORIZED"):
            run(reference, env)
        assert {request.authorization for request in sender.requests} == {""}
        assert registry.paths("/token") == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[]",
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": "a\\nb"}',
        b'{"token": "\\u00e9"}',
        b"[" * 100_000,
        b"x" * 2_000_000,
        b'{"token": "' + b"x" * 2_000_000 + b'"}',
    ],
    ids=["nothing", "empty", "list", "empty token", "number", "newline", "no ASCII", "depth", "2 MB", "2 MB token"],
)
def test_answer_without_a_token_is_one_sentence(guarded: tuple[FakeRegistry, str], env: Env, answer: bytes) -> None:
    registry, reference = guarded
    registry.faults = [Fault("/token", status=200, body=answer, times=9)]
    with pytest.raises(RegistryError, match=f"expected a token from http://{registry.host}/token, got none"):
        run(reference, env)


def test_token_server_that_is_busy_is_asked_again(guarded: tuple[FakeRegistry, str], env: Env) -> None:
    registry, reference = guarded
    registry.faults = [Fault("/token", status=503), Fault("/token", status=429, headers={"Retry-After": "0"})]
    run(reference, env)
    assert len(registry.paths("/token")) == 3


def test_identity_token_is_traded_by_post_and_shows_nowhere(
    guarded: tuple[FakeRegistry, str], env: Env, tmp_path: Path
) -> None:
    registry, reference = guarded
    registry.identity = "canary-identity"
    docker_config(tmp_path, {"auths": {registry.host: {"identitytoken": "canary-identity"}}})
    run(reference, env)
    (asked,) = registry.paths("/token")
    assert asked.method == "POST" and asked.path == "/token"
    assert asked.form == {
        "grant_type": ["refresh_token"],
        "client_id": ["zonewright"],
        "refresh_token": ["canary-identity"],
        "service": ["fake"],
        "scope": ["repository:app:pull"],
    }


def test_identity_token_does_not_follow_a_redirect(guarded: tuple[FakeRegistry, str], env: Env, tmp_path: Path) -> None:
    registry, reference = guarded
    docker_config(tmp_path, {"auths": {registry.host: {"identitytoken": "canary-identity"}}})
    with fake_registry() as other:
        registry.faults = [Fault("/token", status=307, headers={"Location": f"http://{other.host}/token"})]
        with pytest.raises(RegistryError, match="got a redirect") as caught:
            run(reference, env)
        assert other.requests == []
    assert "canary" not in repr(vars(caught.value))


def test_registry_token_is_used_as_it_is(guarded: tuple[FakeRegistry, str], env: Env, tmp_path: Path) -> None:
    registry, reference = guarded
    docker_config(tmp_path, {"auths": {registry.host: {"registrytoken": "tok"}}})
    run(reference, env)
    assert registry.paths("/token") == []


def test_bearer_is_taken_where_several_challenges_come_in_one_header(
    guarded: tuple[FakeRegistry, str], env: Env
) -> None:
    registry, reference = guarded
    realm = f"http://{registry.host}/token"
    several = f'Negotiate, NTLM abc=, bearer Realm = "{realm}" , SERVICE=fake, Digest realm="x, Basic realm=y"'
    registry.faults = [Fault("/manifests/", status=401, headers={"WWW-Authenticate": several})]
    run(reference, env)
    assert "service=fake" in registry.paths("/token")[0].path


def test_settings_may_let_another_host_see_the_credentials(
    guarded: tuple[FakeRegistry, str], env: Env, tmp_path: Path
) -> None:
    registry, reference = guarded
    login(tmp_path, registry.host, "ann", "geheim")
    with fake_registry() as other:
        registry.realm = f"http://localhost:{other.port}/token"
        other.token, other.token_user = "tok", "ann:geheim"
        with pytest.raises(RegistryError, match=rf'registries\."{registry.host}"\.token_hosts in the config file'):
            run(reference, env)
        assert {request.authorization for request in other.requests} == {""}
        run(reference, env, **{registry.host: RegistryConfig(token_hosts=("localhost",))})
        assert other.requests[-1].authorization.startswith("Basic ")


ENDPOINT = Endpoint("r.example", "a", "https://r.example/v2/a")


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "token",
        "http://r.example/token",
        "http://tokens.example/t",
        "ftp://tokens.example/t",
        "file:///etc/passwd",
        "https://localhost/t",
        "https://127.0.0.1/t",
        "https://[::1]/t",
        "https://[::ffff:127.0.0.1]/t",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/t",
        "https://10.0.0.1/t",
        "https://192.168.1.1:8443/t",
        "https://100.64.0.1/t",
        "https://0.0.0.0/t",
        "https://[fd00::1]/t",
        "https://[/t",
        "https://r.example:port/t",
        "https:///t",
    ],
)
def test_realm_that_must_not_be_asked(realm: str) -> None:
    with pytest.raises(RegistryError, match="expected a token server on https"):
        check_realm(realm, ENDPOINT, "it")


@pytest.mark.parametrize(
    ("realm", "base"),
    [
        ("https://r.example/t", "https://r.example/v2/a"),
        ("https://r.example:8443/t", "https://r.example/v2/a"),
        ("https://tokens.example/t", "https://r.example/v2/a"),
        ("https://8.8.8.8/t", "https://r.example/v2/a"),
        ("https://10.0.0.1:5001/t", "https://10.0.0.1:5000/v2/a"),
        ("http://10.0.0.1:5001/t", "http://10.0.0.1:5000/v2/a"),
        ("http://127.0.0.1:5001/t", "http://localhost:5000/v2/a"),
        ("https://tokens.example/t", "http://10.0.0.1/v2/a"),
    ],
)
def test_realm_that_may_be_asked(realm: str, base: str) -> None:
    check_realm(realm, Endpoint("r", "a", base), "it")


@pytest.mark.parametrize(
    ("realm", "endpoint", "trusted"),
    [
        ("https://r.example/t", ENDPOINT, True),
        ("https://r.example:444/t", ENDPOINT, True),
        ("https://tokens.r.example/t", ENDPOINT, False),
        ("https://r.example.evil.example/t", ENDPOINT, False),
        ("https://r.example@evil.example/t", ENDPOINT, False),
        ("https://auth.docker.io/token", ENDPOINT, False),
        ("https://auth.docker.io/token", replace(ENDPOINT, token_hosts=("auth.docker.io",)), True),
    ],
)
def test_credentials_are_for_the_registrys_own_host(realm: str, endpoint: Endpoint, trusted: bool) -> None:
    assert may_see_credentials(realm, endpoint) is trusted


def test_cached_private_image_needs_credentials_by_tag_and_none_by_digest(
    registry: FakeRegistry, env: Env, image: Image, tmp_path: Path
) -> None:
    reference = registry.add("app", "1", image)
    registry.basic = "ann:geheim"
    path = login(tmp_path, registry.host, "ann", "geheim")
    run(reference, env)
    path.unlink()
    registry.requests.clear()
    assert run(f"{reference}@{image.digest}", env).layers
    assert registry.requests == []
    with pytest.raises(RegistryError, match="docker login"):
        run(reference, env)


def test_no_secret_is_in_any_error_or_file(
    guarded: tuple[FakeRegistry, str], env: Env, tmp_path: Path, image: Image
) -> None:
    registry, reference = guarded
    registry.token = "canary-token"
    login(tmp_path, registry.host, "ann", "canary-password")
    registry.faults = [Fault("/blobs/", status=500, body=json.dumps({"errors": "canary-echo"}).encode(), times=99)]
    with pytest.raises(RegistryError) as caught:
        run(reference, env)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    assert not [path for path in env.store.root.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
