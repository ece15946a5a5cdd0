"""What images are called in the store, and what a user's words mean there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.registry import FakeRegistry
from support.tars import Image, image_of, sha256, tar_of, write_layout

from pipeline.env import Env
from pipeline.errors import PipelineError, StoreDamaged
from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.images.names import AmbiguousName, cut_name, find, shown_name, tag_of
from pipeline.images.pull import NotPulled, pull_image, untag
from pipeline.images.pull import image_of as stored_or_fetched
from pipeline.images.verify import verify_image
from pipeline.oci import MANIFEST
from pipeline.store import Store

ARM = "linux/arm64"


@pytest.fixture
def image() -> Image:
    return image_of(tar_of({"a": b"1"}))


@pytest.fixture
def layout(tmp_path: Path, image: Image) -> str:
    arm = image_of(tar_of({"a": b"2"}), architecture="arm64")
    return f"oci:{write_layout(tmp_path / 'layout', {'one': image, 'arm': arm})}"


@pytest.mark.parametrize(
    ("reference", "platform", "tag", "shown"),
    [
        ("nginx", "linux/amd64", "images/docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
        ("docker://r.example:5000/a:1", "linux/amd64", "images/r.example:5000/a:1", "r.example:5000/a:1"),
        ("r.example/a:1", ARM, "images/r.example/a:1+linux/arm64", "r.example/a:1+linux/arm64"),
        ("r.example/a:1", "linux/x86_64", "images/r.example/a:1", "r.example/a:1"),
        ("oci:/d:t", "linux/amd64", "images/oci:/d:t", "images/oci:/d:t"),
        ("recipe:nginx", "linux/amd64", "images/recipe:nginx", "images/recipe:nginx"),
    ],
)
def test_name_of_a_pulled_image(reference: str, platform: str, tag: str, shown: str) -> None:
    assert tag_of(reference, platform) == tag
    assert shown_name(tag) == shown


def test_name_does_not_depend_on_the_directory_one_is_in(
    env: Env, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pull_image("oci:layout:one", env)
    assert list(env.store.tags()) == [f"images/{layout}:one"]


def test_pull_names_the_image_and_says_where_it_came_from_and_when(env: Env, layout: str, image: Image) -> None:
    result = pull_image(f"{layout}:one", env)
    assert str(result.digest) == image.digest
    (named,) = env.store.tags().values()
    assert str(named.digest) == image.digest
    assert named.annotations["dev.zonewright.image.reference"] == f"{layout}:one"
    assert named.annotations["dev.zonewright.image.platform"] == "linux/amd64"
    assert named.annotations["dev.zonewright.image.pulled"].endswith("Z")


def test_second_pull_writes_nothing(env: Env, layout: str) -> None:
    pull_image(f"{layout}:one", env)
    index = env.store.root / "index.json"
    before = index.stat().st_ino
    pull_image(f"{layout}:one", env)
    assert index.stat().st_ino == before


def test_artifact_is_pulled_whole_and_named(env: Env, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    layer = other.put(b"elf", "application/x.elf")
    other.tag("os/init", other.put_manifest([layer], artifact_type="application/x"))
    reference = f"oci:{other.root}:os/init"
    for _ in range(2):
        manifest = pull_image(reference, env)
    assert env.store.verify(layer.digest)
    assert env.store.tags()[f"images/{reference}"].digest == manifest.digest
    assert not verify_image(reference, env).damaged


def test_image_that_is_wrong_is_not_taken_for_an_artifact(env: Env, tmp_path: Path) -> None:
    image = image_of(tar_of({"a": b"1"}))
    document = json.loads(image.manifest)
    document["layers"][0]["mediaType"] = "application/x-zip"
    image.manifest = json.dumps(document).encode()
    with pytest.raises(BadImage, match="expected a tar layer"):
        pull_image(f"oci:{write_layout(tmp_path / 'layout', {'t': image})}:t", env)
    assert env.store.tags() == {}


def test_two_platforms_of_one_reference_are_two_names(env: Env, layout: str) -> None:
    pull_image(f"{layout}:arm", env, platform=ARM)
    stored = find(f"images/{layout}:arm+linux/arm64", env.store)
    assert stored is not None and stored.platform == ARM
    assert stored_or_fetched(f"images/{layout}:arm+linux/arm64", env).manifest.digest == stored.manifest.digest


def test_without_its_transport_a_pulled_reference_is_the_stores(env: Env, image: Image) -> None:
    registry = FakeRegistry()
    try:
        registry.add("app", "1", image)
        pull_image(f"docker://{registry.host}/app:1", env)
        asked = len(registry.requests)
        assert str(stored_or_fetched(f"{registry.host}/app:1", env).manifest.digest) == image.digest
        assert len(registry.requests) == asked
        stored_or_fetched(f"docker://{registry.host}/app:1", env)
        assert len(registry.requests) == asked + 1
    finally:
        registry.close()


def test_offline_a_tag_means_what_it_did_when_it_was_pulled(env: Env, image: Image, tmp_path: Path) -> None:
    registry = FakeRegistry()
    registry.add("app", "1", image)
    reference = f"docker://{registry.host}/app:1"
    pull_image(reference, env)
    registry.close()
    offline = Env(env.store, offline=True)
    assert str(pull_image(reference, offline).digest) == image.digest
    assert stored_or_fetched(reference, offline).reference == reference
    with pytest.raises(PipelineError, match="offline"):
        pull_image(f"docker://{registry.host}/app:2", offline)


def test_digest_or_its_beginning_names_an_image(env: Env, layout: str, image: Image) -> None:
    pull_image(f"{layout}:one", env)
    for text in (image.digest, image.digest[:19]):
        stored = find(text, env.store)
        assert stored is not None and str(stored.manifest.digest) == image.digest
    with pytest.raises(NoSuchImage, match="expected a manifest in the store"):
        find("sha256:" + "0" * 12, env.store)


def test_beginning_of_two_digests_is_refused(env: Env) -> None:
    seen: dict[str, bytes] = {}
    for number in range(1 << 20):
        data = str(number).encode()
        begin = sha256(data)[:13]
        if begin in seen:
            break
        seen[begin] = data
    env.store.tag("recipe/a", env.store.put(data, MANIFEST))
    env.store.tag("recipe/b", env.store.put(seen[begin], MANIFEST))
    with pytest.raises(AmbiguousName, match="expected the beginning of one"):
        find(begin, env.store)


def test_name_as_the_table_cuts_it_is_found(env: Env, layout: str, image: Image) -> None:
    pull_image(f"{layout}@{image.digest}", env)
    (tag,) = env.store.tags()
    assert cut_name(tag) == f"images/{layout}@{image.digest[:19]}"
    stored = find(cut_name(tag), env.store)
    assert stored is not None and stored.name == tag
    assert cut_name("a@sha256:abc:1") == "a@sha256:abc:1"


def test_misspelt_name_says_what_may_have_been_meant(env: Env) -> None:
    env.store.tag("recipe/nginx", env.store.put(b"{}", MANIFEST))
    with pytest.raises(NoSuchImage, match=r"did you mean recipe/nginx\?"):
        find("recipe/ngnix", env.store)


def test_image_of_the_store_that_lacks_a_blob_says_what_brings_it_again(env: Env, layout: str, image: Image) -> None:
    pull_image(f"{layout}:one", env)
    result = stored_or_fetched(f"images/{layout}:one", env)
    env.store.path(result.layers[0].digest).unlink()
    with pytest.raises(StoreDamaged, match=f"got no {image.layers[0]} .zone image pull {layout}:one"):
        stored_or_fetched(f"images/{layout}:one", env)
    assert stored_or_fetched(f"{layout}:one", env).layers == result.layers, "asked where it says, it is whole again"


def test_untag_takes_the_name_and_leaves_the_blobs(env: Env, layout: str) -> None:
    manifest = pull_image(f"{layout}:one", env)
    assert untag([f"{layout}:one"], env.store) == [f"images/{layout}:one"]
    assert env.store.tags() == {}
    assert env.store.verify(manifest.digest)


def test_untag_by_digest_takes_every_name(env: Env, layout: str, image: Image) -> None:
    pull_image(f"{layout}:one", env)
    pull_image(f"{layout}@{image.digest}", env)
    assert len(untag([image.digest[:19], f"images/{layout}:one"], env.store)) == 2, "each once"
    assert env.store.tags() == {}


@pytest.mark.parametrize(
    ("name", "task"), [("zones/nginx", "bundle zone=nginx"), ("recipe/nginx", "recipe:nginx"), ("os/init", "os:init")]
)
def test_untag_leaves_what_was_built_here(env: Env, layout: str, name: str, task: str) -> None:
    pull_image(f"{layout}:one", env)
    env.store.tag(name, env.store.put(b"{}", MANIFEST))
    with pytest.raises(NotPulled, match=f"doit {task} made"):
        untag([f"{layout}:one", name], env.store)
    assert set(env.store.tags()) == {name, f"images/{layout}:one"}, "one refused, none taken"
