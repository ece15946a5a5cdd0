"""Kernel module files: compressed in any of the ways distributions do, and never trusted."""

from __future__ import annotations

import gzip
import lzma

import pytest
import zstandard
from support.modules import module_of

from pipeline import kmodule

PLAIN = module_of("name=veth", "depends=a-b,c", "alias=x", "alias=y")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("veth.ko", PLAIN),
        ("veth.ko.gz", gzip.compress(PLAIN)),
        ("veth.ko.xz", lzma.compress(PLAIN, check=lzma.CHECK_CRC32)),
        ("veth.ko.zst", zstandard.compress(PLAIN)),
    ],
)
def test_a_module_is_the_same_however_it_is_packed(name: str, data: bytes) -> None:
    assert kmodule.unpack(name, data) == PLAIN
    assert kmodule.canonical(name) == "veth"


@pytest.mark.parametrize("name", ["m.ko", "m.ko.gz", "m.ko.xz", "m.ko.zst"])
def test_other_bytes_are_refused_by_name(name: str) -> None:
    with pytest.raises(kmodule.BadModule, match=rf"^{name}: expected a "):
        kmodule.unpack(name, b"no module at all")


def test_what_a_module_needs_is_said_in_the_kernels_names() -> None:
    info = kmodule.modinfo(PLAIN)
    assert info["alias"] == ["x", "y"]
    assert kmodule.depends(info) == ("a_b", "c")


def test_needs_come_first_and_what_is_built_in_not_at_all() -> None:
    needs = {"a": ["b", "built_in"], "b": ["c"], "c": []}
    assert kmodule.load_order(["a", "c"], lambda name, _: needs.get(name)) == ["c", "b", "a"]
