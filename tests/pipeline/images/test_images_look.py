"""Listing and inspecting: what is said about images, and what is read for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.registry import FakeRegistry
from support.tars import image_of, sha256, tar_of, write_layout

from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.images.files import files_of
from pipeline.images.inspect import BadSquashfs, check_no_file, inspect_image, inspect_squashfs, is_squashfs
from pipeline.images.listing import listing
from pipeline.images.pull import pull_image
from pipeline.oci import MANIFEST, Digest
from pipeline.squashfs import squash_entries
from pipeline.tree import Entry, Kind

CONFIG = {
    "created": "2024-02-03T04:05:06Z",
    "config": {"Entrypoint": ["/bin/x"], "Env": ["A=1"], "User": "7", "Labels": {"k": "v"}, "ExposedPorts": {"80": {}}},
    "history": [{"created_by": "one"}, {"created_by": "none", "empty_layer": True}, {"created_by": "two"}],
}


@pytest.fixture
def image() -> Any:
    return image_of(tar_of({"a": b"1"}), tar_of({"b": b"2"}), config=CONFIG)


def test_listing_says_what_a_pulled_image_is(env: Env, image: Any, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    pull_image(f"oci:{layout}:t", env)
    (found,) = listing(env.store)
    assert (found.kind, found.platform, found.layers) == ("image", "linux/amd64", 2)
    assert (found.created, found.reference) == (CONFIG["created"], f"oci:{layout}:t")
    assert found.size_bytes == len(image.manifest) + sum(map(len, image.blobs.values()))


def test_listing_tells_kinds_apart_and_survives_damage(env: Env, image: Any, tmp_path: Path) -> None:
    pull_image(f"oci:{write_layout(tmp_path / 'layout', {'t': image})}:t", env)
    env.store.tag("zones/z", env.store.put_manifest([], artifact_type="application/x"))
    env.store.tag("kernel/k", env.store.put(b"[]", MANIFEST))
    damaged = env.store.put(b'{"no": 1}', MANIFEST)
    env.store.tag("recipe/r", damaged)
    path = env.store.path(damaged.digest)
    path.chmod(0o644)
    path.write_bytes(b"altered!!")
    found = {item.name: item for item in listing(env.store)}
    assert {item.kind for item in found.values()} == {"image", "zone", "kernel", "recipe"}
    assert not found["zones/z"].damaged and found["zones/z"].layers == 0
    assert "no manifest" in found["kernel/k"].damaged
    assert str(damaged.digest) in found["recipe/r"].damaged


def test_inspecting_a_registrys_image_downloads_no_layer(env: Env, image: Any) -> None:
    registry = FakeRegistry()
    try:
        registry.add("app", "1", image)
        found = inspect_image(f"docker://{registry.host}/app:1", env)
        asked = [request.path for request in registry.requests]
    finally:
        registry.close()
    assert not any(layer in path for layer in image.layers for path in asked)
    assert len(asked) == 2, "the manifest and the config"
    assert str(found.digest) == image.digest
    assert found.config["Entrypoint"] == ["/bin/x"]
    assert [str(layer.digest) for layer in found.layers] == image.layers
    assert [layer.diff_id for layer in found.layers] == [sha256(tar_of({"a": b"1"})), sha256(tar_of({"b": b"2"}))]
    assert [layer.created_by for layer in found.layers] == ["one", "two"]


def test_inspecting_an_index_shows_its_platforms(env: Env, image: Any, tmp_path: Path) -> None:
    arm = image_of(tar_of({"a": b"1"}), architecture="arm64")
    layout = write_layout(tmp_path / "layout", {"amd": image, "arm": arm})
    entries = [
        {"mediaType": MANIFEST, "digest": one.digest, "size": len(one.manifest), "platform": platform}
        for one, platform in (
            (image, {"os": "linux", "architecture": "amd64"}),
            (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
            (arm, {"os": "unknown", "architecture": "unknown"}),
        )
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    (layout / "blobs/sha256" / sha256(index)[7:]).write_bytes(index)
    found = inspect_image(f"oci:{layout}@{sha256(index)}", env, platform="linux/arm64")
    assert str(found.index) == sha256(index)
    assert [offer.platform for offer in found.platforms] == ["linux/amd64", "linux/arm64/v8"]
    assert (str(found.digest), found.platform) == (arm.digest, "linux/arm64")


def test_inspecting_an_artifact_shows_its_type_and_titles(env: Env) -> None:
    layer = env.store.put(b"elf", "application/x.elf")
    titled = type(layer)(layer.media_type, layer.digest, 3, {"org.opencontainers.image.title": "init"})
    env.store.tag("os/init", env.store.put_manifest([titled], artifact_type="application/x", annotations={"a": "b"}))
    found = inspect_image("os/init", env)
    assert (found.artifact_type, found.annotations, found.platform) == ("application/x", {"a": "b"}, "")
    assert [layer.title for layer in found.layers] == ["init"]


@pytest.mark.parametrize("key", ["rootfs", "history", "config", "created", "os"])
@pytest.mark.parametrize("value", [None, 1, [], {}, "x", [None], {"diff_ids": [1, 2]}])
def test_config_of_odd_shape_is_shown_as_far_as_it_can_be(env: Env, tmp_path: Path, key: str, value: Any) -> None:
    image = image_of(tar_of({"a": b"1"}), tar_of({"b": b"2"}), config={key: value})
    found = inspect_image(f"oci:{write_layout(tmp_path / 'layout', {'t': image})}:t", env)
    assert len(found.layers) == 2


def test_files_of_a_merged_image(env: Env, image: Any, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    assert [entry.path for entry in files_of(f"oci:{layout}:t", env)] == [b"", b"a", b"b"]


def test_files_heal_what_is_damaged_in_the_store(env: Env, image: Any, tmp_path: Path) -> None:
    reference = f"oci:{write_layout(tmp_path / 'layout', {'t': image})}:t"
    pull_image(reference, env)
    path = env.store.path(Digest.parse(image.layers[1]))
    size = path.stat().st_size
    path.chmod(0o644)
    path.write_bytes(bytes(size))
    assert [entry.path for entry in files_of(reference, env)] == [b"", b"a", b"b"]


def test_squashfs_file_shows_the_digest_that_pack_printed(env: Env, tmp_path: Path) -> None:
    entries = [(Entry(b"", Kind.DIRECTORY), ()), (Entry(b"d", Kind.DIRECTORY), ())]
    blob = squash_entries(env.store, [*entries, (Entry(b"d/a", Kind.FILE, size_bytes=1), [b"1"])], compression="gzip")
    found = inspect_squashfs(env.store.path(blob.digest))
    assert (found.digest, found.size_bytes) == (blob.digest, blob.size_bytes)
    assert (found.compression, found.block_bytes, found.inodes) == ("gzip", 128 << 10, 3)
    assert found.made == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("data", [b"hsqs", b"hsqs" + bytes(200), b"hsqs" + b"\xff" * 200])
def test_file_that_only_begins_as_squashfs_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.squashfs"
    path.write_bytes(data)
    assert is_squashfs(path)
    with pytest.raises(BadSquashfs):
        inspect_squashfs(path)


def test_path_of_another_file_is_refused_with_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"x")
    assert not is_squashfs(path) and not is_squashfs(tmp_path / "nowhere") and not is_squashfs(Path("a\0b"))
    with pytest.raises(PipelineError, match="oci-archive:FILE"):
        check_no_file(str(path))
    check_no_file("nginx")
