"""Bundles and recipes' images from one store to another, through Debian's docker-registry, a layout and an archive."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import pytest
from support.proxy import Proxy, Trouble

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, Process
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch.errors import BadReference, NoSuchImage
from pipeline.oci import BadDocument, Descriptor, canonical_json
from pipeline.recipe import UnknownName
from pipeline.remote.bundles import BundleClash, is_reference, publish_bundle, publish_recipe, pull_bundle
from pipeline.store import Store

pytestmark = pytest.mark.network


@pytest.fixture
def here(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "here"))


@pytest.fixture
def there(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "there"))


@pytest.fixture
def repository(upstream: str, tmp_path: Path) -> str:
    return f"{upstream}/zones/{tmp_path.name.replace('_', '-').rstrip('-').lower()}"


def make(env: Env, name: str = "web", rootfs: bytes = b"rootfs") -> Bundle:
    put = env.store.put
    bundle = Bundle(
        name=name,
        kernel=put(b"kernel"),
        kernel_release="6.1",
        initrd=(put(b"base"), put(b"modules")),
        modules=(),
        rootfs=put(rootfs),
        addons=put(b"addons"),
        process=Process(("/bin/true",), ()),
    )
    manifest.write(env.store, bundle)
    return bundle


def test_bundle_comes_to_an_empty_store_as_the_same_bytes(here: Env, there: Env, repository: str) -> None:
    made = make(here)
    published = publish_bundle(here, "web", repository)
    assert str(published) == f"docker://{repository}:latest@{here.store.tags()['zones/web'].digest}"
    found, bundle = pull_bundle(there, repository)
    assert bundle == made and found.digest == published.digest
    assert manifest.find(there.store, "web")[1] == made
    for part in manifest.parts(made):
        assert there.store.read(part.digest) == here.store.read(part.digest)


def test_digest_pins_what_is_taken(here: Env, there: Env, repository: str) -> None:
    make(here)
    first = publish_bundle(here, "web", repository)
    make(here, rootfs=b"newer")
    second = publish_bundle(here, "web", repository)
    assert first.digest != second.digest
    assert pull_bundle(there, f"docker://{repository}@{first.digest}")[0].digest == first.digest


def test_bundle_that_is_here_needs_no_registry(here: Env, there: Env, repository: str, proxy: Proxy) -> None:
    make(here)
    pinned = f"docker://{proxy.host}/{repository.partition('/')[2]}@{publish_bundle(here, 'web', repository).digest}"
    pull_bundle(there, pinned)
    proxy.requests.clear()
    assert pull_bundle(dataclasses.replace(there, offline=True), pinned)[1].name == "web"
    assert proxy.requests == []


def test_altered_part_is_refused_and_nothing_gets_the_name(
    here: Env, there: Env, repository: str, proxy: Proxy
) -> None:
    make(here)
    publish_bundle(here, "web", repository)
    proxy.troubles.append(Trouble("GET", "/blobs/", flip=True))
    with pytest.raises(PipelineError, match="digest"):
        pull_bundle(there, f"{proxy.host}/{repository.partition('/')[2]}")
    assert there.store.tags() == {}


def test_layout_and_archive_are_references_too(here: Env, there: Env, tmp_path: Path) -> None:
    made = make(here)
    assert pull_bundle(there, f"oci:{here.store.root}:zones/web")[1] == made
    archive = tmp_path / "web.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(here.store.root / name, name)
    assert pull_bundle(Env(Store(tmp_path / "third")), f"oci-archive:{archive}:zones/web")[1] == made


def test_bundle_built_here_keeps_its_name(here: Env, there: Env, repository: str) -> None:
    make(here)
    publish_bundle(here, "web", repository)
    own = make(there, rootfs=b"own")
    with pytest.raises(BundleClash, match=r"got sha256:\w+, built here .zone boot --replace"):
        pull_bundle(there, repository)
    assert manifest.find(there.store, "web")[1] == own
    assert pull_bundle(there, repository, replaces=True)[1] == manifest.find(there.store, "web")[1] != own


def test_newer_bundle_of_the_same_place_takes_the_name(here: Env, there: Env, repository: str) -> None:
    make(here)
    publish_bundle(here, "web", f"{repository}:1")
    pull_bundle(there, f"{repository}:1")
    newer = make(here, rootfs=b"newer")
    publish_bundle(here, "web", f"{repository}:2")
    pull_bundle(there, f"{repository}:2")
    assert manifest.find(there.store, "web")[1] == newer
    publish_bundle(here, "web", f"{repository}-elsewhere")
    make(here, rootfs=b"newest")
    publish_bundle(here, "web", f"{repository}-elsewhere")
    with pytest.raises(BundleClash, match=f"from docker://{repository}"):
        pull_bundle(there, f"{repository}-elsewhere")


def test_image_is_no_bundle(here: Env, there: Env, repository: str) -> None:
    here.store.tag("zones/web", here.store.put_manifest([here.store.put(b"x")], artifact_type="application/vnd.other"))
    with pytest.raises(BadDocument, match="artifactType"):
        publish_bundle(here, "web", repository)
    with pytest.raises(BadDocument, match="artifactType"):
        pull_bundle(there, f"oci:{here.store.root}:zones/web")


@pytest.mark.parametrize("name", ["../web", "a/b", "", "x" * 64, "a b"])
def test_bundle_whose_name_is_no_zone_name_is_refused(here: Env, there: Env, name: str) -> None:
    bundle = dataclasses.replace(make(here), name=name)
    named(here, bundle, manifest.parts(bundle))
    with pytest.raises(BadDocument, match="a zone's name"):
        pull_bundle(there, f"oci:{here.store.root}:t")


def test_bundle_whose_parts_are_not_in_it_is_refused(here: Env, there: Env) -> None:
    bundle = make(here)
    named(here, bundle, [part for part in manifest.parts(bundle) if part.digest != bundle.rootfs.digest])
    with pytest.raises(BadDocument, match=r"rootfs.squashfs among its layers"):
        pull_bundle(there, f"oci:{here.store.root}:t")


def named(env: Env, bundle: Bundle, parts: list[Descriptor]) -> None:
    from pipeline.jsonmodel import to_json

    config = env.store.put(canonical_json(to_json(bundle)), manifest.SPEC)
    document = env.store.put_manifest(parts, config=config, artifact_type=manifest.ARTIFACT_TYPE)
    env.store.tag("t", document)


def test_zone_that_is_not_built_cannot_be_published(here: Env, repository: str) -> None:
    make(here, "web")
    with pytest.raises(UnknownName, match="did you mean web"):
        publish_bundle(here, "wep", repository)


def test_recipe_is_published_as_an_ordinary_image(here: Env, repository: str) -> None:
    with pytest.raises(NoSuchImage, match="doit recipe:nginx"):
        publish_recipe(here, "nginx", repository)
    image = here.store.put_manifest([here.store.put(b"layer")], artifact_type="application/vnd.test")
    here.store.tag("recipe/nginx", image)
    assert publish_recipe(here, "nginx", f"{repository}:1").digest == image.digest


def test_target_has_to_be_a_repository(here: Env) -> None:
    make(here)
    with pytest.raises(BadReference, match="of a registry"):
        publish_bundle(here, "web", "oci:/somewhere")


@pytest.mark.parametrize(
    ("word", "is_one"),
    [("nginx", False), ("my_zone-2", False), ("docker://h/x", True), ("h:5000/x", True), ("oci:dir", True)],
)
def test_reference_is_told_from_a_name(word: str, is_one: bool) -> None:
    assert is_reference(word) is is_one
