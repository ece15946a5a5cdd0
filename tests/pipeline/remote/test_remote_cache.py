"""Two hosts, one registry: what was built on one is not built on the other, whatever the registry does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Proxy, Trouble
from support.tars import image_of, tar_of, write_layout

from pipeline import fetch, squash, unpack
from pipeline.config import CacheConfig, Config
from pipeline.env import open_env
from pipeline.fetch.errors import BadReference
from pipeline.fetch.reference import RegistryReference
from pipeline.fetch.registry import RegistrySource
from pipeline.oci import MANIFEST, Descriptor, Digest
from pipeline.pack import pack_image
from pipeline.progress import Progress
from pipeline.remote import keys
from pipeline.remote.cache import RegistryCache, open_cache
from pipeline.remote.statement import Statement, tag_of, write
from pipeline.remote.upload import Uploads
from pipeline.remote.verify import verify
from pipeline.store import Store

pytestmark = pytest.mark.network
KEY = "5" * 64
Make = Callable[..., Any]


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image of two layers; its reference names a directory of the host, which is no one else's business."""
    layers = [tar_of({"etc/": None, "etc/passwd": b"root:x:0:0::/root:/bin/sh\n"}), tar_of({"big": b"0123" * 50_000})]
    return f"oci:{write_layout(tmp_path / 'private-directory', {'t': image_of(*layers)})}:t"


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with each file system that is written."""
    from pipeline.squash import formats

    runs: list[str] = []
    write_one = formats.squash_rootfs

    def counted(*arguments: Any, **options: Any) -> Any:
        runs.append("squashfs")
        return write_one(*arguments, **options)

    monkeypatch.setattr(formats, "squash_rootfs", counted)
    return runs


def pack(host: Any, image: str) -> bytes:
    out = host.directory / "out.squashfs"
    pack_image(image, out, env=host.env)
    return bytes(out.read_bytes())


def result_of(store: Store, *contents: bytes) -> tuple[dict[str, Any], list[Descriptor]]:
    blobs = [store.put(content) for content in contents]
    return {"parts": [blob.to_json() for blob in blobs]}, blobs


def tags(host: Any) -> list[str]:
    """The tags of the cache, and that each of them can be read by who believes its key."""
    source = RegistrySource(host.cache._reference)
    with_blobs = source._client.get(source.base + "/tags/list", {}, subject="tags")
    listed: list[str] = json.loads(with_blobs.read()).get("tags") or []
    source.close()
    return listed


def test_second_host_builds_nothing_and_gets_the_same_bytes(make_host: Make, image: str, written: list[str]) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    bytes_of_first = pack(first, image)
    assert written == ["squashfs"]
    assert pack(second, image) == bytes_of_first
    assert written == ["squashfs"]
    assert first.lines == [] and second.lines == []
    assert second.cache.counts == {"taken": 1, "missed": 0, "given": 0}  # the packed image: no layer is needed


def test_results_of_every_stage_are_shared(make_host: Make, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_host("a", sign=True), make_host("b")

    def stages(host: Any) -> Any:
        fetched = fetch.run(fetch.FetchParams(image), host.env)
        tree = unpack.run(unpack.UnpackParams(fetched), host.env)
        return squash.run(squash.SquashParams(tree), host.env)

    made = stages(first)
    for place in ("fetch.stage._fetch", "unpack.stage._unpack", "squash.formats.squash_rootfs"):
        monkeypatch.setattr(f"pipeline.{place}", lambda *_, **__: pytest.fail("built"))
    assert stages(second) == made


def test_paths_of_the_publisher_stay_private(make_host: Make, image: str, proxy: Proxy) -> None:
    host = make_host("a", sign=True)
    pack(host, image)
    source = RegistrySource(host.cache._reference)
    for tag in tags(host):
        assert b"private-directory" not in source.manifest(tag, subject=tag)[0]
    source.close()


def test_host_without_pinned_keys_takes_nothing_and_says_so_once(make_host: Make, image: str, proxy: Proxy) -> None:
    first, second = make_host("a", sign=True), make_host("b", keys=())
    made = pack(first, image)
    proxy.requests.clear()
    assert pack(second, image) == made
    assert proxy.requests == []
    (line,) = second.lines
    assert "no key is pinned" in line


def test_host_without_signing_key_only_reads(make_host: Make, image: str, proxy: Proxy) -> None:
    pack(make_host("b"), image)
    assert {method for method, _, _ in proxy.requests} == {"GET"}


def test_statement_of_another_key_is_not_believed(
    make_host: Make, image: str, written: list[str], tmp_path: Path
) -> None:
    first = make_host("a", sign=True)
    second = make_host("b", keys=(keys.generate(tmp_path / "other.pem"),))
    made = pack(first, image)
    assert pack(second, image) == made
    assert written == ["squashfs"] * 2
    (line,) = second.lines
    assert "signed by a key of [cache] keys" in line


def forge(host: Any, tag_key: str, **changes: Any) -> None:
    """Publish a manifest as it should not be, by the cache's own client."""
    private = keys.load_private(Path(host.config.cache.signing_key))
    result, blobs = result_of(host.store, b"good")
    made = Statement(changes.get("key", tag_key), result, tuple(blobs))
    document = json.loads(write(made, private, host.store.put(b"{}")))
    for name, value in changes.get("annotations", {}).items():
        document["annotations"][name] = value(document["annotations"][name])
    uploads = Uploads(host.cache._reference)
    for blob in (*blobs, host.store.put(b"{}")):
        uploads.blob(host.store, blob, "forge", lambda amount: None)
    uploads.manifest(tag_of(tag_key), json.dumps(document).encode(), MANIFEST, "forge")
    uploads.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "6" * 64}, "one about another"),
        ({"annotations": {"dev.zonewright.statement": lambda old: old.replace("good", "evil") + " "}}, "signed by"),
        ({"annotations": {"dev.zonewright.signature": lambda old: old[:-8] + "AAAAAAA="}}, "signed by"),
        ({"annotations": {"dev.zonewright.signature": lambda old: "§"}}, "base64"),
        ({"annotations": {"dev.zonewright.statement": lambda old: ""}}, "signed by"),
    ],
    ids=["another-action", "altered-statement", "altered-signature", "no-signature", "no-statement"],
)
def test_forged_statement_is_a_miss_said_once(make_host: Make, changes: dict[str, Any], said: str) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    forge(first, KEY, **changes)
    for _ in range(2):
        assert second.cache.lookup(KEY, second.store, second.said) is None
    (line,) = second.lines
    assert said in line and line.endswith("; building here")


def test_true_statement_is_believed(make_host: Make) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    forge(first, KEY)
    result = second.cache.lookup(KEY, second.store, second.said)
    assert second.store.read(Digest.parse(result["parts"][0]["digest"])) == b"good" and second.lines == []


def test_altered_blob_is_refused_and_built_here(make_host: Make, image: str, written: list[str], proxy: Proxy) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    made = pack(first, image)
    proxy.troubles.append(Trouble("GET", "/blobs/", flip=True, times=1000))
    assert pack(second, image) == made
    assert written == ["squashfs"] * 2
    (line,) = second.lines
    assert "digest" in line and "building here" in line


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(status=503, times=1000),
        Trouble(status=429, headers={"Retry-After": "3600"}, times=1000),
        Trouble(status=401, times=1000),
        Trouble("GET", "/blobs/", cut=0, times=1000),
        Trouble("GET", "/manifests/", cut=7, times=1000),
        Trouble("GET", "/blobs/", status=404, times=1000),
        Trouble(stall_s=2, times=1000),
    ],
    ids=["503", "429", "401", "truncated-blobs", "truncated-manifests", "half-written", "stalled"],
)
def test_build_goes_on_when_the_registry(make_host: Make, image: str, proxy: Proxy, trouble: Trouble) -> None:
    made = pack(make_host("a", sign=True), image)
    second = make_host("b", timeout_s=0.3 if trouble.stall_s else 240)
    proxy.requests.clear()
    proxy.troubles.append(trouble)
    assert pack(second, image) == made
    (line,) = second.lines
    assert line.endswith("; building here"), line
    if trouble.status != 404:
        assert len(proxy.requests) <= 12  # one result's attempts: a registry that fails is not asked again


def test_build_goes_on_when_nothing_listens(make_host: Make, image: str) -> None:
    host = make_host("b", sign=True, remote="docker://127.0.0.1:1/cache")
    pack(host, image)
    (line,) = host.lines
    assert "Connection refused" in line and host.cache.counts["given"] == 0


def test_failure_is_forgotten_by_the_next_run(make_host: Make, image: str, proxy: Proxy, written: list[str]) -> None:
    pack(make_host("a", sign=True), image)
    second = make_host("b")
    proxy.troubles.append(Trouble(status=503, times=2))
    assert second.cache.lookup(KEY, second.store, second.said) is None and second.lines
    second.new_run()
    pack(second, image)
    assert second.lines == [] and written == ["squashfs"]


def test_huge_manifest_is_refused_before_it_is_all_read(make_host: Make, proxy: Proxy) -> None:
    second = make_host("b")
    proxy.troubles.append(Trouble("GET", "/manifests/", status=200, body=b" " * (64 << 20), times=2))
    assert second.cache.lookup(KEY, second.store, second.said) is None
    (line,) = second.lines
    assert "a statement and its signature" in line


def test_tag_is_put_after_every_blob(make_host: Make, proxy: Proxy) -> None:
    host = make_host("a", sign=True)
    host.cache.offer(KEY, *result_of(host.store, b"1", b"2", b"3"), host.store, host.said)
    puts = proxy.asked("PUT")
    assert len(puts) == 5 and puts[-1].endswith(f"/manifests/k-{KEY}")


def test_publication_that_breaks_anywhere_leaves_no_tag_or_a_whole_result(make_host: Make, proxy: Proxy) -> None:
    counting, reader = make_host("a", sign=True), make_host("b")
    counting.cache.offer("e" * 64, *result_of(counting.store, b"{} is there now"), counting.store, counting.said)
    proxy.requests.clear()
    counting.cache.offer("0" * 64, *result_of(counting.store, b"count", b"these"), counting.store, counting.said)
    points = len(proxy.requests)
    assert points > 8
    for point in range(points):
        key = f"{point + 1:064x}"
        counting.new_run()
        result, blobs = result_of(counting.store, b"1%d" % point, b"2%d" % point)
        proxy.requests.clear()
        proxy.break_after = point
        counting.cache.offer(key, result, blobs, counting.store, counting.said)
        proxy.break_after = None
        reader.new_run()
        found = reader.cache.lookup(key, reader.store, reader.said)
        assert found in (None, result) and reader.lines == []
        assert len(counting.lines) == 1 and "stays here" in counting.lines[0]


def test_other_outputs_for_a_key_do_not_replace_the_first(make_host: Make) -> None:
    first, second = make_host("a", sign=True), make_host("b", sign=True)
    result, blobs = result_of(first.store, b"first")
    first.cache.offer(KEY, result, blobs, first.store, first.said)
    second.cache.offer(KEY, *result_of(second.store, b"second"), second.store, second.said)
    (line,) = second.lines
    assert "other outputs" in line and "not reproducible" in line
    assert make_host("c").cache.lookup(KEY, Store(first.directory / "c"), Progress()) == result


def test_entry_that_nobody_known_signed_is_left_alone(make_host: Make, tmp_path: Path) -> None:
    keys.generate(tmp_path / "stranger.pem")
    stranger = make_host("a", sign=True, signing_key=str(tmp_path / "stranger.pem"))
    result, blobs = result_of(stranger.store, b"theirs")
    stranger.cache.offer(KEY, result, blobs, stranger.store, stranger.said)
    host = make_host("b", sign=True)
    host.cache.offer(KEY, *result_of(host.store, b"ours"), host.store, host.said)
    (line,) = host.lines
    assert "no known key signed" in line
    assert stranger.cache.lookup(KEY, stranger.store, stranger.said) is None


def test_blob_the_registry_lost_is_given_again(make_host: Make, proxy: Proxy, upstream: str) -> None:
    host = make_host("a", sign=True)
    result, blobs = result_of(host.store, b"to be lost")
    host.cache.offer(KEY, result, blobs, host.store, host.said)
    source = RegistrySource(host.cache._reference)
    url = f"{source.base}/blobs/{blobs[0].digest}"
    proxy.troubles.append(Trouble("HEAD", str(blobs[0].digest), status=404))
    before = len(proxy.asked("PUT", "/blobs/"))
    host.cache.offer(KEY, result, blobs, host.store, host.said)
    assert len(proxy.asked("PUT", "/blobs/")) == before + 1, url
    source.close()


def test_concurrent_publishers_make_one_whole_result(make_host: Make) -> None:
    hosts = [make_host(f"h{number}", sign=True) for number in range(4)]
    ready = threading.Barrier(len(hosts))

    def publish(host: Any) -> None:
        offered = result_of(host.store, b"same", b"bytes" * 1000)
        ready.wait()
        host.cache.offer(KEY, *offered, host.store, host.said)

    threads = [threading.Thread(target=publish, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = make_host("reader")
    assert reader.cache.lookup(KEY, reader.store, reader.said) == result_of(hosts[0].store, b"same", b"bytes" * 1000)[0]
    assert [host.lines for host in hosts] == [[]] * len(hosts)


def test_result_with_a_lost_local_blob_is_not_published(make_host: Make, proxy: Proxy) -> None:
    host = make_host("a", sign=True)
    result, blobs = result_of(host.store, b"soon gone")
    host.store.path(blobs[0].digest).unlink()
    host.cache.offer(KEY, result, blobs, host.store, host.said)
    assert proxy.asked("PUT", "/manifests/") == [] and len(host.lines) == 1


def test_image_taken_from_the_cache_is_whole(make_host: Make) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    layer = first.store.put(b"layer")
    manifest = first.store.put_manifest([layer], artifact_type="application/vnd.test")
    first.cache.offer(KEY, {"manifest": manifest.to_json()}, [manifest], first.store, first.said)
    second.cache.lookup(KEY, second.store, second.said)
    assert second.store.has(layer) and second.store.read(Digest.of(b"{}")) == b"{}"


def test_signing_key_that_others_can_read_is_not_used(make_host: Make, tmp_path: Path, proxy: Proxy) -> None:
    host = make_host("a", sign=True)
    (tmp_path / "signing.pem").chmod(0o644)
    host.cache.offer(KEY, *result_of(host.store, b"x"), host.store, host.said)
    (line,) = host.lines
    assert "expected mode 0600, got 0644" in line and proxy.asked("PUT") == []


def test_offline_has_no_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    online = open_env(Progress(), cache="docker://127.0.0.1:1/cache").remote
    assert isinstance(online, RegistryCache)
    assert online._reference == RegistryReference("127.0.0.1:1", "cache", "latest")
    assert open_env(Progress(), cache="docker://127.0.0.1:1/cache", offline=True).remote is None
    assert open_env(Progress()).remote is None


@pytest.mark.parametrize("remote", ["oci:/dir", "docker://host.example/x@sha256:" + "0" * 64, "https://x"])
def test_cache_that_is_no_repository_is_refused(remote: str) -> None:
    with pytest.raises(BadReference):
        open_cache(Config(cache=CacheConfig(remote=remote)))


def test_slow_registry_costs_its_time_out_once(make_host: Make, proxy: Proxy) -> None:
    host = make_host("b", timeout_s=0.3)
    proxy.troubles.append(Trouble(stall_s=3, times=1000))
    begin = time.monotonic()
    for number in range(20):
        assert host.cache.lookup(f"{number:064x}", host.store, host.said) is None
    assert len(proxy.requests) <= 2 and len(host.lines) == 1, time.monotonic() - begin


def test_what_was_built_before_can_be_published(make_host: Make, image: str, written: list[str]) -> None:
    first, second = make_host("a"), make_host("b")
    made = pack(first, image)
    signing = make_host("a", sign=True)
    signing.cache.offer_all(signing.store, signing.said)
    assert signing.cache.counts["given"] == len(tags(signing)) >= 3  # fetch, unpack, squash, perhaps layers' indexes
    assert pack(second, image) == made and written == ["squashfs"]


def test_verify_builds_again_and_finds_the_same(make_host: Make, image: str, written: list[str]) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    pack(first, image)
    verdict = verify(image, second.env, second.cache)
    assert sorted(verdict.same) == sorted(tag.removeprefix("k-") for tag in tags(first)) and verdict.other == []
    assert written == ["squashfs"] * 2


def test_verify_names_a_result_that_comes_out_otherwise(
    make_host: Make, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_host("a", sign=True), make_host("b")
    monkeypatch.setattr("pipeline.squash.formats.squash_rootfs", lambda store, *_, **__: store.put(b"another writer"))
    pack(first, image)
    monkeypatch.undo()
    verdict = verify(image, second.env, second.cache)
    assert len(verdict.same) == 2 and len(verdict.other) == 2  # squash, and pack which it is in
    assert all("not reproducible" in line for line in second.lines) and second.lines
