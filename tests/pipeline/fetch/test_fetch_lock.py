"""images.lock.json: tags pinned to digests under review."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fetching import QUICK
from support.registry import FakeRegistry
from support.said import Said
from support.tars import Image, image_of, tar_of

from pipeline import fetch
from pipeline.env import Env
from pipeline.fetch.errors import NoSuchImage
from pipeline.fetch.lock import BadLock, lock, pinned, read_lock
from pipeline.oci import Digest
from pipeline.store import Store

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def said() -> Iterator[Said]:
    yield Said()


@pytest.fixture
def env(tmp_path: Path, said: Said) -> Env:
    return Env(Store(tmp_path / "store"), said)


def image_number(number: int) -> Image:
    return image_of(tar_of({"a": b"%d" % number}))


def index_of(registry: FakeRegistry, tag: str, image: Image) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest), "platform": platform}
    kind = "application/vnd.oci.image.index.v1+json"
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
    registry.add("app", image.digest[7:19], image)
    registry.add_document("app", tag, json.dumps(document).encode(), kind)


def locking(env: Env, path: Path, *references: str, whole: bool = True) -> None:
    lock(path, references, lambda: env, whole=whole, patience=QUICK)


def test_tag_is_locked_to_the_manifest_of_the_platform_and_fetched_by_it(
    registry: FakeRegistry, env: Env, said: Said, tmp_path: Path
) -> None:
    path, image = tmp_path / "images.lock.json", image_number(1)
    plain = registry.add("app", "1", image)
    index_of(registry, "2", image)
    by_index = plain[:-1] + "2"
    locking(env, path, plain, by_index, "recipe:nginx", f"{plain}@{image.digest}")
    wanted = {name: {"linux/amd64": image.digest} for name in (plain, by_index)}
    assert json.loads(path.read_text()) == wanted
    assert said.lines == [f"{name} linux/amd64: {image.digest} (new)" for name in (plain, by_index)]
    assert not list(env.store.root.glob("results/*"))  # nothing is fetched for it
    reference = pinned(plain, read_lock(path))
    assert reference == f"{plain}@{image.digest}"
    fetch.run(fetch.FetchParams(reference), env, patience=QUICK)
    registry.requests.clear()
    assert fetch.run(fetch.FetchParams(reference), Env(env.store, offline=True)).layers
    assert registry.requests == []


def test_tag_that_moved_is_said_old_and_new_and_only_then_fetched(
    registry: FakeRegistry, env: Env, said: Said, tmp_path: Path
) -> None:
    path, old, new = tmp_path / "images.lock.json", image_number(1), image_number(2)
    reference = registry.add("app", "1", old)
    locking(env, path, reference)
    registry.add("app", "1", new)
    fetched = fetch.run(fetch.FetchParams(pinned(reference, read_lock(path))), env, patience=QUICK)
    assert str(fetched.manifest.digest) == old.digest
    said.lines.clear()
    locking(env, path, reference)
    assert said.lines == [f"{reference} linux/amd64: {old.digest} -> {new.digest}"]
    said.lines.clear()
    before = path.stat().st_ino
    locking(env, path, reference)
    assert said.lines == ["images.lock.json: no tag has moved, 1 looked up"]
    assert path.stat().st_ino == before


def test_one_zones_lock_leaves_the_others_and_a_whole_one_takes_out_what_is_not_named(
    registry: FakeRegistry, env: Env, said: Said, tmp_path: Path
) -> None:
    path, image = tmp_path / "images.lock.json", image_number(1)
    one, two = registry.add("one", "1", image), registry.add("two", "1", image)
    locking(env, path, one)
    locking(env, path, two, whole=False)
    assert set(read_lock(path)) == {one, two}
    said.lines.clear()
    locking(env, path, two)
    assert set(read_lock(path)) == {two}
    assert said.lines == [f"{one} linux/amd64: {image.digest} (no zone names it)"]


def test_failed_lock_leaves_the_file_as_it_was(registry: FakeRegistry, env: Env, tmp_path: Path) -> None:
    path = tmp_path / "images.lock.json"
    reference = registry.add("app", "1", image_number(1))
    locking(env, path, reference)
    before = path.read_bytes()
    registry.add("app", "1", image_number(2))
    with pytest.raises(NoSuchImage):
        locking(env, path, reference, f"docker://{registry.host}/none:1")
    assert path.read_bytes() == before


def test_short_names_and_other_platforms_are_their_own_entries() -> None:
    digest = Digest("sha256", "1f" * 32)
    locked = {"docker://docker.io/library/nginx:latest": {"linux/arm64": digest}}
    assert pinned("nginx", locked) == "nginx"
    assert pinned("nginx", locked, "linux/arm64/v8") == f"docker://docker.io/library/nginx:latest@{digest}"


@pytest.mark.parametrize("reference", ["recipe:nginx", "oci:dir:tag", f"nginx@sha256:{'0' * 64}", "oci-archive:f"])
def test_what_is_no_tag_in_a_registry_stays_as_it_is(reference: str) -> None:
    assert pinned(reference, {}) == reference


@pytest.mark.parametrize("text", ["", "[]", '{"a": 5}', '{"a": {"linux/amd64": "sha256:12"}}', '{"a": {}, "a": {}}'])
def test_lock_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "images.lock.json"
    path.write_text(text)
    with pytest.raises(BadLock, match=r"images\.lock\.json: expected platforms and digests by image reference"):
        read_lock(path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own, as a lock file in the tested one would be the user's."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pipeline", "runtime", "zones", "os", "kernel"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "dodo.py", copy)
    return copy


def test_doit_fetches_a_locked_tag_by_its_digest_until_it_is_locked_anew(
    registry: FakeRegistry, checkout: Path, tmp_path: Path
) -> None:
    old, new = image_number(1), image_number(2)
    reference = registry.add("app", "1", old)
    (checkout / "zones" / "app.toml").write_text(f'image = "{reference}"\n')

    def doit(*words: str) -> str:
        command = [sys.executable, "-m", "doit", *words, "zone=app"]
        environment = os.environ | {"ZONEWRIGHT_STORE": str(tmp_path / "store")}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def fetched() -> str:
        return str(json.loads((checkout / "build/fetch/app.json").read_text())["manifest"]["digest"])

    assert f"{reference} linux/amd64: {old.digest} (new)" in doit("lock")
    registry.add("app", "1", new)
    doit("fetch:app")
    assert fetched() == old.digest
    registry.requests.clear()
    doit("fetch:app", "offline=yes")
    assert registry.requests == []
    assert f"{reference} linux/amd64: {old.digest} -> {new.digest}" in doit("lock")
    doit("fetch:app")
    assert fetched() == new.digest
