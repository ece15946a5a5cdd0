"""lab.toml, flags and the environment become a LabConfig or a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.recipe import BadRecipe
from runtime.host.lab.config import LabConfig, load_config


@pytest.fixture(autouse=True)
def no_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZONEWRIGHT_LAB_FLAVOUR", raising=False)


def written(directory: Path, text: str) -> Path:
    (directory / "lab.toml").write_text(text)
    return directory


def test_defaults_fit_a_small_laptop_and_leave_room_for_zones(tmp_path: Path) -> None:
    config = load_config(tmp_path)
    assert config == LabConfig()
    assert config.host_memory_mib < 1536
    assert config.zone_memory_mib >= 512


def test_the_file_then_the_environment_then_flags_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = written(tmp_path, 'flavour = "debian13"\nmemory_mib = 2048\nvcpus = 4\nports = ["8080:80"]\n')
    config = load_config(directory, vcpus=3, accel=None)
    assert (config.flavour, config.memory_mib, config.vcpus, config.ports) == ("debian13", 2048, 3, ("8080:80",))
    monkeypatch.setenv("ZONEWRIGHT_LAB_FLAVOUR", "debian12")
    assert load_config(directory).flavour == "debian12"
    assert load_config(directory, flavour="debian13").flavour == "debian13"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "memory_mb = 5",
            r"lab\.toml: key the top level: expected only the keys .*memory_mib.*did you mean memory_mib",
        ),
        ('memory_mib = "2G"', r"lab\.toml: key memory_mib: expected integer, got '2G'"),
        ("memory_mib = 100", r"lab\.toml: key memory_mib: expected at least 384, got 100"),
        ("memory_mib = 500", r"lab\.toml: key memory_mib: expected at least 560 .*got 500"),
        ('accel = "xen"', r"lab\.toml: key accel: expected one of auto, tcg, kvm, got 'xen'"),
        ('ports = ["80"]', r"lab\.toml: key ports\[0\]: expected \[ADDRESS:\]HOST_PORT:DOM0_PORT, got '80'"),
        ("memory_mib = ", r"lab\.toml: expected TOML"),
    ],
)
def test_a_bad_file_is_one_sentence_with_key_expected_and_got(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadRecipe, match=message):
        load_config(written(tmp_path, text))


def test_a_bad_flag_is_refused_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="lab settings: key vcpus: expected at least 1, got 0"):
        load_config(tmp_path, vcpus=0)
