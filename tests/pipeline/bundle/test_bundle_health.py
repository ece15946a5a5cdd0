"""The health check of an image, and what a spec makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.bundle.errors import BadImageConfig, BadSpec
from pipeline.bundle.health import MOST_S, resolve_health
from pipeline.bundle.model import Healthcheck
from pipeline.bundle.spec import load_spec
from pipeline.jsonmodel import from_json, to_json
from pipeline.recipe import BadRecipe

S = 1_000_000_000
FULL = {
    "Test": ["CMD", "/bin/well", "-q"],
    "Interval": 10 * S,
    "Timeout": 1_500_000_000,
    "StartPeriod": 60 * S,
    "StartInterval": 2 * S,
    "Retries": 5,
}


def resolved(tmp_path, spec: str = "", **config: Any) -> Healthcheck | None:
    (tmp_path / "web.toml").write_text(f'image = "x"\n{spec}')
    wish = load_spec("web", tmp_path).health
    return resolve_health(wish, config, subject="image x of zone web", key="zone web: key healthcheck")


def test_image_without_one_has_none(tmp_path) -> None:
    assert resolved(tmp_path) is None
    for nothing in (None, {}, {"Test": None}, {"Test": []}, {"Test": ["NONE"], "Interval": S}):
        assert resolved(tmp_path, Healthcheck=nothing) is None


def test_images_check_has_all_its_fields_in_seconds(tmp_path) -> None:
    found = resolved(tmp_path, Healthcheck=FULL)
    assert found == Healthcheck(("/bin/well", "-q"), 10.0, 1.5, 60.0, 2.0, 5)
    assert from_json(Healthcheck, to_json(found)) == found


def test_zeros_and_what_is_missing_are_dockers_defaults(tmp_path) -> None:
    zeros = {"Test": ["CMD", "/w"], "Interval": 0, "Timeout": 0, "StartPeriod": 0, "StartInterval": 0, "Retries": 0}
    expected = Healthcheck(("/w",), 30.0, 30.0, 0.0, 5.0, 3)
    assert resolved(tmp_path, Healthcheck=zeros) == resolved(tmp_path, Healthcheck={"Test": ["CMD", "/w"]}) == expected


def test_text_is_for_the_images_shell(tmp_path) -> None:
    check = {"Test": ["CMD-SHELL", "curl -f x || exit 1"]}
    found = resolved(tmp_path, Healthcheck=check)
    assert found is not None and found.argv == ("/bin/sh", "-c", "curl -f x || exit 1")
    found = resolved(tmp_path, Healthcheck=check, Shell=["/bin/bash", "-ec"])
    assert found is not None and found.argv == ("/bin/bash", "-ec", "curl -f x || exit 1")


def test_spec_replaces_what_it_names_and_leaves_the_rest(tmp_path) -> None:
    slower = "[healthcheck]\ninterval_s = 90\nretries = 1\n"
    assert resolved(tmp_path, slower, Healthcheck=FULL) == Healthcheck(("/bin/well", "-q"), 90, 1.5, 60.0, 2.0, 1)
    other = '[healthcheck]\ncommand = ["/w"]\n'
    assert resolved(tmp_path, other, Healthcheck=FULL) == Healthcheck(("/w",), 10.0, 1.5, 60.0, 2.0, 5)
    text = '[healthcheck]\ncommand = "w"\nstart_period_s = 0\n'
    assert resolved(tmp_path, text, Healthcheck=FULL, Shell=["/s"]) == Healthcheck(("/s", "w"), 10.0, 1.5, 0, 2.0, 5)
    assert resolved(tmp_path, text) == Healthcheck(("/bin/sh", "-c", "w"), start_period_s=0)


def test_disabled_is_none_even_where_the_images_is_nonsense(tmp_path) -> None:
    assert resolved(tmp_path, "[healthcheck]\ndisable = true\n", Healthcheck=FULL) is None
    assert resolved(tmp_path, "[healthcheck]\ndisable = true\n", Healthcheck={"Test": 7}) is None


def test_times_of_no_check_are_refused(tmp_path) -> None:
    with pytest.raises(
        BadSpec, match="key healthcheck: expected a command, as the image has no health check, got none"
    ):
        resolved(tmp_path, "[healthcheck]\nretries = 2\n")


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ([], None),
        ("x", "Healthcheck: expected an object"),
        ({"Test": "true"}, "Healthcheck.Test: expected a list of strings"),
        ({"Test": ["CMD", 5]}, "Healthcheck.Test: expected a list of strings"),
        ({"Test": ["CMD", "a\0b"]}, "without NUL"),
        ({"Test": ["CMD"]}, r"expected \[\"NONE\"\]"),
        ({"Test": ["CMD-SHELL", "a", "b"]}, r"expected \[\"NONE\"\]"),
        ({"Test": ["NONE", "a"]}, r"expected \[\"NONE\"\]"),
        ({"Test": ["true"]}, r"expected \[\"NONE\"\]"),
        (FULL | {"Interval": -1}, "Healthcheck.Interval: expected a number of nanoseconds"),
        (FULL | {"Timeout": 1.5}, "Healthcheck.Timeout: expected a number"),
        (FULL | {"StartPeriod": "1s"}, "Healthcheck.StartPeriod: expected a number"),
        (FULL | {"StartInterval": (MOST_S + 1) * S}, "Healthcheck.StartInterval: expected a number"),
        (FULL | {"Retries": True}, "Healthcheck.Retries: expected a number of retries"),
        (FULL | {"Retries": 10**30}, "Healthcheck.Retries: expected a number of retries from 0 to 1000"),
    ],
)
def test_images_check_that_cannot_be_is_refused_by_its_key(tmp_path, check: Any, said: str | None) -> None:
    if said is None:
        assert resolved(tmp_path, Healthcheck=check) is None  # empty, as Go writes an object that is not there
        return
    with pytest.raises(BadImageConfig, match=f"image x of zone web: .*{said}"):
        resolved(tmp_path, Healthcheck=check)


def test_shell_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(BadImageConfig, match="Shell: expected a list of strings"):
        resolved(tmp_path, Healthcheck={"Test": ["CMD-SHELL", "x"]}, Shell="sh")


@pytest.mark.parametrize(
    "text",
    [
        "command = []",
        'command = ""',
        "interval_s = 0",
        "retries = 0",
        "retries = 1001",
        'timeout_s = "1s"',
        'test = "x"',
        r'command = "a\u0000b"',
    ],
)
def test_schema_names_the_key(tmp_path, text: str) -> None:
    with pytest.raises(BadRecipe, match="key healthcheck"):
        resolved(tmp_path, f"[healthcheck]\n{text}\n")
