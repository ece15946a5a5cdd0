"""Debian's docker-registry on loopback, filled by skopeo."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dockerregistry import docker_registry
from support.tars import image_of, tar_of, write_layout

from pipeline import fetch
from pipeline.env import Env
from pipeline.store import Store

pytestmark = pytest.mark.network


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path) as host:
        yield host


@pytest.mark.parametrize(("format", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")])
def test_image_pushed_by_skopeo_comes_back(registry: str, tmp_path: Path, format: str, compression: str) -> None:
    image = image_of(tar_of({"a": b"1" * 100_000}), tar_of({"b": b"2"}), compression=compression)
    layout = write_layout(tmp_path / "layout", {"t": image})
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            "-f",
            format,
            "--dest-tls-verify=false",
            f"oci:{layout}:t",
            f"docker://{registry}/app/web:1",
        ],
        check=True,
    )
    env = Env(Store(tmp_path / "store"))
    result = fetch.run(fetch.FetchParams(f"docker://{registry}/app/web:1"), env)
    assert [str(layer.digest) for layer in result.layers] == image.layers
    assert [env.store.read(layer.digest) for layer in result.layers] == [image.blobs[name] for name in image.layers]
    if format == "oci":
        assert str(result.manifest.digest) == image.digest
