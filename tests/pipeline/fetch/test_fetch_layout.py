"""Fetching from OCI layouts and from the store's own names."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.tars import Image, image_of, sha256, tar_of, write_layout

from pipeline import fetch, unpack
from pipeline.env import Env
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch.artifact import fetch_artifact
from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.limits import Limits
from pipeline.oci import MANIFEST
from pipeline.store import Store


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "store"), offline=True)


@pytest.fixture
def image() -> Image:
    return image_of(tar_of({"a": b"1"}), tar_of({"b": b"2"}))


def run(reference: str, env: Env) -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference), env)


def test_layout_by_tag_by_digest_and_alone(env: Env, image: Image, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"one": image})
    for name in (f"oci:{layout}:one", f"oci:{layout}@{image.digest}", f"oci:{layout}"):
        result = run(name, env)
        assert str(result.manifest.digest) == image.digest
        assert result.reference == name
    assert all(env.store.verify(layer.digest) for layer in result.layers)


def test_layout_with_several_images_needs_a_tag(env: Env, image: Image, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"one": image, "two": image_of(tar_of({"c": b"3"}))})
    with pytest.raises(NoSuchImage, match="there: one, two"):
        run(f"oci:{layout}", env)
    with pytest.raises(NoSuchImage, match="tag three"):
        run(f"oci:{layout}:three", env)


def test_directory_that_is_no_layout(env: Env, tmp_path: Path) -> None:
    with pytest.raises(NoSuchImage, match="an OCI layout"):
        run(f"oci:{tmp_path}", env)
    with pytest.raises(NoSuchImage, match="an OCI layout"):
        run(f"oci:{tmp_path}/missing", env)


@pytest.mark.parametrize("change", ["flip", "cut", "longer", "missing"])
@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_damaged_layout_is_refused(env: Env, image: Image, tmp_path: Path, change: str, what: str) -> None:
    layout = write_layout(tmp_path / "layout", {"one": image})
    digest = {"manifest": image.digest, "config": sha256(image.config), "layer": image.layers[1]}[what]
    path = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    data = path.read_bytes()
    match change:
        case "flip":
            path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"x" * 5_000_000)
        case "missing":
            path.unlink()
    with pytest.raises((DigestMismatch, NoSuchImage)):
        run(f"oci:{layout}:one", env)
    assert digest.removeprefix("sha256:") not in os.listdir(env.store.blobs)
    assert os.listdir(env.store.tmp) == []


@pytest.mark.parametrize("way", ["image", "artifact"])
def test_blob_larger_than_any_layer_may_be_is_refused_before_a_byte_of_it_is_read(
    env: Env, image: Image, tmp_path: Path, way: str
) -> None:
    layout = write_layout(tmp_path / "layout", {"one": image})
    limited = replace(env, config=replace(env.config, limits=Limits(layer_bytes=1)))
    with pytest.raises(BadImage, match=r"expected at most 1 bytes, got \d+ \(layer_bytes under"):
        if way == "image":
            run(f"oci:{layout}:one", limited)
        else:
            fetch_artifact(f"oci:{layout}:one", limited)
    assert not {digest.removeprefix("sha256:") for digest in image.layers} & set(os.listdir(env.store.blobs))


def test_recipe_is_found_by_its_name_in_the_store(env: Env, image: Image) -> None:
    for blob in image.blobs.values():
        env.store.put(blob)
    manifest = env.store.put(image.manifest, MANIFEST)
    env.store.tag("recipe/app", manifest)
    assert run("recipe:app", env).manifest.digest == manifest.digest
    with pytest.raises(NoSuchImage, match="recipe/other in the store"):
        run("recipe:other", env)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nginx", "./doit recipe:nginx makes it"),
        ("debian-cloud", "./doit kernel:debian-cloud makes it"),
        ("ngimx", "did you mean nginx?"),
    ],
)
def test_a_recipe_that_has_not_run_says_what_makes_it(env: Env, name: str, hint: str) -> None:
    with pytest.raises(NoSuchImage) as caught:
        run(f"recipe:{name}", env)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"manifests": []}, "either manifests or config"),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "mediaType"),
        ({"schemaVersion": 3}, "schemaVersion 2"),
        ({"schemaVersion": 1}, "schema 1"),
        ({"layers": None}, "a list of layers"),
        ({"layers": [{"mediaType": "text/plain", "size": 0, "digest": sha256(b"")}]}, "a tar layer"),
        ({"layers": [{"mediaType": MANIFEST, "size": -1, "digest": sha256(b"")}]}, "size of 0 or more"),
        ({"layers": [{"mediaType": MANIFEST, "size": 2**63, "digest": sha256(b"")}]}, "size of 0 or more"),
        ({"layers": [{"mediaType": MANIFEST, "size": 10**400, "digest": sha256(b"")}]}, "size of 0 or more"),
        ({"layers": [{"mediaType": MANIFEST, "size": 1, "digest": "sha256:AB"}]}, "digest"),
        ({"config": {"mediaType": "text/plain", "size": 0, "digest": sha256(b"")}}, "an image config"),
    ],
)
def test_manifest_that_contradicts_itself_is_refused(
    env: Env, image: Image, tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    image.manifest = json.dumps({**json.loads(image.manifest), **change}).encode()
    layout = write_layout(tmp_path / "layout", {"one": image})
    with pytest.raises(PipelineError, match=expected):
        run(f"oci:{layout}:one", env)


@pytest.mark.parametrize(
    "rootfs",
    [
        None,
        {"type": "other", "diff_ids": []},
        {"type": "layers", "diff_ids": ["sha256:" + "0" * 63, sha256(b"")]},
        {"type": "layers", "diff_ids": ["md5:" + "0" * 32, sha256(b"")]},
        {"type": "layers", "diff_ids": [sha256(b"")] * 3},
    ],
)
def test_config_whose_rootfs_cannot_be_is_refused(env: Env, tmp_path: Path, rootfs: object) -> None:
    image = image_of(tar_of({"a": b"1"}), tar_of({"b": b"2"}), config={"rootfs": rootfs})
    with pytest.raises(PipelineError):
        run(f"oci:{write_layout(tmp_path / 'layout', {'one': image})}", env)


def test_image_for_another_architecture_is_refused(env: Env, tmp_path: Path) -> None:
    image = image_of(tar_of({"a": b"1"}), architecture="arm64")
    with pytest.raises(NoSuchImage, match="linux/amd64, got one whose architecture is 'arm64'"):
        run(f"oci:{write_layout(tmp_path / 'layout', {'one': image})}", env)


def test_index_that_holds_itself_by_nesting_ends(env: Env, image: Image, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"one": image})
    kind = "application/vnd.oci.image.index.v1+json"
    inner = {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    for _ in range(8):
        document = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [inner]}).encode()
        (layout / "blobs" / "sha256" / sha256(document).removeprefix("sha256:")).write_bytes(document)
        inner = {"mediaType": kind, "digest": sha256(document), "size": len(document)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [inner]}))
    with pytest.raises(BadImage, match="indexes inside each other"):
        run(f"oci:{layout}", env)


@pytest.mark.parametrize(
    "config",
    [
        b'{"rootfs": {"type": "layers", "diff_ids": []}, "rootfs": {"type": "layers", "diff_ids": []}}',
        b'{"rootfs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"size": NaN, "rootfs": {"type": "layers", "diff_ids": []}}',
        b"\xef\xbb\xbf{}",
        b'{"Env": "\xff"}',
        b"[]",
        b'{"pad": "' + b"x" * (5 << 20) + b'"}',
    ],
    ids=["key twice", "depth", "NaN", "BOM", "no UTF-8", "a list", "5 MiB"],
)
def test_hostile_config_is_a_typed_error(env: Env, tmp_path: Path, config: bytes) -> None:
    image = image_of()
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": sha256(config), "size": len(config)}
    hostile = Image(json.dumps(manifest).encode(), config, {sha256(config): config})
    with pytest.raises(PipelineError):
        run(f"oci:{write_layout(tmp_path / 'layout', {'one': hostile})}", env)


def test_sha512_digests_are_verified_too(env: Env, tmp_path: Path) -> None:
    tar = tar_of({"a": b"1"})
    name = "sha512:" + hashlib.sha512(tar).hexdigest()
    image = image_of(tar, compression="none", config={"rootfs": {"type": "layers", "diff_ids": [name]}})
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["digest"] = name
    image.manifest = json.dumps(manifest).encode()
    layout = write_layout(tmp_path / "layout", {"one": image})
    path = layout / "blobs" / "sha512" / name.removeprefix("sha512:")
    path.parent.mkdir()
    path.write_bytes(tar)
    result = run(f"oci:{layout}", env)
    assert str(result.layers[0].digest) == name
    tree = unpack.run(unpack.UnpackParams(result), env)
    assert tree.entries == 2
    path.write_bytes(tar[:-1] + b"x")
    with pytest.raises(DigestMismatch, match="sha512:"):
        run(f"oci:{layout}", Env(Store(tmp_path / "other")))


def test_layer_is_inflated_by_what_it_is_not_by_its_media_type(env: Env, tmp_path: Path) -> None:
    tar = tar_of({"a": b"1"})
    image = image_of(tar, compression="zstd")
    image.manifest = image.manifest.replace(b"tar+zstd", b"tar+gzip")
    result = run(f"oci:{write_layout(tmp_path / 'layout', {'one': image})}", env)
    assert unpack.run(unpack.UnpackParams(result), env).entries == 2


def test_image_without_layers_is_an_empty_root(env: Env, tmp_path: Path) -> None:
    result = run(f"oci:{write_layout(tmp_path / 'layout', {'one': image_of()})}", env)
    assert unpack.run(unpack.UnpackParams(result), env).entries == 1
