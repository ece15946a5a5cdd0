"""Image references."""

from __future__ import annotations

import pytest

from pipeline.fetch.errors import BadReference
from pipeline.fetch.reference import LayoutReference, RecipeReference, RegistryReference, is_loopback, parse
from pipeline.oci import Digest

HEX = "1f" * 32


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", ""),
        ("nginx:1.25", "docker.io", "library/nginx", "1.25", ""),
        ("docker://user/app", "docker.io", "user/app", "latest", ""),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest", ""),
        ("index.docker.io/user/app:x", "docker.io", "user/app", "x", ""),
        (f"alpine@sha256:{HEX}", "docker.io", "library/alpine", "", HEX),
        (f"ghcr.io/a/b/c:v1@sha256:{HEX}", "ghcr.io", "a/b/c", "v1", HEX),
        ("docker://127.0.0.1:5000/zones/nginx:t", "127.0.0.1:5000", "zones/nginx", "t", ""),
        ("localhost/app", "localhost", "app", "latest", ""),
        ("[::1]:5000/app", "[::1]:5000", "app", "latest", ""),
        ("registry.example:443/a__b/c-d.e:_", "registry.example:443", "a__b/c-d.e", "_", ""),
    ],
)
def test_registry_references(text: str, host: str, repository: str, tag: str, digest: str) -> None:
    expected = RegistryReference(host, repository, tag, Digest("sha256", digest) if digest else None)
    assert parse(text) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:/a/b", LayoutReference("/a/b")),
        ("oci:dir:tag", LayoutReference("dir", "tag")),
        (f"oci:dir@sha256:{HEX}", LayoutReference("dir", "", Digest("sha256", HEX))),
        ("recipe:nginx", RecipeReference("nginx")),
    ],
)
def test_other_transports(text: str, expected: object) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "Nginx",
        "docker:nginx",
        "ftp://x/y",
        "oci:",
        "recipe:",
        "recipe:../x",
        "a//b",
        "a/b/",
        "nginx:",
        "nginx:a b",
        "nginx@sha256:12",
        f"nginx@sha256:{HEX.upper()}",
        f"nginx@md5:{HEX}",
        "host:99999/x",
        "docker://",
        "-a/b",
        "a/../b",
        "docker-daemon:x",
        "a" * 300,
        "nginx:" + "t" * 129,
        "docker://host.example/",
    ],
)
def test_what_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(BadReference, match="image reference"):
        parse(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:5000", True),
        ("127.9.0.1", True),
        ("[::1]:80", True),
        ("::1", True),
        ("a.localhost", True),
        ("127.0.0.1.example", False),
        ("10.0.0.1:5000", False),
        ("localhost.example", False),
        ("docker.io", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
