"""Offline, and what needs no network anyway: not one socket is made."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fetching import QUICK, docker_config
from support.programs import credential_program
from support.registry import FakeRegistry
from support.tars import Image, image_of, tar_of, write_layout

from pipeline import fetch
from pipeline.config import Config, RegistryConfig
from pipeline.env import Env
from pipeline.fetch.errors import RegistryError
from pipeline.fetch.lock import lock


@pytest.fixture
def image() -> Image:
    return image_of(tar_of({"a": b"1"}))


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(f"a socket was asked for: {arguments}")

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname", "socketpair"):
        monkeypatch.setattr(socket, name, refuse)


def run(reference: str, env: Env) -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference), env, patience=QUICK)


def test_socket_guard_notices_a_connection(no_sockets: None, env: Env) -> None:
    with pytest.raises(AssertionError, match="a socket was asked for"):
        run("docker://127.0.0.1:1/app:1", env)


@pytest.mark.parametrize("offline", [True, False])
def test_pinned_image_that_is_here_needs_no_socket(
    registry: FakeRegistry, env: Env, image: Image, request: pytest.FixtureRequest, offline: bool
) -> None:
    first = run(f"{registry.add('app', '1', image)}@{image.digest}", env)
    request.getfixturevalue("no_sockets")
    again = replace(env, offline=offline)
    assert run(f"docker://{registry.host}/app:1@{image.digest}", again) == first
    assert run(f"docker://{registry.host}/app@{image.digest}", again).layers == first.layers


def test_blobs_that_are_here_are_enough_where_the_result_is_lost(
    registry: FakeRegistry, env: Env, image: Image, request: pytest.FixtureRequest
) -> None:
    reference = f"{registry.add('app', '1', image)}@{image.digest}"
    run(reference, env)
    for path in env.store.results.iterdir():
        path.unlink()
    request.getfixturevalue("no_sockets")
    assert run(reference, replace(env, offline=True)).layers


def test_layouts_and_archives_need_no_socket(env: Env, image: Image, tmp_path: Path, no_sockets: None) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    files = {str(path.relative_to(layout)): path.read_bytes() for path in layout.rglob("*") if path.is_file()}
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    offline = replace(env, offline=True)
    assert run(f"oci:{layout}:t", offline).manifest == run(f"oci-archive:{tmp_path}/a.tar:t", offline).manifest


@pytest.mark.parametrize("name", ["docker://r.example/app:1", "nginx", "docker://127.0.0.1:5000/app:1"])
def test_tag_is_refused_in_one_sentence_before_any_program_or_socket(
    env: Env, tmp_path: Path, no_sockets: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    log = credential_program(tmp_path / "programs", "keep", "echo")
    monkeypatch.setenv("PATH", f"{tmp_path}/programs")
    docker_config(tmp_path, {"credsStore": "keep"})
    mirrors = {"docker.io": RegistryConfig(mirrors=("m.example",))}
    with pytest.raises(RegistryError, match="expected the image in the store, being offline"):
        run(name, replace(env, offline=True, config=Config(registries=mirrors)))
    assert not log.exists()


def test_lock_is_refused(env: Env, tmp_path: Path, no_sockets: None) -> None:
    with pytest.raises(RegistryError, match="offline"):
        lock(tmp_path / "l.json", ["nginx"], lambda: replace(env, offline=True), whole=True)
    assert not (tmp_path / "l.json").exists()


def test_missing_layer_is_refused(
    registry: FakeRegistry, env: Env, image: Image, request: pytest.FixtureRequest
) -> None:
    result = run(f"{registry.add('app', '1', image)}@{image.digest}", env)
    env.store.path(result.layers[0].digest).unlink()
    request.getfixturevalue("no_sockets")
    with pytest.raises(RegistryError, match="offline"):
        run(f"docker://{registry.host}/app@{image.digest}", replace(env, offline=True))


def test_a_cached_image_imports_no_client() -> None:
    code = "import sys, pipeline.fetch; print([m for m in ('urllib3', 'ssl', 'oras', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
