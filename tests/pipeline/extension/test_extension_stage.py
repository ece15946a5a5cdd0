"""Extension images as segments and trees: the bytes, the cache, what is refused."""

import gzip
import lzma

import pytest
from support.extensions import RELEASE, VERMAGIC, converted, extension_image, module
from support.tars import Member

from pipeline import newc
from pipeline.env import Env
from pipeline.extension.errors import BadExtension, NotAnExtension
from pipeline.kmodule import BadModule
from pipeline.store import Store
from pipeline.tree import read_tree

TOOLS = {
    "bin/": None,
    "bin/tool": Member("", b"#!/bin/sh\n", mode=0o755, uid=3, mtime=77),
    "bin/other": "=> bin/tool",
    "etc/": None,
    "etc/tool.conf": b"x=1\n",
    "etc/link": "-> tool.conf",
}
BASE = f"lib/modules/{RELEASE}/"
MODULES = {
    "lib/": None,
    "lib/modules/": None,
    BASE: None,
    BASE + "b.ko": module("b", depends="a"),
    BASE + "a-x.ko.xz": lzma.compress(module("a_x"), check=lzma.CHECK_CRC32),
    BASE + "c.ko.gz": gzip.compress(module("c"), mtime=0),
    BASE + "modules.dep": b"",
}


@pytest.fixture
def env(tmp_path):
    return Env(Store(tmp_path / "store"))


def segment(env, result) -> dict[str, newc.Entry]:
    return {entry.path: entry for entry in newc.read(env.store.read(result.segment.digest))}


def test_a_segment_is_sorted_without_times_and_leaves_the_bases_directories_out(env, tmp_path):
    result = converted(env, tmp_path, "tools", extension_image(TOOLS, kind="utils", phase="initrd"))
    entries = segment(env, result)
    assert list(entries) == ["bin/other", "bin/tool", "etc", "etc/link", "etc/tool.conf"]
    assert entries["bin/tool"].data == entries["bin/other"].data == b"#!/bin/sh\n"
    assert entries["bin/tool"].hardlink == entries["bin/other"].hardlink != ""
    assert (entries["bin/tool"].mode, entries["bin/tool"].uid) == (0o100755, 3)
    assert entries["etc/link"].data == b"tool.conf"
    data = env.store.read(result.segment.digest)
    assert len(data) % 4 == 0 and result.tree is None
    assert all(data[at + 46 : at + 54] == b"0" * 8 for at in range(len(data)) if data.startswith(newc.MAGIC, at))


def test_the_same_content_gives_the_same_segment_however_it_is_layered_labelled_and_stored(tmp_path):
    segments = set()
    for index, options in enumerate(({}, {"labels": True}, {"split": True})):
        env = Env(Store(tmp_path / f"store{index}"))
        image = extension_image(TOOLS, kind="utils", phase="initrd", **options)
        segments.add(converted(env, tmp_path, f"t{index}", image).segment)
    assert len(segments) == 1


def test_a_second_zone_finds_the_segment_made(env, tmp_path, monkeypatch):
    image = extension_image(TOOLS, kind="utils", phase="initrd")
    first = converted(env, tmp_path, "one", image)
    monkeypatch.setattr("pipeline.extension.stage.write_segment", None)
    second = converted(env, tmp_path, "two", image)
    assert (second.segment, second.manifest) == (first.segment, first.manifest)
    assert second.reference != first.reference


def test_scan_sees_what_read_sees(env, tmp_path):
    result = converted(env, tmp_path, "tools", extension_image(TOOLS, kind="utils", phase="initrd"))
    scanned = list(newc.scan(env.store.path(result.segment.digest)))
    assert [(e.path, e.mode, bool(e.hardlink)) for e in scanned] == [
        (e.path, e.mode, bool(e.hardlink)) for e in segment(env, result).values()
    ]
    whole = env.store.read(result.segment.digest)
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2 & ~3])
    with pytest.raises(newc.BadArchive):
        list(newc.scan(tmp_path / "cut"))


def test_modules_of_the_initrd_are_unpacked_and_say_what_they_need(env, tmp_path):
    image = extension_image(MODULES, kind="modules", phase="initrd", kernel_release=RELEASE)
    result = converted(env, tmp_path, "mods", image)
    assert {path: entry.data for path, entry in segment(env, result).items()} == {
        "modules/a_x.ko": module("a_x"),
        "modules/b.ko": module("b", depends="a"),
        "modules/c.ko": module("c"),
    }
    assert [(m.name, m.path, m.depends, m.vermagic) for m in result.modules] == [
        ("a_x", "modules/a_x.ko", (), VERMAGIC.strip()),
        ("b", "modules/b.ko", ("a",), VERMAGIC.strip()),
        ("c", "modules/c.ko", (), VERMAGIC.strip()),
    ]


def test_modules_of_the_addons_keep_their_place_and_compressed_ones_are_blobs(env, tmp_path):
    image = extension_image(MODULES, kind="modules", phase="addons", kernel_release=RELEASE)
    result = converted(env, tmp_path, "mods", image)
    assert [entry.path for entry in read_tree(env.store, result.tree)] == [b"modules/b.ko"]
    by_name = {item.name: item for item in result.modules}
    assert by_name["b"].plain is None and by_name["a_x"].path == "modules/a-x.ko"
    assert env.store.read(by_name["a_x"].plain.digest) == module("a_x")


def test_two_files_of_one_module_are_refused(env, tmp_path):
    tree = {BASE + "a-b.ko": module("a_b"), BASE + "old/a_b.ko": module("a_b")}
    image = extension_image(tree, kind="modules", phase="addons", kernel_release=RELEASE)
    with pytest.raises(BadExtension, match=r"old/a_b\.ko: expected one module called a_b, got another"):
        converted(env, tmp_path, "mods", image)


@pytest.mark.parametrize("data", [b"no module", b"\x7fELF\x02\x01" + bytes(100)])
def test_what_is_no_module_is_named_with_its_image(env, tmp_path, data):
    image = extension_image({BASE + "a.ko": data}, kind="modules", phase="addons", kernel_release=RELEASE)
    with pytest.raises(BadModule, match=r"mods:x: modules/a\.ko: expected"):
        converted(env, tmp_path, "mods", image)


def test_an_init_brings_the_whole_base(env, tmp_path):
    tree = {"init": Member("", b"\x7fELF", mode=0o755), "bin/": None, "bin/sh": b"sh"}
    result = converted(env, tmp_path, "init", extension_image(tree, kind="init", phase="initrd"))
    entries = segment(env, result)
    assert entries["init"].data == b"\x7fELF" and entries["bin/zone"].data == b"/init"
    assert {"dev/console", "proc", "sys", "zone", "lib", "run", "bin/sh"} <= set(entries)


@pytest.mark.parametrize(
    ("tree", "got"),
    [
        ({"bin/x": b""}, "none"),
        ({"init": b"x"}, "mode 644"),
        ({"init": "-> bin/x", "bin/x": b""}, "another"),
    ],
)
def test_an_init_without_a_program_is_refused(env, tmp_path, tree, got):
    with pytest.raises(BadExtension, match=rf"/init: expected a program for pid 1, .*, got {got}"):
        converted(env, tmp_path, "init", extension_image(tree, kind="init", phase="initrd"))


def test_an_ordinary_image_is_refused_by_its_reference(env, tmp_path):
    image = extension_image(TOOLS, kind="utils", phase="initrd")
    image.manifest = image.manifest.replace(b"dev.zonewright", b"dev.example")
    with pytest.raises(NotAnExtension, match=r"oci:.*/plain:x: expected an extension image"):
        converted(env, tmp_path, "plain", image)
