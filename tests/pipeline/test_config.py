"""The user's settings: where they are looked for, and how what is wrong in them is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import BadConfig, Config, load_config
from pipeline.jsonmodel import BadModel


def test_no_file_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZONEWRIGHT_CONFIG", raising=False)
    assert load_config(tmp_path / "none.toml") == Config()


def test_the_file_of_the_variable_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONEWRIGHT_CONFIG", str(tmp_path / "mine.toml"))
    with pytest.raises(BadConfig, match=r"mine\.toml"):
        load_config()


def test_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zonewright" / "config.toml"
    path.parent.mkdir()
    path.write_text(
        '[registries."docker.io"]\nmirrors = ["mirror.example:5000/hub"]\n'
        '[registries."10.0.0.5:5000"]\ninsecure = true\n'
        '[cache]\nremote = "docker://10.0.0.5:5000/cache"\nkeys = ["ed25519:AAAA"]\ntimeout_s = 5\n'
        "[limits]\nentries = 10\n[store]\nkeep_days = 1\n"
    )
    monkeypatch.delenv("ZONEWRIGHT_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = load_config()
    assert config.registries["docker.io"].mirrors == ("mirror.example:5000/hub",)
    assert config.registries["10.0.0.5:5000"].insecure
    assert (config.cache.timeout_s, config.limits.entries, config.store.keep_days) == (5, 10, 1)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[limits]\nentires = 1\n", BadModel, r"limits\.entires: expected one of the keys"),
        ('[limits]\nentries = "many"\n', BadModel, r"limits\.entries: expected int, got 'many'"),
        ("[limits\n", BadConfig, "expected TOML"),
        ("\udcff", BadConfig, "expected TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(error, match=words):
        load_config(path)
