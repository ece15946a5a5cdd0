"""Paths that lead through long symlinks over and over: what they cost is counted, and ends."""

from __future__ import annotations

import pytest

from pipeline.tree import Entry, Kind
from pipeline.unpack import merge as merge_module
from pipeline.unpack.errors import LimitExceeded
from pipeline.unpack.merge import HOPS_MAX, Merge


def directory(path: str) -> Entry:
    return Entry(path.encode(), Kind.DIRECTORY, mode=0o755)


def chain() -> list[Entry]:
    """A directory, and symlinks to it that go round about and through each other."""
    ends = [f"s{number + 1}" for number in range(HOPS_MAX - 1)] + ["a"]
    targets = [("a/../" * 810 + end).encode() for end in ends]
    return [
        directory("a"),
        *(Entry(b"s%d" % number, Kind.SYMLINK, target=target) for number, target in enumerate(targets)),
    ]


@pytest.mark.parametrize("name", ["x{}/f", "x/.wh.{}"])
def test_image_of_long_ways_ends_at_their_number(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(merge_module, "STEPS_MAX", 500_000, raising=False)
    merge = Merge()
    merge.add(chain(), subject="base")
    upper = [Entry(f"s0/{name}".format(number).encode(), Kind.FILE) for number in range(20)]
    with pytest.raises(LimitExceeded, match="upper: expected at most 500000 steps along paths, got more"):
        merge.add(upper, subject="upper")


def test_whiteouts_deep_in_directories_of_their_layer_take_a_way_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each of the directories above them."""
    monkeypatch.setattr(merge_module, "STEPS_MAX", 10_000, raising=False)
    ways: list[int] = []
    walk = Merge._walk
    monkeypatch.setattr(Merge, "_walk", lambda *given, **named: ways.append(1) or walk(*given, **named))
    depth, whiteouts = 40, 100
    directories = ["/".join(["d"] * count) for count in range(1, depth + 1)]
    merge = Merge()
    merge.add([directory(path) for path in directories], subject="base")
    before = len(ways)
    deep = [Entry(f"{directories[-1]}/.wh.{number}".encode(), Kind.FILE) for number in range(whiteouts)]
    merge.add([*(directory(path) for path in directories), *deep], subject="upper")
    assert len(ways) - before < 2 * depth + whiteouts + 2
