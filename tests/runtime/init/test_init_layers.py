"""What further containers wrote to a scratch disk goes, in a process of its own, and nothing else does."""

import os
from pathlib import Path

import pytest

from runtime.init import layers


def layer(writable: Path, name: str) -> Path:
    """What a container may have written."""
    made = writable / layers.HOME / name
    (made / "upper" / "deep" / "deeper").mkdir(parents=True)
    (made / "upper" / "deep" / "file").write_text("x")
    (made / "upper" / "out").symlink_to(writable)
    return made


@pytest.mark.parametrize("name", ["", "one"])
def test_layers_are_removed_whole_and_what_they_point_at_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "file").write_text("of the workload")
    for each in ("one", "two"):
        layer(tmp_path, each)
    read, write = os.pipe()
    layers.discard(str(tmp_path), name)
    assert not (tmp_path / layers.HOME / "one").exists(), "the name is free at once"
    os.close(write)
    assert os.read(read, 1) == b"", "whoever removes holds nothing of ours open"
    os.close(read)
    assert os.wait()[1] == 0
    assert os.listdir(tmp_path / "removed") == []
    assert (tmp_path / "upper" / "file").read_text() == "of the workload"
    assert (tmp_path / layers.HOME / "two").exists() is (name == "one")


def test_what_an_earlier_removal_left_goes_with_the_next_start(tmp_path: Path) -> None:
    layer(tmp_path, "old").rename(tmp_path / "old")
    (tmp_path / "removed").mkdir()
    (tmp_path / "old").rename(tmp_path / "removed" / "7")
    layers.discard(str(tmp_path))
    os.wait()
    assert os.listdir(tmp_path / "removed") == []


def test_nothing_to_remove_is_nothing_to_do(tmp_path: Path) -> None:
    for name in ("", "one"):
        layers.discard(str(tmp_path), name)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ChildProcessError):
        os.wait()
