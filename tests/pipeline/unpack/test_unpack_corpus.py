"""The layer corpus: awkward and hostile layers, each with the tree or the refusal it must lead to.

Numbers in the ids are those of the robustness notes, section 1.2. Trees are written as `path -> what`:
see `support.unpacking.tree`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.tars import Member, extra, record, tar_bytes, tar_of
from support.unpacking import Tree, tree, unpacked

from pipeline.errors import PipelineError
from pipeline.limits import Limits

LOWER = {"etc/": None, "etc/passwd": b"p", "a/": None, "a/x": b"x", "a/y": b"y", "lib": "-> usr/lib", "usr/lib/": None}
LOWER_TREE = {"a": "d", "a/x": "f x", "a/y": "f y", "etc": "d", "etc/passwd": "f p", "lib": "l usr/lib"} | {
    "usr": "d",
    "usr/lib": "d",
}


def without(*gone: str) -> Tree:
    """LOWER's tree without these paths."""
    return {path: what for path, what in LOWER_TREE.items() if path not in gone}


ACCEPTED: dict[str, tuple[list[dict[Any, Any]], Tree]] = {
    "01 path above the root": ([{"../../etc/x": b"1"}], {"etc": "d", "etc/x": "f 1"}),
    "02 absolute path": ([{"/abs/x": b"1"}], {"abs": "d", "abs/x": "f 1"}),
    "03 path that leaves and returns": ([{"a/../../b": b"1"}], {"b": "f 1"}),
    "04 root entry": ([{"./": None, "./a": b"1"}], {"a": "f 1"}),
    "10 invalid UTF-8": ([{b"n\xff\xfe": b"1"}], {"n\xff\xfe": "f 1"}),
    "11 trailing slash on a regular file": ([{"d/": b""}], {"d": "d"}),
    "12 backslash, newline and colon": ([{"a\\b\nc:d": b"1"}], {"a\\b\nc:d": "f 1"}),
    "13 names that differ by case": ([{"A": b"1", "a": b"2"}], {"A": "f 1", "a": "f 2"}),
    "14 missing parents": ([{"a/b/c": b"1"}], {"a": "d", "a/b": "d", "a/b/c": "f 1"}),
    "15 parent is a file of the same layer": ([{"a": b"1", "a/b": b"2"}], {"a": "d", "a/b": "f 2"}),
    "16 file over a full directory": ([LOWER, {"a": b"new"}], without("a/x", "a/y") | {"a": "f new"}),
    "17 directory over a directory": ([LOWER, {"a/": None}], LOWER_TREE),
    "19 parent is an absolute symlink": (
        [{"etc/": None, "localetc": "-> /etc", "localetc/x": b"1"}],
        {"etc": "d", "etc/x": "f 1", "localetc": "l /etc"},
    ),
    "20 parent is a symlink that climbs": ([{"d": "-> ../../../..", "d/x": b"1"}], {"d": "l ../../../..", "x": "f 1"}),
    "21 chain of forty symlinks": (
        [{**{f"l{n}": f"-> l{n + 1}" for n in range(40)}, "l40/": None, "l0/x": b"1"}],
        {**{f"l{n}": f"l l{n + 1}" for n in range(40)}, "l40": "d", "l40/x": "f 1"},
    ),
    "22 dangling symlink": ([{"a": "-> /no/such"}], {"a": "l /no/such"}),
    "23 directory over a symlink": (
        [LOWER, {"lib/": None, "lib/x": b"1"}],
        LOWER_TREE | {"lib": "d", "lib/x": "f 1"},
    ),
    "24 file over a symlink": ([LOWER, {"lib": b"1"}], LOWER_TREE | {"lib": "f 1"}),
    "24b implicit parent through a lower symlink": ([LOWER, {"lib/x": b"1"}], LOWER_TREE | {"usr/lib/x": "f 1"}),
    "25 hardlink to an absolute path": (
        [{"etc/passwd": b"p", "h": "=> /etc/passwd"}],
        {"etc": "d"} | {"etc/passwd": "f p", "h": "= etc/passwd"},
    ),
    "25b hardlink to a climbing path": (
        [{"etc/passwd": b"p", "x/h": "=> ../../etc/passwd"}],
        {"etc": "d", "etc/passwd": "f p", "x": "d", "x/h": "= etc/passwd"},
    ),
    "27 hardlink to a symlink": ([{"a": "-> b", "z": "=> a"}], {"a": "l b", "z": "= a"}),
    "30 hardlink across layers, first name removed": (
        [LOWER, {"k": "=> a/x"}, {"a/.wh.x": b""}],
        without("a/x") | {"k": "f x"},
    ),
    "30b hardlink to a name its own layer hides": (
        [LOWER, {"a/.wh.x": b"", "k": "=> a/x"}],
        without("a/x") | {"k": "f x"},
    ),
    "30c hardlink through a symlinked parent": (
        [{"victim/hello": b"1", "d/v": "-> ../victim", "d/v/file": b"2", "h": "=> d/v/hello"}],
        {"d": "d", "d/v": "l ../victim", "h": "f 1", "victim": "d", "victim/file": "f 2", "victim/hello": "= h"},
    ),
    "35 whiteout of a file": ([LOWER, {"a/.wh.x": b""}], without("a/x")),
    "35b whiteout of a full directory": ([LOWER, {".wh.a": b""}], without("a", "a/x", "a/y")),
    "36 whiteout of nothing": ([LOWER, {"a/.wh.none": b"", "none/.wh.x": b""}], LOWER_TREE),
    "37 opaque directory": ([LOWER, {"a/": None, "a/.wh..wh..opq": b""}], without("a/x", "a/y")),
    "38a opaque mark before entries": (
        [LOWER, {"a/.wh..wh..opq": b"", "a/n": b"1", "a/m": b"2"}],
        without("a/x", "a/y") | {"a/n": "f 1", "a/m": "f 2"},
    ),
    "38b opaque mark between entries": (
        [LOWER, {"a/n": b"1", "a/.wh..wh..opq": b"", "a/m": b"2"}],
        without("a/x", "a/y") | {"a/n": "f 1", "a/m": "f 2"},
    ),
    "38c opaque mark after entries": (
        [LOWER, {"a/n": b"1", "a/m": b"2", "a/.wh..wh..opq": b""}],
        without("a/x", "a/y") | {"a/n": "f 1", "a/m": "f 2"},
    ),
    "39 opaque root": ([LOWER, {".wh..wh..opq": b"", "n": b"1"}], {"n": "f 1"}),
    "40 opaque mark behind a symlink": (
        [LOWER | {"usr/lib/l": b"1"}, {"lib/.wh..wh..opq": b""}],
        LOWER_TREE,
    ),
    "40b opaque mark in a directory that replaces a symlink spares its target": (
        [LOWER | {"usr/lib/l": b"1"}, {"lib/": None, "lib/.wh..wh..opq": b"", "lib/n": b"2"}],
        LOWER_TREE | {"usr/lib/l": "f 1", "lib": "d", "lib/n": "f 2"},
    ),
    "41 opaque mark on a file and on nothing": (
        [LOWER, {"etc/passwd/.wh..wh..opq": b"", "none/.wh..wh..opq": b""}],
        LOWER_TREE,
    ),
    "42a whiteout, then the name": (
        [LOWER, {".wh.a": b"", "a/": None, "a/n": b"1"}],
        without("a/x", "a/y") | {"a/n": "f 1"},
    ),
    "42b the name, then its whiteout": (
        [LOWER, {"a/": None, "a/n": b"1", ".wh.a": b""}],
        without("a/x", "a/y") | {"a/n": "f 1"},
    ),
    "43a whiteout with data": ([LOWER, {"a/.wh.x": b"data"}], without("a/x")),
    "43b whiteout that is a directory": ([LOWER, {"a/.wh.x/": None}], without("a/x")),
    "43c whiteout that is a symlink": ([LOWER, {"a/.wh.x": "-> y"}], without("a/x")),
    "43d whiteout that is a hardlink": ([LOWER, {"a/.wh.x": "=> a/y"}], without("a/x")),
    "44 whiteout prefix in a directory part": ([{".wh.etc/f": b"1"}], {".wh.etc": "d", ".wh.etc/f": "f 1"}),
    "45 leftovers of AUFS": (
        [{".wh..wh.plnk/1.2": b"", ".wh..wh.aufs": b"", ".wh..wh.orph/": None, "a": b"1"}],
        {"a": "f 1"},
    ),
    "46 whiteout of .opq": ([{".opq": b"1", "b": b"2"}, {".wh..opq": b""}], {"b": "f 2"}),
    "47 whiteout by a roundabout path": ([LOWER, {"dne/../.wh.etc": b""}], without("etc", "etc/passwd")),
    "48 whiteout of a parent, children again": (
        [LOWER, {".wh.a": b"", "a/z": b"1"}],
        without("a/x", "a/y") | {"a/z": "f 1"},
    ),
    "49 whiteouts in the only layer": ([{".wh.a": b"", "b/.wh..wh..opq": b"", "c": b"1"}], {"c": "f 1"}),
    "50 device 0:0 is a device": ([{"d": Member("", kind=b"3")}], {"d": "c 0:0"}),
    "51 devices": (
        [{"c": Member("", kind=b"3", device=(1, 3)), "b": Member("", kind=b"4", device=(4095, 1048575))}],
        {"c": "c 1:3", "b": "b 4095:1048575"},
    ),
    "52 fifo, and a contiguous file": (
        [{"p": Member("", kind=b"6"), "s": Member("", b"1", kind=b"7")}],
        {"p": "p", "s": "f 1"},
    ),
    "86 the same layer twice": ([LOWER, LOWER], LOWER_TREE),
    "87 empty layer": ([LOWER, {}], LOWER_TREE),
    "87b nothing but empty layers": ([{}, {}], {}),
    "name given twice in a layer": ([{"a": b"1", "./a": b"2"}], {"a": "f 2"}),
    "newer whiteout below an older opaque directory": (
        [LOWER, {"a/": None, "a/.wh..wh..opq": b"", "a/s/t": b"1", "a/s/u": b"2"}, {"a/s/.wh.t": b""}],
        without("a/x", "a/y") | {"a/s": "d", "a/s/u": "f 2"},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_layers_merge_to(name: str, tmp_path: Path) -> None:
    layers, expected = ACCEPTED[name]
    found = tree(*unpacked(tmp_path, [tar_of(layer) for layer in layers]))
    assert found == expected


BODY = Member("file", b"12345")
LINK_SIZE = {"size": b"00000000005\0"}


def pax(*records: tuple[str | bytes, str | bytes], **member: Any) -> bytes:
    return tar_bytes([Member("file", pax=records, **member)])


def raw_pax(data: bytes, kind: bytes = b"x") -> bytes:
    return tar_bytes([extra(kind, data), Member("file", b"1")])


REFUSED: dict[str, tuple[bytes, str]] = {
    "05 root as a symlink": (tar_of({".": "-> /etc"}), "a directory as the root"),
    "05b root as a symlink, written /.": (tar_of({"/.": "-> /etc"}), "a directory as the root"),
    "06a root as a file": (tar_of({".": b"1"}), "a directory as the root"),
    "06b root as a device": (tar_of({"./": Member("", kind=b"3")}), "a directory as the root"),
    "06c root as a hardlink": (tar_of({"a": b"1", ".": "=> a"}), "a directory as the root"),
    "06d root by way of ..": (tar_of({"a/..": b"1"}), "a directory as the root"),
    "07 empty name": (tar_of({"": b"1"}), "expected a name"),
    "09a part of 256 bytes": (tar_of({"a/" + "b" * 256: b"1"}), "names of at most 255 bytes"),
    "09b path of 4,100 bytes": (tar_of({"/".join(["a" * 200] * 21): b"1"}), "paths of at most 4096 bytes"),
    "18 depth of 1,000": (tar_of({"/".join("a" * 1000): b"1"}), "paths of at most 512 parts"),
    "21 loop as a parent": (tar_of({"a": "-> b", "b": "-> a", "a/x": b"1"}), "at most 40 symlinks"),
    "21b chain of 41 as a parent": (
        tar_of({**{f"l{n}": f"-> l{n + 1}" for n in range(41)}, "l41/": None, "l0/x": b"1"}),
        "at most 40 symlinks",
    ),
    "22a empty symlink target": (tar_of({"a": "-> "}), "a link target of 1 to 4095 bytes"),
    "22b symlink target of 4,096 bytes": (tar_of({"a": "-> " + "t" * 4096}), "a link target of 1 to 4095 bytes"),
    "26a hardlink to nothing": (tar_of({"a": "=> none"}), "a hardlink to an earlier entry"),
    "26b hardlink to a later entry": (tar_of({"a": "=> b", "b": b"1"}), "a hardlink to an earlier entry"),
    "28a hardlink to a directory": (tar_of({"d/": None, "a": "=> d"}), "something else than a directory"),
    "28b hardlink to itself": (tar_of({"a": b"1", "./a": "=> a"}), "a hardlink to another name"),
    "31 whiteout of nothing named": (tar_of({".wh.": b""}), "a whiteout of a name"),
    "32 whiteout of .": (tar_of({".wh..": b""}), "a whiteout of a name"),
    "33 whiteout of ..": (tar_of({".wh...": b""}), "a whiteout of a name"),
    "34 whiteout of .. below": (tar_of({"a/.wh...": b""}), "a whiteout of a name"),
    "51 device number too large": (tar_of({"d": Member("", kind=b"3", device=(4096, 0))}), "a device up to"),
    "52 unknown type": (tar_of({"a": Member("", kind=b"Z")}), "a type flag"),
    "54a uid 2**32 - 1": (tar_of({"a": Member("", uid=2**32 - 1)}), "a uid from 0 to"),
    "54b gid 2**32": (tar_of({"a": Member("", gid=2**32)}), "a gid from 0 to"),
    "54c negative uid": (tar_of({"a": Member("", uid=-1)}), "a uid from 0 to"),
    "58 xattr over 64 KiB": (pax(("SCHILY.xattr.user.a", b"x" * 65537)), "an xattr of at most 65536 bytes"),
    "61a symlink with a size": (
        tar_bytes([Member("a", kind=b"2", link="b", raw=LINK_SIZE), BODY]),
        "no data with an entry that is not a regular file",
    ),
    "61b directory with a size": (tar_bytes([Member("a/", b"x", kind=b"5")]), "no data with an entry"),
    "61c device with a size": (tar_bytes([Member("a", b"x", kind=b"3")]), "no data with an entry"),
    "61d hardlink with a size": (tar_bytes([BODY, Member("a", b"x", kind=b"1", link="file")]), "no data with an entry"),
    "61e regular file with a slash and a size": (tar_bytes([Member("a/", b"x")]), "no data with an entry"),
    "62 lone zero block, then entries": (tar_bytes([bytes(512), BODY]), "a second zero block"),
    "63a empty pax path": (pax(("path", "")), "a PAX path that is a name"),
    "63b pax path with a zero byte": (pax(("path", b"a\0b")), "a PAX path that is a name"),
    "63c empty pax linkpath": (pax(("linkpath", ""), kind=b"2"), "a PAX linkpath that is a name"),
    "64a negative base-256 size": (
        tar_bytes([Member("a", raw={"size": b"\xff" * 12})]),
        "a size of 0 or more",
    ),
    "64b huge base-256 size": (tar_bytes([Member("a", raw={"size": b"\x80\xff" + bytes(10)})]), "at most 63 bits"),
    "65a pax uid -1": (pax(("uid", "-1")), "a uid from 0 to"),
    "65b pax uid 2**32": (pax(("uid", str(2**32))), "a uid from 0 to"),
    "65c pax gid of letters": (pax(("gid", "root")), "a decimal gid"),
    "66a global path": (raw_pax(record("path", "x"), b"g"), "no entry fields in a global PAX header"),
    "66b global size": (raw_pax(record("size", "5"), b"g"), "no entry fields in a global PAX header"),
    "66c global linkpath": (raw_pax(record("linkpath", "x"), b"g"), "no entry fields in a global PAX header"),
    "66d global mtime": (raw_pax(record("mtime", "5"), b"g"), "no entry fields in a global PAX header"),
    "67a pax length too long": (raw_pax(b"99 path=x\n"), "as long as it says"),
    "67b pax length too short": (raw_pax(b"5 path=x\n"), "as long as it says"),
    "67c pax record without a newline": (raw_pax(b"9 path=xx"), "as long as it says"),
    "67d pax record without =": (raw_pax(b"7 path\n"), "KEY=VALUE"),
    "69 data after the end": (tar_bytes([BODY], end=bytes(1024) + b"x"), "only zeros after the end"),
    "70a body cut off": (tar_bytes([Member("a", b"x" * 2000)], end=b"")[:-600], "its end in the middle"),
    "70b header cut off": (tar_bytes([BODY], end=b"")[:300], "its end in the middle"),
    "70c padding cut off": (tar_bytes([BODY], end=b"")[:-1], "its end in the middle"),
    "70d extended header and no entry": (
        extra(b"x", record("path", "x")) + bytes(1024),
        "an entry after its extended header",
    ),
    "72a pax, then a GNU name": (
        tar_bytes([extra(b"x", record("path", "x")), extra(b"L", b"long\0"), BODY]),
        "several that compete",
    ),
    "72b GNU name, then pax": (
        tar_bytes([extra(b"L", b"long\0"), extra(b"x", record("path", "x")), BODY]),
        "several that compete",
    ),
    "72c two GNU names": (tar_bytes([extra(b"L", b"one\0"), extra(b"L", b"two\0"), BODY]), "several that compete"),
    "73a pax header over 1 MiB": (
        raw_pax(record("comment", "x" * (1 << 20))),
        "an extended header of 1 to 1048576 bytes",
    ),
    "73b 20,000 pax records": (raw_pax(record("a", "b") * 20_000), "at most 10000 PAX records"),
    "73c pax length with a zero": (raw_pax(b"010 path=x\n"), "begins with its length"),
    "73d pax length with a sign": (raw_pax(b"+9 path=x\n"), "begins with its length"),
    "73e pax length with a blank": (raw_pax(b" 9 path=x\n"), "begins with its length"),
    "74a GNU name over 1 MiB": (tar_bytes([extra(b"L", b"n" * (1 << 20) + b"\0"), BODY]), "an extended header of 1 to"),
    "74b GNU name without its zero byte": (tar_bytes([extra(b"L", b"name"), BODY]), "ended by a zero byte"),
    "74c GNU name with more behind its zero byte": (tar_bytes([extra(b"L", b"a\0b\0"), BODY]), "ended by a zero byte"),
    "75 wrong checksum": (tar_bytes([Member("a", raw={"checksum": b"000123\0 "})]), "header checksum"),
    "octal field with letters": (tar_bytes([Member("a", raw={"mode": b"rwxr-x\0"})]), "an octal mode"),
    "no bytes": (b"", "no bytes at all"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layer_is_refused(name: str, tmp_path: Path) -> None:
    tar, expected = REFUSED[name]
    with pytest.raises(PipelineError, match=expected) as caught:
        unpacked(tmp_path, [tar])
    assert str(caught.value).startswith("layer sha256:")


STRICT = {
    "01 path above the root": [{"../../etc/x": b"1"}],
    "40 opaque mark behind a symlink": [LOWER, {"lib/.wh..wh..opq": b""}],
    "43 whiteout with data": [LOWER, {"a/.wh.x": b"data"}],
    "name given twice": [{"a": b"1", "./a": b"2"}],
}


@pytest.mark.parametrize("name", STRICT)
def test_strict_refuses_what_is_otherwise_put_right(name: str, tmp_path: Path) -> None:
    layers = [tar_of(layer) for layer in STRICT[name]]
    assert unpacked(tmp_path / "lenient", layers)[0].entries > 0
    with pytest.raises(PipelineError):
        unpacked(tmp_path / "strict", layers, strict=True)


LIMITS = {
    "entries": (Limits(entries=10), tar_of({f"f{n}": b"" for n in range(11)})),
    "entries made by missing parents": (Limits(entries=10), tar_of({"/".join("abcdefghijkl"): b""})),
    "size of a file": (Limits(file_bytes=100), tar_of({"a": b"x" * 101})),
    "size of a layer": (Limits(layer_bytes=2000), tar_of({"a": b"x" * 1000})),
    "size of the image": (Limits(image_bytes=1000), tar_of({"a": b"x" * 600, "b": b"x" * 600})),
    "layers": (Limits(layers=0), tar_of({})),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_kept(name: str, tmp_path: Path) -> None:
    limits, tar = LIMITS[name]
    with pytest.raises(PipelineError, match="at most"):
        unpacked(tmp_path, [tar], limits=limits)
    assert unpacked(tmp_path / "within", [tar])[0].entries > 0
