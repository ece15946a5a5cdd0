"""Which system calls a spec lets its workload make."""

from __future__ import annotations

import json

import pytest

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Seccomp
from pipeline.bundle.security import parse_seccomp
from pipeline.bundle.spec import load_spec
from pipeline.jsonmodel import from_json, to_json
from pipeline.recipe import BadRecipe
from pipeline.seccomp import profile


def test_default_is_the_default_profile(tmp_path) -> None:
    (tmp_path / "web.toml").write_text('image = "x"\n')
    assert load_spec("web", tmp_path).seccomp == Seccomp(unconfined=False, profile=None)


def test_unconfined(tmp_path) -> None:
    (tmp_path / "web.toml").write_text('image = "x"\n[security]\nseccomp = "unconfined"\n')
    assert load_spec("web", tmp_path).seccomp == Seccomp(unconfined=True)


def test_profile_of_a_file_goes_whole_into_the_bundle(tmp_path) -> None:
    own = profile.default(["CAP_SYS_PTRACE"])
    (tmp_path / "own.json").write_text(json.dumps(own))
    (tmp_path / "web.toml").write_text(f'image = "x"\n[security]\nseccomp = "{tmp_path}/own.json"\n')
    found = load_spec("web", tmp_path).seccomp
    assert found == Seccomp(profile=own)
    assert from_json(Seccomp, json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize("text", ['seccomp = ""', "seccomp = true", 'apparmor = "x"'])
def test_schema_names_the_key(tmp_path, text: str) -> None:
    (tmp_path / "web.toml").write_text(f'image = "x"\n[security]\n{text}\n')
    with pytest.raises(BadRecipe, match="key security"):
        load_spec("web", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected a profile as JSON, got Expecting"),
        ("[" * 100_000, "expected a profile as JSON"),
        ("\xff", "expected a profile as JSON"),
        ("[]", "expected a profile, an object, got list"),
        ("{}", "key defaultAction: expected one of"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "flags": "x"}', "key flags: expected a list of text"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "archMap": []}', "expected only the keys"),
        (" " * (1 << 20) + "{}", "expected at most 1048576 bytes"),
    ],
    ids=["no JSON", "deep", "no UTF-8", "list", "empty", "flags", "of docker", "large"],
)
def test_file_that_is_no_profile_is_named_and_explained(tmp_path, text: str, said: str) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSpec, match=f"^-s: {path}: .*{said}"):
        parse_seccomp(str(path), subject="-s")


@pytest.mark.parametrize(("path", "said"), [("/nowhere", "No such file"), ("/", "Is a directory"), ("\0", "null byte")])
def test_file_that_cannot_be_read_is_explained(path: str, said: str) -> None:
    with pytest.raises(BadSpec, match=f"-s: expected unconfined, or a file with a profile, got .*{said}"):
        parse_seccomp(path, subject="-s")
