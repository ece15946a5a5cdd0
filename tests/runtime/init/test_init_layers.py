"""What further containers wrote to a scratch disk goes, in a process of its own, and nothing else does."""

import os
import subprocess
from pathlib import Path

import pytest
from support.children import children

from runtime.init import layers
from runtime.init.mounts import LAYERS
from runtime.init.removal import remove_below


def layer(writable: Path, name: str) -> Path:
    """What a container may have written."""
    made = writable / LAYERS / name
    (made / "upper" / "deep" / "deeper").mkdir(parents=True)
    (made / "upper" / "deep" / "file").write_text("x")
    (made / "upper" / "out").symlink_to(writable)
    return made


def discard(writable: Path, name: str = "") -> int | None:
    """The pid of the process that removes; None where nothing is to be removed. Tests before may have left children."""
    before = children()
    layers.discard(str(writable), name)
    return next(iter(children() - before), None)


def wait_for(pid: int | None) -> None:
    """The end of it, without an error."""
    assert pid is not None
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("name", ["", "one"])
def test_layers_are_removed_whole_and_what_they_point_at_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "file").write_text("of the workload")
    for each in ("one", "two"):
        layer(tmp_path, each)
    read, write = os.pipe()
    removing = discard(tmp_path, name)
    assert not (tmp_path / LAYERS / "one").exists(), "the name is free at once"
    os.close(write)
    assert os.read(read, 1) == b"", "whoever removes holds nothing of ours open"
    os.close(read)
    wait_for(removing)
    assert os.listdir(tmp_path / "removed") == []
    assert (tmp_path / "upper" / "file").read_text() == "of the workload"
    assert (tmp_path / LAYERS / "two").exists() is (name == "one")


def test_what_an_earlier_removal_left_goes_with_the_next_start(tmp_path: Path) -> None:
    layer(tmp_path, "old").rename(tmp_path / "old")
    (tmp_path / "removed").mkdir()
    (tmp_path / "old").rename(tmp_path / "removed" / "7")
    wait_for(discard(tmp_path))
    assert os.listdir(tmp_path / "removed") == []


def test_nothing_to_remove_is_nothing_to_do(tmp_path: Path) -> None:
    for name in ("", "one"):
        assert discard(tmp_path, name) is None
    assert os.listdir(tmp_path) == []


def deep(directory: Path, levels: int) -> None:
    """A tree of so many levels, each with a file and a further directory: no path is as long."""
    here = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.close(os.open("file", os.O_CREAT, dir_fd=here))
        for name in ("a", "b", "c"):
            os.mkdir(name, dir_fd=here)
        below = os.open("b", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_tree_of_any_depth_goes(tmp_path: Path) -> None:
    deep(layer(tmp_path, "one"), 3000)
    try:
        wait_for(discard(tmp_path, "one"))
        assert os.listdir(tmp_path / "removed") == []
    finally:  # what is left is too deep for pytest to remove
        subprocess.run(["rm", "-rf", tmp_path / "removed"], check=True)


def test_what_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(path: str, device: int) -> None:
        raise OSError(5, "Input/output error")

    layer(tmp_path, "one")
    monkeypatch.setattr(layers, "remove_below", fail)
    wait_for(discard(tmp_path, "one"))
    assert capfd.readouterr().err == "zone: scratch disk: OSError: [Errno 5] Input/output error\n"


def test_what_is_on_another_file_system_stays(tmp_path: Path) -> None:
    layer(tmp_path, "one")
    before = sorted(tmp_path.rglob("*"))
    remove_below(str(tmp_path), os.stat(tmp_path).st_dev + 1)
    assert sorted(tmp_path.rglob("*")) == before
