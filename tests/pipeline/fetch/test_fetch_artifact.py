"""Artifacts that are no images, fetched whole; what an image's manifest says besides, kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.fetching import QUICK
from support.registry import FakeRegistry
from support.tars import Image, image_of, sha256, tar_of, write_layout

from pipeline import fetch
from pipeline.env import Env
from pipeline.errors import DigestMismatch
from pipeline.fetch.artifact import fetch_artifact
from pipeline.fetch.errors import BadImage, RegistryError
from pipeline.oci import MANIFEST, Digest

KIND = "application/vnd.example.thing.v1"


def artifact(*payloads: bytes, **more: Any) -> Image:
    """A manifest of an artifact with the empty config, embedded as well."""
    layers = [
        {"mediaType": KIND, "digest": sha256(data), "size": len(data), "annotations": {"a": "../../../etc/passwd"}}
        for data in payloads
    ]
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": "e30="}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": KIND, "config": empty, "layers": layers}
    blobs = {sha256(data): data for data in (b"{}", *payloads)}
    return Image(json.dumps(document | more, indent=3).encode(), b"{}", blobs)


def test_artifact_comes_whole_with_its_manifest_as_it_was_written(registry: FakeRegistry, env: Env) -> None:
    thing = artifact(b"one", b"two" * 9999, b"one")
    reference = registry.add("things/it", "1", thing)
    found = fetch_artifact(reference, env, patience=QUICK)
    assert (found.media_type, str(found.digest), found.size_bytes) == (MANIFEST, thing.digest, len(thing.manifest))
    assert env.store.read(found.digest) == thing.manifest
    for name, data in thing.blobs.items():
        assert env.store.read(Digest.parse(name)) == data
        assert len(registry.paths(name)) == 1
    registry.requests.clear()
    assert fetch_artifact(f"{reference}@{thing.digest}", Env(env.store, offline=True)) == found
    assert registry.requests == []


def test_artifact_from_a_layout(env: Env, tmp_path: Path) -> None:
    thing = artifact(b"one")
    layout = write_layout(tmp_path / "layout", {"t": thing})
    assert str(fetch_artifact(f"oci:{layout}:t", env).digest) == thing.digest


def test_altered_blob_of_an_artifact_is_refused(registry: FakeRegistry, env: Env) -> None:
    thing = artifact(b"one", b"two")
    reference = registry.add("things/it", "1", thing)
    registry.blobs[sha256(b"two")] = b"TWO"
    with pytest.raises(DigestMismatch, match="blob 3/3 of "):
        fetch_artifact(reference, env, patience=QUICK)
    assert not env.store.path(Digest.parse(sha256(b"two"))).exists()


def test_artifact_is_no_image_and_the_error_says_what_it_is(registry: FakeRegistry, env: Env) -> None:
    with pytest.raises(BadImage, match=f"expected an image config, got .*empty.* .it is an artifact of type {KIND}"):
        fetch.run(fetch.FetchParams(registry.add("things/it", "1", artifact(b"one"))), env, patience=QUICK)


def test_offline_artifact_that_is_not_there_is_refused(registry: FakeRegistry, env: Env) -> None:
    reference = registry.add("things/it", "1", artifact(b"one"))
    with pytest.raises(RegistryError, match="offline"):
        fetch_artifact(reference, Env(env.store, offline=True))
    assert registry.requests == []


def test_annotations_and_artifact_type_of_an_image_are_kept(registry: FakeRegistry, env: Env) -> None:
    image = image_of(tar_of({"a": b"1"}))
    said = {"annotations": {"org.example.title": "../../etc/passwd", "x": ""}, "artifactType": KIND}
    image.manifest = json.dumps(json.loads(image.manifest) | said).encode()
    result = fetch.run(fetch.FetchParams(registry.add("app", "1", image)), env, patience=QUICK)
    assert (result.annotations, result.artifact_type) == (said["annotations"], KIND)


@pytest.mark.parametrize(
    "change",
    [{"annotations": {"a": 5}}, {"annotations": ["a"]}, {"artifactType": 5}, {"layers": [{}] * 600}],
    ids=["number", "list", "type", "600 layers"],
)
def test_manifest_of_wrong_types_is_refused(registry: FakeRegistry, env: Env, change: dict[str, Any]) -> None:
    with pytest.raises(BadImage, match="expected"):
        fetch_artifact(registry.add("app", "1", artifact(b"1", **change)), env, patience=QUICK)


@pytest.mark.parametrize("data", ["", "e30", "e3s=", "e30=e30=", 5, "%"])
def test_embedded_data_that_is_something_else_is_refused(registry: FakeRegistry, env: Env, data: object) -> None:
    thing = artifact(b"one")
    document = json.loads(thing.manifest)
    document["config"]["data"] = data
    thing.manifest = json.dumps(document).encode()
    with pytest.raises(BadImage, match="expected data that is sha256:"):
        fetch_artifact(registry.add("app", "1", thing), env, patience=QUICK)
