"""A bundle in one call: the stages in order, what is remembered, and what a tag means."""

from __future__ import annotations

import dataclasses

import pytest
from support.extensions import RELEASE, VERMAGIC, extension_image, module
from support.registry import fake_registry
from support.tars import image_of, tar_of, write_layout

from pipeline import compose
from pipeline.bundle import manifest
from pipeline.bundle.model import ExtensionChoice, Module
from pipeline.bundle.spec import ZoneSpec
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.initrd.model import InitrdResult
from pipeline.initrd.stage import base_segment, modules_segment
from pipeline.recipe import UnknownName
from pipeline.store import Store

CONFIG = {"config": {"Entrypoint": ["/bin/app"], "Cmd": ["serve"], "Env": ["A=1"], "User": "7:8"}}


@pytest.fixture
def env(tmp_path, monkeypatch):
    env = Env(Store(tmp_path / "store"))
    (tmp_path / "init").write_bytes(b"\x7fELF")
    blobs = [base_segment(tmp_path / "init"), modules_segment({"overlay": module("overlay")})]
    base, modules = map(env.store.put, blobs)
    kernel = InitrdResult(
        env.store.put(b"elf"), RELEASE, base, modules, (Module("/modules/overlay.ko"),), None, VERMAGIC
    )
    monkeypatch.setattr(compose, "_kernel", lambda reference, env, pull: kernel)
    return env


@pytest.fixture
def layout(tmp_path):
    images = {"1": image_of(tar_of({"bin/": None, "bin/app": b"app"}), config=CONFIG)}
    return f"oci:{write_layout(tmp_path / 'layout', images)}"


def test_bundle_has_every_part_and_no_name(env, layout) -> None:
    result = compose.compose(ZoneSpec("web", f"{layout}:1", args=("once",)), env)
    bundle = result.bundle
    assert bundle.process.argv == ("/bin/app", "once") and (bundle.process.uid, bundle.process.gid) == (7, 8)
    assert bundle.image == f"{layout}:1" and all(env.store.has(part) for part in manifest.parts(bundle))
    assert manifest.read(env.store, result.manifest) == bundle
    assert [tag for tag in env.store.tags() if tag.startswith(manifest.TAG_PREFIX)] == []


def test_second_time_nothing_is_made(env, layout, monkeypatch) -> None:
    first = compose.compose(ZoneSpec("web", f"{layout}:1"), env)
    results = sorted(env.store.results.iterdir())
    assert compose.compose(ZoneSpec("web", f"{layout}:1"), env) == first
    assert sorted(env.store.results.iterdir()) == results


def test_damaged_part_is_made_again(env, layout) -> None:
    first = compose.compose(ZoneSpec("web", f"{layout}:1"), env)
    env.store.path(first.bundle.rootfs.digest).unlink()
    assert compose.compose(ZoneSpec("web", f"{layout}:1"), env).bundle.rootfs == first.bundle.rootfs
    assert env.store.has(first.bundle.rootfs)


def test_extensions_are_in_it(env, layout, tmp_path) -> None:
    image = extension_image({"bin/tool": b"tool"}, kind="utils", phase="initrd")
    extension = f"oci:{write_layout(tmp_path / 'ext', {'x': image})}:x"
    spec = ZoneSpec("web", f"{layout}:1", extensions=(ExtensionChoice(extension),))
    assert [one.reference for one in compose.compose(spec, env).bundle.extensions] == [extension]


def test_tag_means_what_it_did_until_it_is_pulled_again(env) -> None:
    with fake_registry() as registry:

        def rootfs(reference: str, pull: str) -> object:
            return compose.compose(ZoneSpec("web", reference), env, pull=pull).bundle.rootfs

        reference = registry.add("app", "1", image_of(tar_of({"bin/app": b"one"}), config=CONFIG))
        bare = reference.removeprefix("docker://")
        first = rootfs(bare, "missing")
        registry.add("app", "1", image_of(tar_of({"bin/app": b"two"}), config=CONFIG))
        asked = len(registry.requests)
        # As docker run: however the name is written, what is there is taken.
        assert rootfs(bare, "missing") == rootfs(f"docker://{bare}", "missing") == rootfs(bare, "never") == first
        assert len(registry.requests) == asked
        second = rootfs(bare, "always")
        assert second != first and rootfs(bare, "missing") == second


def test_image_that_was_never_pulled_needs_the_network(env) -> None:
    with pytest.raises(PipelineError, match="offline"):
        compose.compose(ZoneSpec("web", "127.0.0.1:1/app:1"), dataclasses.replace(env, offline=True), pull="never")


def test_recipe_nobody_has_names_near_ones(env) -> None:
    with pytest.raises(UnknownName, match="did you mean nginx"):
        compose.compose(ZoneSpec("web", "recipe:ngimx"), env)
