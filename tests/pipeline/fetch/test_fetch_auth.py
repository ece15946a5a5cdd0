"""Challenges and credentials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.fetch.auth import Challenge, challenges, credentials
from pipeline.fetch.errors import RegistryError


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [Challenge("basic")]),
        ('Basic realm="a, \\"b\\" c=d"', [Challenge("basic", {"realm": 'a, "b" c=d'})]),
        (
            'BEARER Realm="https://a/t?x=1",service=reg , scope="repository:a/b:pull,push"',
            [Challenge("bearer", {"realm": "https://a/t?x=1", "service": "reg", "scope": "repository:a/b:pull,push"})],
        ),
        (
            'Negotiate, Basic realm="x", Bearer realm="y"',
            [Challenge("negotiate"), Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        ('Bearer realm="unterminated', [Challenge("bearer")]),
        ("=,=,=", []),
        ("Negotiate a/b+c==, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ("Bearer , Basic", [Challenge("bearer"), Challenge("basic")]),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert challenges(header) == expected


def config(tmp_path: Path, auths: object) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": auths}))
    return path


def test_credentials_belong_to_their_host_and_port(tmp_path: Path) -> None:
    path = config(
        tmp_path, {"a.example": {"auth": "YW5uOnA6dw=="}, "b.example:5000": {"username": "u", "password": "p"}}
    )
    found = credentials("a.example", path)
    assert found is not None and (found.user, found.password) == ("ann", "p:w")
    assert credentials("b.example:5000", path) is not None
    for other in ("b.example", "a.example:5000", "x.a.example", "docker.io"):
        assert credentials(other, path) is None


def test_docker_hub_has_its_own_key(tmp_path: Path) -> None:
    path = config(tmp_path, {"https://index.docker.io/v1/": {"auth": "YW5uOnB3"}})
    assert credentials("docker.io", path) is not None


def test_no_config_or_a_useless_one_is_no_credentials(tmp_path: Path) -> None:
    assert credentials("a.example", tmp_path / "none") is None
    for auths in (None, [], {"a.example": 5}, {"a.example": {"auth": "%"}}, {"a.example": {"auth": "bm9jb2xvbg=="}}):
        assert credentials("a.example", config(tmp_path, auths)) is None


def test_broken_config_is_named_without_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"auths": {"a": {"auth": "canary"')
    with pytest.raises(RegistryError, match=r"config\.json: expected JSON") as caught:
        credentials("a", path)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_do_not_show_themselves(tmp_path: Path) -> None:
    found = credentials("a.example", config(tmp_path, {"a.example": {"username": "ann", "password": "canary"}}))
    assert "canary" not in repr(found)
