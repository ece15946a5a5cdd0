"""Verifying: every object of an image is hashed again, and each damaged one named."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tars import Image, image_of, sha256, tar_of, write_layout

from pipeline.env import Env
from pipeline.images.pull import pull_image
from pipeline.images.verify import verify_image
from pipeline.oci import Digest


@pytest.fixture
def image() -> Image:
    return image_of(tar_of({"a": b"1" * 5000}), tar_of({"b": b"2" * 5000}))


@pytest.fixture
def reference(env: Env, image: Image, tmp_path: Path) -> str:
    reference = f"oci:{write_layout(tmp_path / 'layout', {'t': image})}:t"
    pull_image(reference, env)
    return reference


def damage(env: Env, digest: str, how: str) -> None:
    path = env.store.path(Digest.parse(digest))
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "missing":
        return
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(data if how == "flip" else data[: len(data) // 2] if how == "cut" else data + b"x")


def test_every_object_of_a_good_image_is_good(env: Env, image: Image, reference: str) -> None:
    found = verify_image(f"images/{reference}", env)
    assert [item.what for item in found.objects] == ["manifest", "config", "layer 1/2", "layer 2/2"]
    assert not found.damaged
    assert [item.diff_id for item in found.objects[2:]] == [
        sha256(tar_of({n: v * 5000})) for n, v in (("a", b"1"), ("b", b"2"))
    ]


@pytest.mark.parametrize("how", ["flip", "cut", "longer", "missing"])
@pytest.mark.parametrize("what", ["manifest", "config", "layer 2/2"])
def test_damaged_object_is_named_and_the_next_pull_heals_it(
    env: Env, image: Image, reference: str, what: str, how: str
) -> None:
    config = next(digest for digest in image.blobs if digest not in image.layers)
    digest = {"manifest": image.digest, "config": config, "layer 2/2": image.layers[1]}[what]
    damage(env, digest, how)
    found = verify_image(image.digest if how != "missing" else f"images/{reference}", env)
    assert [str(item.digest) for item in found.damaged] == [digest]
    assert digest in str(found.error()) and what in str(found.error())
    assert ("missing" if how == "missing" else "altered") in str(found.error())
    pull_image(reference, env)
    assert not verify_image(f"images/{reference}", env).damaged


def test_every_damaged_object_is_named(env: Env, image: Image, reference: str) -> None:
    for digest in image.layers:
        damage(env, digest, "flip")
    assert [str(item.digest) for item in verify_image(f"images/{reference}", env).damaged] == image.layers


def test_layer_that_is_not_what_its_diff_id_says_is_found(env: Env, tmp_path: Path) -> None:
    config = {"rootfs": {"type": "layers", "diff_ids": [sha256(b"another")]}}
    image = image_of(tar_of({"a": b"1"}), config=config)
    pull_image(f"oci:{write_layout(tmp_path / 'layout', {'t': image})}:t", env)
    (wrong,) = verify_image(image.digest, env).damaged
    assert wrong.what == "layer 1/1" and "diff_id" in wrong.fault


def test_reference_is_fetched_to_be_verified(env: Env, image: Image, tmp_path: Path) -> None:
    found = verify_image(f"oci:{write_layout(tmp_path / 'other', {'t': image})}:t", env)
    assert len(found.objects) == 4 and not found.damaged


def test_artifact_is_verified_without_diff_ids(env: Env) -> None:
    layer = env.store.put(b"elf" * 100, "application/x.elf")
    env.store.tag("os/init", env.store.put_manifest([layer], artifact_type="application/x"))
    assert not verify_image("os/init", env).damaged
    damage(env, str(layer.digest), "flip")
    assert [item.what for item in verify_image("os/init", env).damaged] == ["layer 1/1"]
