"""Credentials kept by programs: credHelpers, credsStore; and programs that hang, fail, babble or are not there."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest
from support.fetching import QUICK, docker_config
from support.programs import credential_program
from support.registry import FakeRegistry
from support.tars import image_of, tar_of

from pipeline import fetch
from pipeline.env import Env
from pipeline.fetch.auth import credentials
from pipeline.fetch.errors import RegistryError

GIVES = 'cat >>$LOG; echo >>$LOG; echo \'{"ServerURL": "x", "Username": "ann", "Secret": "canary-secret"}\''


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


@pytest.mark.parametrize(
    "config",
    [
        {"credsStore": "keep"},
        {"credHelpers": {"r.example:5000": "keep"}},
        {"credsStore": "other", "credHelpers": {"r.example:5000": "keep"}},
        {"auths": {"r.example:5000": {}}, "credsStore": "keep"},
    ],
)
def test_program_is_asked_for_the_registry(programs: Path, tmp_path: Path, config: dict[str, object]) -> None:
    log = credential_program(programs, "keep", GIVES)
    found = credentials("r.example:5000", docker_config(tmp_path, config))
    assert found is not None and (found.user, found.password) == ("ann", "canary-secret")
    assert log.read_text().splitlines() == ["get", "r.example:5000"]  # the server comes on stdin, nothing in argv
    assert "canary" not in repr(found)


def test_inline_credentials_need_no_program(programs: Path, tmp_path: Path) -> None:
    log = credential_program(programs, "keep", GIVES)
    config = {"auths": {"r.example": {"username": "bob", "password": "x"}}, "credsStore": "keep"}
    found = credentials("r.example", docker_config(tmp_path, config))
    assert found is not None and found.user == "bob"
    assert not log.exists()


def test_program_for_another_registry_is_not_asked(programs: Path, tmp_path: Path) -> None:
    log = credential_program(programs, "keep", GIVES)
    assert credentials("r.example", docker_config(tmp_path, {"credHelpers": {"other.example": "keep"}})) is None
    assert not log.exists()


def test_docker_hub_goes_by_its_old_name(programs: Path, tmp_path: Path) -> None:
    log = credential_program(programs, "keep", GIVES)
    assert credentials("docker.io", docker_config(tmp_path, {"credsStore": "keep"})) is not None
    assert log.read_text().splitlines() == ["get", "https://index.docker.io/v1/"]


def test_program_may_keep_an_identity_token(programs: Path, tmp_path: Path) -> None:
    credential_program(programs, "keep", 'echo \'{"Username": "<token>", "Secret": "canary"}\'')
    found = credentials("r.example", docker_config(tmp_path, {"credsStore": "keep"}))
    assert found is not None and (found.user, found.password, found.identity_token) == ("", "", "canary")


def test_program_without_credentials_for_a_registry_is_no_error(programs: Path, tmp_path: Path) -> None:
    credential_program(programs, "keep", "echo credentials not found in native keychain; exit 1")
    assert credentials("r.example", docker_config(tmp_path, {"credsStore": "keep"})) is None


@pytest.mark.parametrize(
    ("script", "got"),
    [
        ("echo canary-secret; echo canary-secret >&2; exit 3", "exit code 3"),
        ("kill -9 $$", "signal 9"),
        ("echo canary-secret", "something else"),
        ('echo \'{"Username": 5, "Secret": "canary-secret"}\'', "something else"),
        ("echo '[\"canary-secret\"]'", "something else"),
        ("printf '\\377\\376canary-secret'", "something else"),
        ("head -c 300000 /dev/zero; sleep 600", "more than 65536 bytes"),
        ("sleep 600 & sleep 600", "nothing in 0 s"),
        ("exec >&-; sleep 600", "nothing in 0 s"),
    ],
    ids=["fails", "killed", "no JSON", "wrong types", "a list", "no UTF-8", "endless", "hangs", "closes and hangs"],
)
def test_program_that_does_not_do_its_work_is_one_sentence_without_its_words(
    programs: Path, tmp_path: Path, script: str, got: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    credential_program(programs, "keep", script)
    patience_s = 0.4 if got == "nothing in 0 s" else 120  # others get to say it on a busy machine too
    begin = time.monotonic()
    with pytest.raises(RegistryError, match="program docker-credential-keep: expected credentials for r") as caught:
        credentials("r.example", docker_config(tmp_path, {"credsStore": "keep"}), timeout_s=patience_s)
    assert caught.value.got == got
    assert time.monotonic() - begin < 60  # of the ten minutes its children would sleep
    chain = repr(vars(caught.value)) + repr(caught.value.__cause__) + caplog.text
    assert "canary" not in chain


@pytest.mark.parametrize("name", ["missing", "../evil", "a b", "-x"])
def test_program_that_is_not_there_or_has_no_name_is_one_sentence(programs: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match=r"program docker-credential-missing|the name of a credential program"):
        credentials("r.example", docker_config(tmp_path, {"credsStore": name}))


@pytest.mark.parametrize("config", [{"credHelpers": ["x"]}, {"credsStore": 5}, {"credHelpers": None, "credsStore": ""}])
def test_config_of_wrong_types_has_no_programs(tmp_path: Path, config: dict[str, object]) -> None:
    assert credentials("r.example", docker_config(tmp_path, config)) is None


def test_image_is_fetched_with_a_programs_credentials_and_no_file_has_them(
    programs: Path, tmp_path: Path, registry: FakeRegistry, env: Env
) -> None:
    credential_program(programs, "keep", "echo '" + json.dumps({"Username": "ann", "Secret": "canary-secret"}) + "'")
    docker_config(tmp_path, {"credHelpers": {registry.host: "keep"}}).chmod(0o644)
    registry.basic = "ann:canary-secret"
    reference = registry.add("app", "1", image_of(tar_of({"a": b"1"})))
    fetch.run(fetch.FetchParams(reference), env, patience=QUICK)
    for path in env.store.root.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()


def test_no_program_is_asked_where_no_credentials_are_wanted(
    programs: Path, tmp_path: Path, registry: FakeRegistry, env: Env
) -> None:
    log = credential_program(programs, "keep", "sleep 60")
    docker_config(tmp_path, {"credsStore": "keep"})
    reference = registry.add("app", "1", image_of(tar_of({"a": b"1"})))
    fetch.run(fetch.FetchParams(reference), env, patience=QUICK)
    assert not log.exists()
