"""Pushes to Debian's docker-registry, some through a proxy that breaks what a test tells it to."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.certs import Authority
from support.dockerregistry import docker_registry
from support.proxy import Proxy, Trouble, proxy_to
from support.tars import image_of, tar_of
from support.tokenserver import token_server

from pipeline import fetch
from pipeline.config import Config, RegistryConfig
from pipeline.env import Env
from pipeline.errors import PipelineError, StoreDamaged
from pipeline.fetch.errors import BadReference, RegistryError
from pipeline.fetch.http import Patience
from pipeline.fetch.reference import RegistryReference, parse
from pipeline.fetch.registry import RegistrySource
from pipeline.oci import CONFIG, INDEX, LAYER_GZIP, MANIFEST, Descriptor, Digest
from pipeline.progress import Progress
from pipeline.remote.push import push
from pipeline.remote.upload import DOUBTS, Uploads
from pipeline.store import Store

pytestmark = pytest.mark.network

QUICK = Patience(attempts=4, connect_s=60, read_s=60, deadline_s=240, backoff_s=0.01, wait_max_s=0.05)
CHUNK = 64 << 10
# htpasswd -nbB ada "s3cret word"
HTPASSWD = "ada:$2b$05$abcdefghijklmnopqrstuuDM.KJwaIBUdFNSI0sjlLSPixyAOKFFm"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.remote.upload.CHUNK_BYTES", CHUNK)


def reference(host: str, name: str = "app/web", tag: str = "1") -> RegistryReference:
    found = parse(f"docker://{host}/{name}:{tag}")
    assert isinstance(found, RegistryReference)
    return found


def put_image(store: Store, *layers: bytes) -> Descriptor:
    """An image whose manifest is not JSON as we would write it."""
    image = image_of(*(tar_of({"f": data}) for data in layers))
    for data in image.blobs.values():
        store.put(data)
    document = json.loads(image.manifest)
    return store.put(json.dumps(document, indent=3).encode() + b"\n", MANIFEST)


def artifact(store: Store, *blobs: bytes) -> Descriptor:
    return store.put_manifest([store.put(blob) for blob in blobs], artifact_type="application/vnd.test")


def pushed(host: str, name: str = "app/web", tag: str = "1") -> bytes:
    source = RegistrySource(reference(host, name, tag))
    try:
        return source.manifest(tag, subject="test")[0]
    finally:
        source.close()


def go(store: Store, manifest: Descriptor, to: RegistryReference, **options: Any) -> RegistryReference:
    return push(store, manifest, to, progress=Progress(), patience=QUICK, **options)


def test_manifest_keeps_its_bytes_and_skopeo_reads_the_image(upstream: str, store: Store, tmp_path: Path) -> None:
    manifest = put_image(store, b"one" * 100_000, b"two")
    to = go(store, manifest, reference(upstream, "as/is"))
    assert str(to) == f"docker://{upstream}/as/is:1@{manifest.digest}"
    assert pushed(upstream, "as/is") == store.read(manifest.digest)
    out = tmp_path / "out"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
    subprocess.run([*copy, f"docker://{upstream}/as/is:1", f"oci:{out}:t"], check=True)
    assert fetch.run(fetch.FetchParams(str(to)), Env(Store(tmp_path / "other"))).manifest.digest == manifest.digest


@pytest.mark.parametrize("name", ["app", "my.org/app", "a/b/c/d"])
def test_any_repository_name_will_do(upstream: str, store: Store, name: str) -> None:
    manifest = artifact(store, b"x")
    go(store, manifest, reference(upstream, name))
    assert pushed(upstream, name) == store.read(manifest.digest)


def test_blobs_that_are_there_are_not_sent_again(proxy: Proxy, store: Store) -> None:
    shared = os.urandom(1000)
    go(store, artifact(store, shared), reference(proxy.host, "dedup"))
    before = len(proxy.asked("PUT", "/blobs/"))
    go(store, artifact(store, shared, b"new" + os.urandom(8)), reference(proxy.host, "dedup", "2"))
    assert len(proxy.asked("PUT", "/blobs/")) == before + 1


def test_tag_is_the_last_request(proxy: Proxy, store: Store) -> None:
    go(store, artifact(store, os.urandom(CHUNK * 3 + 5), os.urandom(10)), reference(proxy.host, "last"))
    assert proxy.requests[-1][:2] == ("PUT", "/v2/last/manifests/1")
    assert len(proxy.asked("PUT", "/manifests/")) == 1


def test_nested_index_is_pushed_from_the_inside_out(proxy: Proxy, store: Store) -> None:
    first, second = put_image(store, b"a"), put_image(store, b"b")

    def index(*entries: Descriptor) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry.to_json() for entry in entries]}
        return store.put(json.dumps(document).encode(), INDEX)

    outer = index(first, index(second))
    go(store, outer, reference(proxy.host, "multi"))
    names = [path.rsplit("/", 1)[1] for path in proxy.asked("PUT", "/manifests/")]
    assert names[-1] == "1" and set(names[:-1]) >= {str(first.digest), str(second.digest)}
    assert pushed(proxy.host, "multi") == store.read(outer.digest)


def test_index_with_an_image_that_was_not_fetched_is_refused_before_anything_is_sent(
    proxy: Proxy, store: Store
) -> None:
    absent = Descriptor(MANIFEST, Digest.of(b"absent"), 6)
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [absent.to_json()]}
    with pytest.raises(StoreDamaged, match="every image of the index in the store"):
        go(store, store.put(json.dumps(document).encode(), INDEX), reference(proxy.host, "partial"))
    assert proxy.requests == []


@pytest.mark.parametrize("size", [100, CHUNK * 5 + 1], ids=["whole", "chunks"])
def test_damaged_blob_is_named_and_gets_no_tag(proxy: Proxy, store: Store, size: int) -> None:
    blob = store.put(os.urandom(size))
    manifest = store.put_manifest([blob], artifact_type="application/vnd.test")
    path = store.path(blob.digest)
    data = bytearray(path.read_bytes())
    data[size // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match=blob.digest.hex):
        go(store, manifest, reference(proxy.host, f"damaged{size}"))
    assert proxy.asked("PUT", "/manifests/") == []
    assert not any(str(blob.digest) in path for path in proxy.asked("PUT", "/blobs/"))


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("PATCH", status=503, times=2),
        Trouble("PATCH", lose=CHUNK // 2),
        Trouble("PATCH", swallow=True),
        Trouble("PATCH", cut=0),
        Trouble("POST", status=429, headers={"Retry-After": "0"}),
        Trouble("PUT", "/blobs/", swallow=True),
        Trouble("PUT", "/blobs/", status=500),
        Trouble("PUT", "/blobs/", status=400),
        Trouble("PUT", "/manifests/", swallow=True),
        Trouble("PUT", "/manifests/", status=503),
        Trouble("HEAD", status=502),
    ],
    ids=lambda trouble: f"{trouble.method}-{trouble.match.strip('/')}-{trouble.status or 'broken'}",
)
def test_push_survives(proxy: Proxy, store: Store, trouble: Trouble) -> None:
    data = os.urandom(CHUNK * 6 + 17)
    name = f"survives{os.urandom(4).hex()}"
    proxy.troubles.append(trouble)
    go(store, artifact(store, data), reference(proxy.host, name))
    assert trouble.times == 0
    source, writer_store = RegistrySource(reference(proxy.host, name)), store
    blob = Descriptor("", Digest.of(data), len(data))
    with writer_store.writer() as writer:
        source.copy(blob, writer, lambda amount: None, "test")
        writer.commit(expected=blob)
    source.close()


def test_broken_chunk_is_resumed_where_it_broke(proxy: Proxy, store: Store) -> None:
    proxy.keeps_state = True
    proxy.troubles.append(Trouble("PATCH", lose=1000))
    size = CHUNK * 6
    go(store, artifact(store, os.urandom(size)), reference(proxy.host, "resumed"))
    sent = sum(size for method, _, size in proxy.requests if method == "PATCH")
    assert len(proxy.asked("POST")) == 2  # the blob's and the empty config's: no second beginning
    assert sent == size + CHUNK - 1000


def test_registry_that_says_again_and_again_that_good_bytes_are_others_is_believed(proxy: Proxy, store: Store) -> None:
    refusal = Trouble("PUT", "/blobs/", status=400, body=b'{"errors": [{"code": "DIGEST_INVALID"}]}', times=1000)
    proxy.troubles.append(refusal)
    with pytest.raises(RegistryError, match="to take it, got 400 DIGEST_INVALID"):
        go(store, artifact(store, os.urandom(1000)), reference(proxy.host, "doubted"))
    assert DOUBTS < len(proxy.asked("PUT", "/blobs/")) <= 2 * (DOUBTS + 1) and proxy.asked("PUT", "/manifests/") == []


@pytest.mark.parametrize("times", [1, DOUBTS, 1000])
def test_registry_that_says_that_a_manifest_names_bad_digests_is_asked_again(
    proxy: Proxy, store: Store, times: int
) -> None:
    refusal = Trouble("PUT", "/manifests/", status=400, body=b'{"errors": [{"code": "DIGEST_INVALID"}]}', times=times)
    proxy.troubles.append(refusal)
    believed = times > DOUBTS
    with pytest.raises(RegistryError, match="400 DIGEST_INVALID") if believed else contextlib.nullcontext():
        go(store, artifact(store, os.urandom(100)), reference(proxy.host, f"named{times}"))
    assert len(proxy.asked("PUT", "/manifests/")) == min(times, DOUBTS) + 1


def test_manifest_that_is_refused_for_another_reason_is_sent_once(proxy: Proxy, store: Store) -> None:
    body = b'{"errors": [{"code": "MANIFEST_INVALID"}]}'
    proxy.troubles.append(Trouble("PUT", "/manifests/", status=400, body=body, times=1000))
    with pytest.raises(RegistryError, match="400 MANIFEST_INVALID"):
        go(store, artifact(store, os.urandom(100)), reference(proxy.host, "refused"))
    assert len(proxy.asked("PUT", "/manifests/")) == 1


def test_registry_that_stays_broken_is_one_sentence_and_no_tag(proxy: Proxy, store: Store) -> None:
    proxy.troubles.append(Trouble("PATCH", status=503, times=1000))
    with pytest.raises(RegistryError, match=r"expected an answer, got 503") as caught:
        go(store, artifact(store, os.urandom(CHUNK * 2)), reference(proxy.host, "broken"))
    assert "\n" not in str(caught.value) and proxy.asked("PUT", "/manifests/") == []


def test_registry_that_is_not_there_is_one_sentence(store: Store) -> None:
    with pytest.raises(RegistryError, match="Connection refused"):
        go(store, artifact(store, b"x"), reference("127.0.0.1:1"))


def test_stalled_registry_ends_within_the_deadline(proxy: Proxy, store: Store) -> None:
    proxy.troubles.append(Trouble("HEAD", stall_s=3, times=1000))
    patience = dataclasses.replace(QUICK, read_s=0.2, deadline_s=1)
    with pytest.raises(RegistryError):
        push(store, artifact(store, b"x"), reference(proxy.host), progress=Progress(), patience=patience)


def test_redirect_of_an_upload_to_another_host_carries_no_authorization(upstream: str, store: Store) -> None:
    with proxy_to(upstream) as front, proxy_to(upstream) as elsewhere:
        elsewhere.troubles.append(Trouble("PUT", status=201, times=10))
        location = {"Location": f"http://{elsewhere.host}/v2/x/blobs/uploads/1"}
        front.troubles.append(Trouble("POST", status=401, headers={"WWW-Authenticate": 'Basic realm="r"'}))
        front.troubles.append(Trouble("POST", status=202, headers=location, times=10))
        config = write_config(Path(store.root).parent, front.host, "ada:s3cret word")
        uploads = Uploads(reference(front.host, "x"), patience=QUICK, docker_config=config)
        uploads.blob(store, store.put(b"data"), "test", lambda amount: None)
        uploads.close()
        assert front.authorizations[1].startswith("Basic ")
        assert elsewhere.authorizations == [""]


def write_config(directory: Path, host: str, user: str) -> Path:
    path = directory / "docker" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(user.encode()).decode()}}}))
    return path


def log_in(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(path.parent))


def test_basic_authentication(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD + "\n")
    extra = f"auth: {{htpasswd: {{realm: 'a, \"realm\"', path: {tmp_path}/htpasswd}}}}\n"
    with docker_registry(tmp_path, extra=extra) as host:
        manifest = artifact(store, b"x" * 1000)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
        with pytest.raises(RegistryError, match="leave to push, got 401"):
            go(store, manifest, reference(host))
        log_in(monkeypatch, write_config(tmp_path, host, "ada:wrong"))
        with pytest.raises(RegistryError, match="401"):
            go(store, manifest, reference(host))
        log_in(monkeypatch, write_config(tmp_path, host, "ada:s3cret word"))
        go(store, manifest, reference(host))
        assert pushed(host) == store.read(manifest.digest)


@pytest.mark.parametrize("lifetime_s", [300, 1], ids=["lasting", "expiring"])
def test_bearer_token_with_pull_and_push(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, lifetime_s: int
) -> None:
    with (
        token_server(tmp_path, "ada:s3cret word", lifetime_s=lifetime_s) as tokens,
        docker_registry(tmp_path, extra=tokens.registry_config) as host,
    ):
        log_in(monkeypatch, write_config(tmp_path, host, "ada:s3cret word"))
        manifest = artifact(store, *(os.urandom(CHUNK * 20) for _ in range(4)))
        go(store, manifest, reference(host, "team/app"))
        assert {frozenset(scope.rsplit(":", 1)[1].split(",")) for scope in tokens.scopes} >= {
            frozenset({"pull", "push"})
        }
        assert all(scope.startswith("repository:team/app:") for scope in tokens.scopes)


def test_credential_helper(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\nread host\necho \'{"Username": "ada", "Secret": "s3cret word"}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    with (
        token_server(tmp_path, "ada:s3cret word") as tokens,
        docker_registry(tmp_path, extra=tokens.registry_config) as host,
    ):
        path = write_config(tmp_path, host, "x:y")
        path.write_text(json.dumps({"credHelpers": {host: "test"}}))
        log_in(monkeypatch, path)
        go(store, artifact(store, b"x"), reference(host))


def test_secrets_are_in_no_error(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    with (
        token_server(tmp_path, "ada:right") as tokens,
        docker_registry(tmp_path, extra=tokens.registry_config) as host,
    ):
        log_in(monkeypatch, write_config(tmp_path, host, "ada:canary-of-a-secret"))
        with pytest.raises(PipelineError) as caught:
            go(store, artifact(store, b"x"), reference(host))
    encoded = base64.b64encode(b"ada:canary-of-a-secret").decode()
    for text in (str(caught.value), repr(caught.value), caplog.text):
        assert "canary" not in text and encoded not in text


def test_digest_in_the_target_has_to_be_the_pushed_one(store: Store) -> None:
    to = dataclasses.replace(reference("127.0.0.1:1"), digest=Digest.of(b"other"))
    with pytest.raises(BadReference, match="that of what is pushed"):
        go(store, artifact(store, b"x"), to)


def test_memory_does_not_grow_with_the_blob(upstream: str, store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pipeline.remote.upload.CHUNK_BYTES", 1 << 20)
    big = tmp_path / "big"
    with open(big, "wb") as file:
        for _ in range(24):
            file.write(os.urandom(1 << 20))
    blob, uploads = store.put_file(big), Uploads(reference(upstream, "memory"), patience=QUICK)
    tracemalloc.start()
    try:
        uploads.blob(store, blob, "test", lambda amount: None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
        uploads.close()


def test_image_types_of_docker_registry_are_accepted(upstream: str, store: Store) -> None:
    config = store.put(b'{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', CONFIG)
    layer = store.put(b"not really gzip", LAYER_GZIP)
    go(store, store.put_manifest([layer], config=config), reference(upstream, "types"))


def test_registry_with_a_certificate_of_its_own_authority(tmp_path: Path, store: Store) -> None:
    known, stranger = Authority(tmp_path / "known"), Authority(tmp_path / "stranger")
    certificate, key = known.issue("127.0.0.1")
    ours = known.issue("client", client=True)
    tls = f"{{certificate: {certificate}, key: {key}, clientcas: [{known.ca}]}}"
    with docker_registry(tmp_path, tls=tls) as host:
        settings = RegistryConfig(ca=str(known.ca), certificate=str(ours[0]), key=str(ours[1]))
        manifest = artifact(store, b"x")
        to = go(store, manifest, reference(host), config=Config(registries={host: settings}))
        assert to.digest == manifest.digest
        distrustful = Config(registries={host: dataclasses.replace(settings, ca=str(stranger.ca))})
        with pytest.raises(RegistryError, match=r"TLS with a certificate for 127\.0\.0\.1 that is trusted here"):
            go(store, manifest, reference(host), config=distrustful)


@pytest.mark.parametrize(("insecure", "prefix"), [(False, "https"), (True, "http")])
def test_plain_http_beyond_loopback_is_for_those_who_ask(insecure: bool, prefix: str) -> None:
    config = Config(registries={"registry.test:5000": RegistryConfig(insecure=insecure)})
    uploads = Uploads(reference("registry.test:5000"), config=config)
    assert uploads._oras.prefix == prefix
    uploads.close()
