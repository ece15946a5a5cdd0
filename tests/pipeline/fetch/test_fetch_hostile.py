"""Registries that lie, stall, babble and never end: what test_fetch_registry.py does not have of it."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fetching import QUICK
from support.registry import FakeRegistry, Fault, fake_registry
from support.tars import Image, image_of, sha256, tar_of

from pipeline import fetch
from pipeline.env import Env
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch.errors import BadImage, NoSuchImage, RegistryError
from pipeline.fetch.http import Patience, retry_after_s
from pipeline.fetch.manifest import Platform, candidates
from pipeline.oci import INDEX, MANIFEST, Digest

SHORT = Patience(attempts=3, backoff_s=0.001, wait_max_s=0.01, connect_s=5, read_s=5, deadline_s=0.7)
ATTESTATION = {"architecture": "unknown", "os": "unknown"}


@pytest.fixture(scope="module")
def image() -> Image:
    return image_of(tar_of({"a": random.Random(5).randbytes(200_000)}), tar_of({"b": b"2"}))


def run(reference: str, env: Env, platform: str = "linux/amd64", patience: Patience = QUICK) -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference, platform), env, patience=patience)


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_digest", [False, True])
@pytest.mark.parametrize("claimed", [sha256(b"other"), "sha512:" + "0" * 128, "sha256:12", "junk", ""])
def test_header_that_calls_the_manifest_something_else_is_refused(
    registry: FakeRegistry, env: Env, image: Image, claimed: str, by_digest: bool
) -> None:
    reference = registry.add("app", "1", image) + (f"@{image.digest}" if by_digest else "")
    registry.faults = [Fault("/manifests/", headers={"Docker-Content-Digest": claimed}, times=9)]
    with pytest.raises(DigestMismatch, match="manifest of "):
        run(reference, env)


def test_header_that_is_right_does_not_outrank_bytes_that_are_not(
    registry: FakeRegistry, env: Env, image: Image
) -> None:
    reference = f"{registry.add('app', '1', image)}@{image.digest}"
    other = image_of(tar_of({"evil": b"1"})).manifest
    registry.faults = [Fault("/manifests/", body=other, headers={"Docker-Content-Digest": image.digest}, times=9)]
    with pytest.raises(DigestMismatch):
        run(reference, env)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_body_without_a_length_is_taken_where_it_is_right(
    registry: FakeRegistry, env: Env, image: Image, framing: str
) -> None:
    registry.faults = [Fault("/v2/", framing=framing, times=99)]
    result = run(registry.add("app", "1", image), env)
    assert all(env.store.verify(layer.digest) for layer in result.layers)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_body_without_a_length_is_cut_at_one_byte_more(
    registry: FakeRegistry, env: Env, image: Image, framing: str
) -> None:
    longer = image.blobs[image.layers[0]] + bytes(20_000_000)
    registry.faults = [Fault(image.layers[0], framing=framing, body=longer, times=9)]
    with pytest.raises(DigestMismatch, match=r"layer 1/2 of .* bytes, got more"):
        run(registry.add("app", "1", image), env)


@pytest.mark.parametrize(
    "said", ["bytes 0-9/{size}", "bytes {next}-{last}/{size}", "bytes {begin}-{last}/5", "bytes */{size}", "junk", ""]
)
def test_part_that_is_not_the_one_asked_for_is_not_appended(
    registry: FakeRegistry, env: Env, image: Image, said: str
) -> None:
    size, begin = len(image.blobs[image.layers[0]]), 1000
    text = said.format(size=size, begin=begin, next=begin + 1, last=size - 1)
    wrong = Fault(image.layers[0], status=206, body=b"x" * 50, headers={"Content-Range": text})
    registry.faults = [Fault(image.layers[0], drop_at=begin), wrong]
    run(registry.add("app", "1", image), env)
    ranges = [request.headers.get("range") for request in registry.paths(image.layers[0])]
    assert ranges == [None, f"bytes={begin}-", None]


def test_range_that_cannot_be_had_is_begun_anew(registry: FakeRegistry, env: Env, image: Image) -> None:
    registry.faults = [Fault(image.layers[0], drop_at=1000), Fault(image.layers[0], status=416, body=b"x" * 99)]
    run(registry.add("app", "1", image), env)


@pytest.mark.parametrize("status", [206, 416])
@pytest.mark.parametrize("what", ["/manifests/", "/blobs/"])
def test_part_nobody_asked_for_is_refused(
    registry: FakeRegistry, env: Env, image: Image, status: int, what: str
) -> None:
    registry.faults = [Fault(what, status=status, body=b"x" * 99, times=99)]
    with pytest.raises(RegistryError, match=f"a part of it .{status}"):
        run(registry.add("app", "1", image), env)


def test_part_that_is_never_the_right_one_ends(registry: FakeRegistry, env: Env, image: Image) -> None:
    lie = {"Content-Range": "bytes 0-1/2"}
    registry.faults = [
        fault
        for _ in range(50)
        for fault in (
            Fault(image.layers[0], drop_at=1000),
            Fault(image.layers[0], status=206, body=b"x", headers=lie),
        )
    ]
    with pytest.raises(RegistryError, match="broken connection"):
        run(registry.add("app", "1", image), env)
    assert len(registry.paths(image.layers[0])) <= 2 * QUICK.attempts + 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\nx",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\nWWW-Authenticate: \x00\r\n\r\n\xff",
        b"HTTP/1.1 301 Moved\r\nLocation: \xff\xff\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://x:port/\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://x:99999999/\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http:///x\r\n\r\n",
        b"HTTP/1.1 307 Moved\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 300,
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: " + b"Bearer realm=" * 5000 + b"\r\n\r\n",
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://["\r\n\r\n',
    ],
    ids=lambda raw: repr(raw[9:50]),
)
def test_what_is_hardly_http_is_a_typed_error(registry: FakeRegistry, env: Env, image: Image, raw: bytes) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/v2/", raw=raw, times=99)]
    with pytest.raises(PipelineError):
        run(reference, env)


def test_error_without_end_is_not_read_to_its_end(registry: FakeRegistry, env: Env, image: Image) -> None:
    registry.faults = [Fault("/manifests/", status=403, body=b" " * 50_000_000)]
    begin = time.process_time()
    with pytest.raises(RegistryError, match="403"):
        run(registry.add("app", "1", image), env)
    assert time.process_time() - begin < 5  # the sender's side is in this process, too


@pytest.mark.parametrize(
    "body",
    [
        b'{"pad": "' + b"x" * (5 << 20) + b'"}',
        b"[" * 1_000_000,
        b'{"schemaVersion": 2, "schemaVersion": 2}',
        b'{"schemaVersion": NaN}',
        b"\xff\xfe",
        b"null",
        b"",
        b'{"schemaVersion": 2, "manifests": {}}',
        b'{"schemaVersion": 2, "manifests": [5]}',
        b'{"schemaVersion": 2, "manifests": [{}]}',
        b'{"schemaVersion": 2, "mediaType": [], "layers": []}',
        b'{"schemaVersion": 2, "config": 5, "layers": []}',
        b'{"schemaVersion": 2, "config": {"mediaType": "a", "size": 1e999, "digest": 5}, "layers": []}',
        b"<html>captive portal</html>",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_manifest_that_is_none_is_a_typed_error(registry: FakeRegistry, env: Env, body: bytes) -> None:
    registry.add_document("app", "1", body, MANIFEST)
    with pytest.raises(PipelineError):
        run(f"docker://{registry.host}/app:1", env)


def test_foreign_urls_of_a_layer_are_never_asked(registry: FakeRegistry, env: Env, image: Image) -> None:
    with fake_registry() as elsewhere:
        document = json.loads(image.manifest)
        for layer in document["layers"]:
            layer["urls"] = [f"http://{elsewhere.host}/blob"]
        registry.add_document("app", "1", json.dumps(document).encode(), MANIFEST)
        reference = f"docker://{registry.host}/app:1"
        with pytest.raises(NoSuchImage):
            run(reference, env)
        registry.blobs.update(image.blobs)
        run(reference, env)
        assert elsewhere.requests == []


def test_layer_of_a_foreign_kind_is_refused(registry: FakeRegistry, env: Env, image: Image) -> None:
    document = json.loads(image.manifest)
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    with pytest.raises(BadImage, match=r"layer 1/2 of .* expected a tar layer"):
        run(registry.add("app", "1", Image(json.dumps(document).encode(), image.config, image.blobs)), env)


def test_head_is_never_trusted_because_it_is_never_asked(registry: FakeRegistry, env: Env, image: Image) -> None:
    run(registry.add("app", "1", image), env)
    assert {request.method for request in registry.requests} == {"GET"}


def test_tag_that_moves_during_the_pull_changes_nothing(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference, other = registry.add("app", "1", image), image_of(tar_of({"other": b"1"}))
    serve = registry.take_fault

    def move(path: str) -> Fault | None:
        if "/blobs/" in path:
            registry.add("app", "1", other)
        return serve(path)

    registry.take_fault = move  # type: ignore[method-assign]
    result = run(reference, env)
    assert str(result.manifest.digest) == image.digest
    assert [str(layer.digest) for layer in result.layers] == image.layers


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("how", ["head", "body", "silent"])
def test_sender_that_drips_or_stalls_is_cut_at_the_deadline(
    registry: FakeRegistry, env: Env, image: Image, what: str, how: str
) -> None:
    fault = {
        "head": Fault(what, raw=b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 90, drip_s=0.1, times=99),
        "body": Fault(what, drip_s=0.1, times=99),
        "silent": Fault(what, delay_s=600, times=99),
    }[how]
    reference = registry.add("app", "1", image)
    registry.faults = [fault]
    begin = time.monotonic()
    with pytest.raises(RegistryError, match="an end within 1 s") as caught:
        run(reference, env, patience=SHORT)
    assert caught.value.temporary
    assert time.monotonic() - begin < 40  # of the minute and more that it would take


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for one in kept:
            one.close()


def test_tls_handshake_that_never_ends_is_cut_at_the_deadline(mute: int, env: Env, tmp_path: Path) -> None:
    from dataclasses import replace

    from support.certs import Authority

    from pipeline.config import Config, RegistryConfig

    trust = RegistryConfig(ca=str(Authority(tmp_path / "ca").ca))
    config = Config(registries={f"127.0.0.1:{mute}": trust})
    with pytest.raises(RegistryError, match="an end within 1 s"):
        run(f"docker://127.0.0.1:{mute}/app:1", replace(env, config=config), patience=SHORT)


def test_first_failure_does_not_wait_for_a_layer_that_stalls(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [
        Fault(image.layers[0], delay_s=600),
        Fault(image.layers[1], status=403, delay_s=0.3, times=9),
    ]
    begin = time.monotonic()
    with pytest.raises(RegistryError, match=r"layer 2/2 of .* got 403"):
        run(reference, env, patience=Patience())
    assert time.monotonic() - begin < 120  # of the ten minutes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("99999999999999999999", 999999999.0),
        ("-5", None),
        ("1.5", None),
        ("\u00b2", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Xxx 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +9999", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value) == expected


def test_retry_after_in_the_future_is_waited_for_within_bounds(registry: FakeRegistry, env: Env, image: Image) -> None:
    after = {"Retry-After": "Fri, 31 Dec 9998 23:59:59 GMT"}
    registry.faults = [Fault("/manifests/", status=503, headers=after, times=2)]
    run(registry.add("app", "1", image), env)
    assert len(registry.paths("/manifests/")) == 3


# -- indexes -----------------------------------------------------------------------------------------------------------


def entry(number: int, media_type: str = MANIFEST, **platform: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{number:064x}", "size": 1}
    if platform:
        found["platform"] = {key.replace("__", "."): value for key, value in platform.items()}
    return found


def chosen(platform: str, *entries: dict[str, Any]) -> list[int]:
    return [int(item.digest.hex, 16) for item in candidates(list(entries), Platform.parse(platform), subject="it")]


LINUX = {"os": "linux"}
ARM = [
    entry(1, **LINUX, architecture="arm", variant="v6"),
    entry(2, **LINUX, architecture="arm", variant="v7"),
    entry(3, **LINUX, architecture="arm64", variant="v8"),
    entry(4, **LINUX, architecture="amd64"),
    entry(5, **ATTESTATION),
]


@pytest.mark.parametrize(
    ("platform", "number"),
    [
        ("linux/arm/v7", 2),
        ("linux/arm", 1),
        ("linux/arm64", 3),
        ("linux/arm64/v8", 3),
        ("linux/aarch64", 3),
        ("linux/armhf", 2),
        ("linux/x86_64", 4),
        ("Linux/AMD64", 4),
        ("linux/amd64/v1", 4),
    ],
)
def test_variant_and_spelling_of_a_platform(platform: str, number: int) -> None:
    assert chosen(platform, *ARM) == [number]


@pytest.mark.parametrize(
    "platform", ["linux/arm/v5", "linux/arm64/v9", "windows/amd64", "unknown/unknown", "linux/s390x"]
)
def test_platform_that_is_not_there_lists_what_is(platform: str) -> None:
    with pytest.raises(NoSuchImage, match=r"only linux/arm/v6, linux/arm/v7, linux/arm64, linux/amd64$"):
        chosen(platform, *ARM)


def test_first_of_two_that_fit_is_taken_and_os_version_decides_nothing() -> None:
    amd64 = {"os": "linux", "architecture": "amd64"}
    assert chosen("linux/amd64", entry(1, **amd64, os__version="10.1"), entry(2, **amd64)) == [1]
    assert chosen("linux/amd64", entry(1, **amd64, variant="v3"), entry(2, **amd64)) == [2]


def test_entries_without_a_platform() -> None:
    other = entry(9, **LINUX, architecture="arm64")
    assert chosen("linux/amd64", entry(1)) == [1]
    assert chosen("linux/amd64", entry(1, INDEX), entry(2, INDEX)) == [1, 2]
    assert chosen("linux/arm64", entry(1, INDEX), other) == [9, 1]
    assert chosen("linux/amd64", entry(1), entry(5, **ATTESTATION), entry(7, "application/x-unknown")) == [1]
    for entries in ([entry(1), entry(2)], [entry(1), other], [], [entry(5, **ATTESTATION)]):
        with pytest.raises(NoSuchImage):
            chosen("linux/amd64", *entries)


@pytest.mark.parametrize("platform", [{"os": 5}, {"os": None, "architecture": []}, {}, {"os": "a" * 5000}])
def test_platform_of_wrong_types_is_none_that_fits(platform: dict[str, Any]) -> None:
    with pytest.raises(NoSuchImage):
        chosen("linux/amd64", {**entry(1), "platform": platform})


def index_of(registry: FakeRegistry, *entries: tuple[bytes, str, str]) -> bytes:
    """An index of documents with their media types and architectures, in the registry."""
    listed = []
    for data, media_type, architecture in entries:
        registry.add_document("app", sha256(data)[7:19], data, media_type)
        one: dict[str, Any] = {"mediaType": media_type, "digest": sha256(data), "size": len(data)}
        if architecture:
            one["platform"] = {"os": "linux", "architecture": architecture}
        listed.append(one)
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()


def test_platform_is_found_in_the_second_of_two_nested_indexes(registry: FakeRegistry, env: Env) -> None:
    images = {name: image_of(tar_of({"a": name.encode()}), architecture=name) for name in ("arm64", "amd64")}
    inner = []
    for name, image in images.items():
        registry.add("app", name, image)
        inner.append((index_of(registry, (image.manifest, MANIFEST, name)), INDEX, ""))
    registry.add_document("app", "all", index_of(registry, *inner), INDEX)
    for name, image in images.items():
        assert str(run(f"docker://{registry.host}/app:all", env, f"linux/{name}").manifest.digest) == image.digest
    with pytest.raises(NoSuchImage, match="only linux/arm64"):
        run(f"docker://{registry.host}/app:all", env, "linux/riscv64")


def test_many_indexes_with_nothing_in_them_end(registry: FakeRegistry, env: Env) -> None:
    other = image_of(tar_of({"a": b"1"}), architecture="arm64").manifest
    inner = [(index_of(registry, (other, MANIFEST, "arm64")) + b" " * n, INDEX, "") for n in range(50)]
    registry.add_document("app", "all", index_of(registry, *inner), INDEX)
    with pytest.raises(BadImage, match="at most 16 manifests to look at"):
        run(f"docker://{registry.host}/app:all", env)


def test_index_that_claims_to_hold_itself_is_refused(registry: FakeRegistry, env: Env) -> None:
    digest = sha256(b"no one knows the digest of what holds it")
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{"mediaType": INDEX, "digest": digest, "size": 1}],
    }
    data = json.dumps(document).encode()
    registry.add_document("app", "1", data, INDEX)
    registry.documents[f"app/{digest}"] = (data, INDEX)
    with pytest.raises(DigestMismatch):
        run(f"docker://{registry.host}/app:1", env)


def test_nothing_but_what_was_verified_is_in_the_store(registry: FakeRegistry, env: Env, image: Image) -> None:
    reference = registry.add("app", "1", image)
    registry.faults = [Fault("/blobs/" + image.layers[1], flip=5, times=9)]
    with pytest.raises(DigestMismatch):
        run(reference, env)
    assert list(env.store.tmp.iterdir()) == []
    for path in env.store.blobs.iterdir():
        assert Digest.of(path.read_bytes()).hex == path.name
