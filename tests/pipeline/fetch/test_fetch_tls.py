"""TLS, proxies and addresses: Debian's docker-registry with certificates of the test's own; registries that cheat."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.certs import Authority
from support.dockerregistry import docker_registry
from support.fetching import QUICK, login
from support.registry import Fault, fake_registry
from support.tars import Image, image_of, tar_of, write_layout
from support.tokenserver import token_server
from support.webproxy import web_proxy

from pipeline import fetch
from pipeline.config import Config, RegistryConfig
from pipeline.env import Env
from pipeline.fetch.errors import RegistryError
from pipeline.store import Store

pytestmark = pytest.mark.network


def run(reference: str, env: Env, **registries: RegistryConfig) -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference), replace(env, config=Config(registries=registries)), patience=QUICK)


@pytest.fixture(scope="module")
def image() -> Image:
    return image_of(tar_of({"a": b"1" * 50_000}), tar_of({"b": b"2"}))


def push(image: Image, directory: Path, target: str, *options: str) -> None:
    layout = write_layout(directory / "pushed", {"t": image})
    command = ["skopeo", "--insecure-policy", "copy", "-q", *options, f"oci:{layout}:t", f"docker://{target}"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority, image: Image) -> Iterator[str]:
    """A real registry that speaks TLS, for 127.0.0.1 and registry.test; app:1 is in it."""
    directory = tmp_path_factory.mktemp("secured")
    certificate, key = authority.issue("127.0.0.1", "registry.test")
    with docker_registry(directory, tls=f"{{certificate: {certificate}, key: {key}}}") as host:
        push(image, directory, f"{host}/app:1", "--dest-tls-verify=false")
        yield host


def test_registry_on_this_machine_speaks_tls_where_a_certificate_is_given(
    secured: str, env: Env, authority: Authority, image: Image
) -> None:
    result = run(f"docker://{secured}/app:1", env, **{secured: RegistryConfig(ca=str(authority.ca))})
    assert str(result.manifest.digest) == image.digest
    assert all(env.store.verify(layer.digest) for layer in result.layers)


def test_without_the_setting_the_error_says_which_it_is(secured: str, env: Env) -> None:
    with pytest.raises(RegistryError, match=rf'registries\."{secured}"\.ca in the config file'):
        run(f"docker://{secured}/app:1", env)


def test_certificate_of_someone_else_is_refused_at_once(secured: str, env: Env, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(RegistryError, match=r"TLS with a certificate for 127\.0\.0\.1 that is trusted here") as caught:
        run(f"docker://{secured}/app:1", env, **{secured: RegistryConfig(ca=str(other.ca))})
    assert not caught.value.temporary


def test_certificate_for_another_name_is_refused(secured: str, env: Env, authority: Authority) -> None:
    host = secured.replace("127.0.0.1", "localhost")
    with pytest.raises(RegistryError, match="certificate for localhost"):
        run(f"docker://{host}/app:1", env, **{host: RegistryConfig(ca=str(authority.ca))})


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificate_file_that_cannot_be_used_is_named(
    secured: str, env: Env, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RegistryError, match=rf'registries\."{secured}" of the config file: expected PEM in {file}'):
        run(f"docker://{secured}/app:1", env, **{secured: RegistryConfig(ca=str(file))})


def test_plain_http_to_a_host_elsewhere_needs_the_setting(env: Env, registry: object) -> None:
    with web_proxy({}) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        patch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(RegistryError):
            run("docker://registry.test/app:1", env)
        assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}
        proxy.asked.clear()
        with pytest.raises(RegistryError):
            run("docker://registry.test/app:1", env, **{"registry.test": RegistryConfig(insecure=True)})
        assert {line.split()[0] for line in proxy.asked} == {"GET"}


def test_own_certificate_is_shown_where_the_registry_wants_one(
    tmp_path: Path, env: Env, authority: Authority, image: Image
) -> None:
    certificate, key = authority.issue("127.0.0.1")
    tls = f"{{certificate: {certificate}, key: {key}, clientcas: [{authority.ca}]}}"
    own, own_key = authority.issue("ann", client=True)
    certificates = tmp_path / "certs"
    certificates.mkdir()
    for name, file in (("client.cert", own), ("client.key", own_key), ("ca.crt", authority.ca)):
        (certificates / name).write_bytes(file.read_bytes())
    with docker_registry(tmp_path, tls=tls) as host:
        push(image, tmp_path, f"{host}/app:1", f"--dest-cert-dir={certificates}")
        ca = str(authority.ca)
        shown = RegistryConfig(ca=ca, certificate=str(own), key=str(own_key))
        assert str(run(f"docker://{host}/app:1", env, **{host: shown}).manifest.digest) == image.digest
        with pytest.raises(RegistryError, match="expected an answer"):
            run(f"docker://{host}/app:1", Env(Store(tmp_path / "b")), **{host: RegistryConfig(ca=ca)})


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_real_registry_with_tokens(tmp_path: Path, env: Env, authority: Authority, image: Image, secure: bool) -> None:
    certificate = authority.issue("127.0.0.1") if secure else None
    tls = "{{certificate: {}, key: {}}}".format(*certificate) if certificate else ""
    with (
        token_server(tmp_path, "ada:pass word", certificate=certificate) as tokens,
        docker_registry(tmp_path, extra=tokens.registry_config, tls=tls) as host,
    ):
        push(image, tmp_path, f"{host}/team/app:1", "--dest-tls-verify=false", "--dest-creds=ada:pass word")
        tokens.scopes.clear()
        settings = RegistryConfig(ca=str(authority.ca) if secure else "")
        server = RegistryConfig(ca=settings.ca)
        registries = {host: settings, tokens.host: server}
        with pytest.raises(RegistryError, match=f"401 from http.*docker login {host}"):
            run(f"docker://{host}/team/app:1", env, **registries)
        login(tmp_path, host, "ada", "pass word")
        tokens.scopes.clear()
        result = run(f"docker://{host}/team/app:1", env, **registries)
        assert str(result.manifest.digest) == image.digest
        assert tokens.scopes == ["repository:team/app:pull"]


def test_real_registry_takes_a_token_got_for_an_identity_token(tmp_path: Path, env: Env, image: Image) -> None:
    with (
        token_server(tmp_path, "ada:secret", identity="canary-identity") as tokens,
        docker_registry(tmp_path, extra=tokens.registry_config) as host,
    ):
        push(image, tmp_path, f"{host}/team/app:1", "--dest-tls-verify=false", "--dest-creds=ada:secret")
        (tmp_path / "docker").mkdir()
        config = tmp_path / "docker" / "config.json"
        config.write_text(f'{{"auths": {{"{host}": {{"identitytoken": "canary-identity"}}}}}}')
        assert str(run(f"docker://{host}/team/app:1", env).manifest.digest) == image.digest
        config.write_text(f'{{"auths": {{"{host}": {{"identitytoken": "canary-wrong"}}}}}}')
        with pytest.raises(RegistryError, match="401 from") as caught:
            run(f"docker://{host}/team/app:1", Env(Store(tmp_path / "b")))
        assert "canary" not in repr(vars(caught.value))


def test_real_registry_whose_tokens_end_during_the_pull(tmp_path: Path, env: Env) -> None:
    image = image_of(*(tar_of({f"f{n}": bytes([n]) * 20_000}) for n in range(12)))
    with (
        # The registry takes a token for 60 seconds more than it says; so long ago these ended.
        token_server(tmp_path, "ada:secret", lifetime_s=300) as tokens,
        docker_registry(tmp_path, extra=tokens.registry_config) as host,
    ):
        push(image, tmp_path, f"{host}/team/app:1", "--dest-tls-verify=false", "--dest-creds=ada:secret")
        login(tmp_path, host, "ada", "secret")
        tokens.stale_first = 1
        tokens.scopes.clear()
        assert len(run(f"docker://{host}/team/app:1", env).layers) == 12
        assert len(tokens.scopes) == 2  # one refresh, whoever needed it


# -- redirects ---------------------------------------------------------------------------------------------------------


def test_redirect_from_https_to_http_is_refused(env: Env, authority: Authority, image: Image) -> None:
    with fake_registry(certificate=authority.issue("127.0.0.1")) as secure, fake_registry() as plain:
        reference = secure.add("app", "1", image)
        plain.blobs = secure.blobs
        target = f"http://{plain.host}/storage/{image.layers[0]}?signature=canary"
        secure.faults = [Fault("/blobs/" + image.layers[0], status=307, headers={"Location": target}, times=9)]
        with pytest.raises(RegistryError, match="expected a redirect to https, got one to http://") as caught:
            run(reference, env, **{secure.host: RegistryConfig(ca=str(authority.ca))})
        assert "canary" not in str(caught.value)
        assert plain.requests == []


def test_redirect_to_another_https_host_is_followed_without_credentials(
    env: Env, authority: Authority, image: Image, tmp_path: Path
) -> None:
    certificate = authority.issue("127.0.0.1", "localhost")
    with fake_registry(certificate=certificate) as one, fake_registry(certificate=certificate) as two:
        reference = one.add("app", "1", image)
        one.basic = "ann:geheim"
        login(tmp_path, one.host, "ann", "geheim")
        two.blobs = one.blobs
        hop = f"https://{two.host}/hop/{image.layers[0]}"
        one.faults = [Fault("/blobs/" + image.layers[0], status=307, headers={"Location": hop})]
        # Back again to where the credentials were for: they stay dropped.
        back = f"https://{one.host}/v2/app/blobs/{image.layers[0]}"
        two.faults = [Fault("/hop/", status=302, headers={"Location": back})]
        trust = RegistryConfig(ca=str(authority.ca))
        with pytest.raises(RegistryError, match="401 UNAUTHORIZED"):
            run(reference, env, **{one.host: trust, two.host: trust})
        assert [request.authorization for request in two.requests] == [""]
        assert one.paths("/blobs/" + image.layers[0])[-1].authorization in ("", one.requests[1].authorization)
        two.faults = []
        one.faults = [Fault("/blobs/" + image.layers[0], status=307, headers={"Location": hop})]
        assert str(run(reference, env, **{one.host: trust, two.host: trust}).manifest.digest) == image.digest
        assert {request.authorization for request in two.requests} == {""}


def test_token_server_without_tls_is_refused_by_a_registry_with_tls(
    env: Env, authority: Authority, image: Image, tmp_path: Path
) -> None:
    with fake_registry(certificate=authority.issue("127.0.0.1")) as secure, fake_registry() as plain:
        reference = secure.add("app", "1", image)
        secure.token = plain.token = "tok"
        secure.realm = f"http://{plain.host}/token"
        login(tmp_path, secure.host, "ann", "canary")
        with pytest.raises(RegistryError, match="expected a token server on https"):
            run(reference, env, **{secure.host: RegistryConfig(ca=str(authority.ca))})
        assert plain.requests == []


# -- proxies and addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "ann:ca n@ry"])
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_https_goes_through_the_proxy_of_the_environment(
    secured: str,
    env: Env,
    authority: Authority,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    variable: str,
) -> None:
    from urllib.parse import quote

    with web_proxy({"registry.test:443": ("127.0.0.1", int(secured.rpartition(":")[2]))}, user) as proxy:
        name, _, password = user.partition(":")
        login = f"{name}:{quote(password)}@" if user else ""
        monkeypatch.setenv(variable, f"http://{login}127.0.0.1:{proxy.port}")
        trusted = {"registry.test": RegistryConfig(ca=str(authority.ca))}
        result = run("docker://registry.test/app:1", env, **trusted)
        assert str(result.manifest.digest) == image.digest
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {"CONNECT registry.test:443"}


def test_proxy_that_refuses_or_is_dead_is_named_without_its_password(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_proxy({}, "ann:right") as proxy:
        monkeypatch.setenv("https_proxy", f"http://ann:canary@127.0.0.1:{proxy.port}")
        with pytest.raises(RegistryError, match=rf"by way of the proxy http://127\.0\.0\.1:{proxy.port}") as caught:
            run("docker://registry.test/app:1", env)
        assert "canary" not in repr(vars(caught.value)) + str(caught.value.__cause__) + str(caught.value.__context__)
    with pytest.raises(RegistryError, match=r"Connection refused from https://registry\.test.* by way of the proxy"):
        run("docker://registry.test/app:1", env)


def test_proxy_of_a_kind_we_do_not_speak_is_one_sentence(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(RegistryError, match=r"\$https_proxy: expected an http:// or https:// proxy, got socks5"):
        run("docker://registry.test/app:1", env)


def test_plain_http_goes_through_its_proxy_and_no_proxy_and_loopback_do_not(
    env: Env, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_registry() as registry, web_proxy({"registry.test:80": ("127.0.0.1", registry.port)}) as proxy:
        direct = registry.add("app", "1", image)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        run(direct, env)
        assert proxy.asked == []
        plain = {"registry.test": RegistryConfig(insecure=True)}
        run("docker://registry.test/app:1", env, **plain)
        assert proxy.asked[0].startswith("GET http://registry.test/v2/app/manifests/1 ")
        proxy.asked.clear()
        monkeypatch.setenv("no_proxy", "other.test,.test")
        with pytest.raises(RegistryError, match="expected an answer"):
            run("docker://registry.test/app:1", env, **plain)
        assert proxy.asked == []


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6 on loopback")
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_ipv6_address_as_host(env: Env, authority: Authority, image: Image, tmp_path: Path, secure: bool) -> None:
    with fake_registry("::1", authority.issue("::1") if secure else None) as registry:
        reference = registry.add("app", "1", image)
        registry.basic = "ann:geheim"
        login(tmp_path, registry.host, "ann", "geheim")
        assert reference.startswith("docker://[::1]:")
        trust = {registry.host: RegistryConfig(ca=str(authority.ca))} if secure else {}
        assert str(run(reference, env, **trust).manifest.digest) == image.digest
