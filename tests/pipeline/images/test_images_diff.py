"""What changed between two images, by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tars import Member, image_of, tar_of, write_layout

from pipeline.env import Env
from pipeline.images.diff import change_json, diff_images, paired
from pipeline.images.pull import image_of as fetched
from pipeline.layers import Spools
from pipeline.tree import Entry, Kind

FILE = {"a/": None, "a/f": b"12345"}


class Compared:
    """The changes of two images by path, and how many layers had to be inflated for their contents."""

    def __init__(self, env: Env, tmp_path: Path, left: Any, right: Any, **options: Any) -> None:
        layout = write_layout(tmp_path / "layout", {"left": left, "right": right})
        images = [fetched(f"oci:{layout}:{tag}", env) for tag in ("left", "right")]
        with Spools(env.store) as spools:
            diff_images(images[0], images[1], env, spools)  # both are unpacked now: what comes is the comparison alone
        with Spools(env.store) as spools:
            opened: set[str] = set()
            inflate = spools.open

            def counting(layer: Any, **options: Any) -> int:
                opened.add(str(layer.diff_id))
                return inflate(layer, **options)

            spools.open = counting  # type: ignore[method-assign]
            self.found = diff_images(images[0], images[1], env, spools, **options)
            self.changes = {change.path: change for change in self.found.changes}
            self.inflated = len(opened)

    def differs(self, path: bytes) -> dict[str, Any]:
        return self.changes[path].differs


def compare(env: Env, tmp_path: Path, left: Any, right: Any, **options: Any) -> Compared:
    """Two trees of one layer each."""
    return Compared(env, tmp_path, image_of(tar_of(left)), image_of(tar_of(right)), **options)


def test_equal_images_in_other_layers_have_no_difference(env: Env, tmp_path: Path) -> None:
    one = image_of(tar_of({"a/": None, "a/f": b"1", "b": b"2"}))
    other = image_of(tar_of({"b": b"2"}), tar_of({"a/": None, "a/f": b"1"}), compression="zstd")
    found = Compared(env, tmp_path, one, other)
    assert found.changes == {} and found.found.equal


def test_same_bytes_of_one_layer_are_not_even_inflated(env: Env, tmp_path: Path) -> None:
    base = tar_of(FILE)
    found = Compared(env, tmp_path, image_of(base, tar_of({"x": b"1"})), image_of(base, tar_of({"y": b"2"})))
    assert {path: change.how for path, change in found.changes.items()} == {b"x": "removed", b"y": "added"}
    assert found.inflated == 0


def test_other_size_is_seen_without_reading_and_same_size_by_content(env: Env, tmp_path: Path) -> None:
    found = compare(env, tmp_path, FILE, FILE | {"a/f": b"123456"})
    assert found.differs(b"a/f") == {"size": (5, 6)} and found.inflated == 0


def test_same_size_is_told_apart_by_content(env: Env, tmp_path: Path) -> None:
    found = compare(env, tmp_path, FILE, FILE | {"a/f": b"12354"})
    was, now = found.differs(b"a/f")["content"]
    assert was.startswith("sha256:") and was != now
    assert found.inflated == 2


@pytest.mark.parametrize(
    ("member", "differs"),
    [
        (Member("", b"12345", mode=0o755), {"mode": ("0644", "0755")}),
        (Member("", b"12345", mode=0o4755), {"mode": ("0644", "4755")}),
        (Member("", b"12345", uid=1, gid=70000), {"owner": ("0:0", "1:70000")}),
        (Member("", b"12345", pax=[("SCHILY.xattr.user.a", "v")]), {"xattrs": ({}, {b"user.a": b"v"})}),
        (Member("", kind=b"5", mode=0o644), {"type": ("file", "directory")}),
        (Member("", kind=b"2", mode=0o777, link="g"), {"type": ("file", "symlink")}),
        (Member("", kind=b"6"), {"type": ("file", "fifo")}),
    ],
    ids=["mode", "setuid", "owner", "xattrs", "directory", "symlink", "fifo"],
)
def test_changed_metadata(env: Env, tmp_path: Path, member: Member, differs: dict[str, Any]) -> None:
    assert compare(env, tmp_path, FILE, FILE | {"a/f": member}).differs(b"a/f") == differs


def test_changed_target_and_device(env: Env, tmp_path: Path) -> None:
    def tree(target: str, minor: int, kind: bytes) -> dict[str, Any]:
        return {"l": f"-> {target}", "d": Member("", kind=b"3", device=(1, minor)), "k": Member("", kind=kind)}

    found = compare(env, tmp_path, tree("one", 3, b"3"), tree("two", 5, b"4"))
    assert found.differs(b"l") == {"target": (b"one", b"two")}
    assert found.differs(b"d") == {"device": ("1:3", "1:5")}
    assert found.differs(b"k") == {"type": ("char", "block")}


def test_directory_that_went_takes_its_names_with_it(env: Env, tmp_path: Path) -> None:
    found = compare(env, tmp_path, FILE | {"a.b": b"", "a0": b""}, {"a.b": b"", "a0": b""})
    assert [(path, change.how) for path, change in found.changes.items()] == [(b"a", "removed"), (b"a/f", "removed")]


def test_mtime_counts_only_where_it_is_asked_for(env: Env, tmp_path: Path) -> None:
    later = FILE | {"a/f": Member("", b"12345", mtime=9)}
    found = compare(env, tmp_path, FILE, later)
    assert found.changes == {} and found.found.mtime_only == 1 and found.found.equal
    asked = compare(env, tmp_path / "again", FILE, later, mtime=True)
    assert asked.differs(b"a/f") == {"mtime": (0, 9 * 10**9)} and not asked.found.equal


def test_mtime_beside_another_change_is_left_out_too(env: Env, tmp_path: Path) -> None:
    found = compare(env, tmp_path, FILE, FILE | {"a/f": Member("", b"12345", mtime=9, mode=0o600)})
    assert found.differs(b"a/f") == {"mode": ("0644", "0600")} and found.found.mtime_only == 0


def test_hardlink_that_became_a_copy(env: Env, tmp_path: Path) -> None:
    found = compare(env, tmp_path, {"a": b"1", "b": "=> a"}, {"a": b"1", "b": b"1"})
    assert {path: change.differs for path, change in found.changes.items()} == {b"b": {"hardlink": (b"a", None)}}


def test_content_behind_a_hardlink_is_compared(env: Env, tmp_path: Path) -> None:
    found = compare(env, tmp_path, {"a": b"1", "b": "=> a"}, {"a": b"2", "b": "=> a"})
    assert set(found.changes) == {b"a", b"b"}


def test_how_to_run_it_is_compared(env: Env, tmp_path: Path) -> None:
    tar = tar_of(FILE)
    left = image_of(tar, config={"config": {"Cmd": ["a"], "User": "", "Env": ["A=1"]}})
    right = image_of(tar, config={"config": {"Cmd": ["b"], "Env": ["A=1"]}})
    found = Compared(env, tmp_path, left, right)
    assert found.found.config == {"Cmd": (["a"], ["b"])} and not found.found.equal


def test_json_of_any_name_is_text_or_base64(env: Env, tmp_path: Path) -> None:
    name, odd = "ü\n\u202e", b"\xff\xfe"
    member = Member("", b"", pax=[("SCHILY.xattr.user.b", b"\x00\xff")])
    found = compare(env, tmp_path, {}, {name: b"", odd: member})
    document = json.loads(json.dumps([change_json(change) for change in found.changes.values()]))
    assert [item["path"] for item in document] == [name, {"base64": "//4="}]
    assert document[1]["xattrs"] == {"user.b": "AP8="} and document[1]["type"] == "file"


def test_pairs_come_in_tree_order() -> None:
    def named(*paths: bytes) -> list[tuple[bytes, Entry]]:
        return [(path, Entry(path, Kind.FILE)) for path in paths]

    left, right = named(b"", b"a", b"a/z", b"a-b", b"c"), named(b"", b"a", b"a/b", b"a-b", b"b")
    pairs = [tuple(side and side[0] for side in pair) for pair in paired(left, right)]
    assert pairs == [
        (b"", b""),
        (b"a", b"a"),
        (None, b"a/b"),
        (b"a/z", None),
        (b"a-b", b"a-b"),
        (None, b"b"),
        (b"c", None),
    ]
